"""A run's headline predictions in the form that `socratune score` and the official StrategyQA evaluator read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tasks.contracts.rows import Prediction, Verdict
from tasks.logic.benchmarks.yes_no import parse_skeleton

_ANSWERS = {Verdict.YES.value: True, Verdict.NO.value: False}


def prediction_files(predictions: Iterable[Prediction], *, headlines: Mapping[str, str], split: str) -> dict[str, dict[str, dict[str, Any]]]:
    """By model {qid: {"answer", "decomposition", "paragraphs"}} of its headline arm (`headlines`) on `split`; models without such rows are absent.

    The decomposition is the clarifying questions of the model's own chain; nothing is retrieved, so there are no paragraphs. The answer is true, false, or
    null where the text has no verdict: our scorer counts that as wrong, the official evaluator too, since null equals neither label.
    """
    files: dict[str, dict[str, dict[str, Any]]] = {}
    for row in predictions:
        if row.split == split and row.arm == headlines.get(row.model):
            said = {"answer": _ANSWERS.get(row.verdict), "decomposition": list(parse_skeleton(row.text).asked), "paragraphs": []}
            files.setdefault(row.model, {})[row.qid] = said
    return files
