"""Score a prediction file against a gold file."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path

from tasks.contracts.failures import DataError
from tasks.gateways.hub import read_questions_file
from tasks.logic.benchmarks import strategyqa
from tasks.logic.texts import clean


def score_files(benchmark: str, *, pred: Path, gold: Path) -> dict[str, float]:
    """Figures by the benchmark's official definition. Raises DataError for files that are missing or are no such thing."""
    if benchmark != "strategyqa":
        raise DataError(f"no scorer for {benchmark!r}; known ones: strategyqa")
    for path in (pred, gold):
        if not path.is_file():
            raise DataError(f"{path} does not exist; give the path of a JSON or JSONL file")
    try:
        predictions = json.loads(pred.read_text(encoding="utf-8-sig"), object_pairs_hook=partial(_each_once, pred))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{pred} is not JSON ({error}); it should hold one object, qid to prediction") from error
    return strategyqa.score(predictions, read_questions_file(str(gold)))


def _each_once(pred: Path, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose names are all different: of two predictions for one question nobody knows which was meant."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise DataError(f"{pred}: {clean(twice[0])!r} occurs twice in one object; keep one answer a question")
    return dict(pairs)
