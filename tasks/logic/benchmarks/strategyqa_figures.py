"""The official StrategyQA figures of one question's decomposition and evidence, as github.com/allenai/strategyqa-evaluator defines them.

SARI (Xu et al. 2016, "Optimizing Statistical Machine Translation for Text Simplification") compares what a text adds to, keeps of and deletes from its
source with what a reference does. The evaluator takes tensor2tensor's variant: n-grams count once, 0/0 is 1, and deletion is precision alone. The SARI of
`evaluate`, `easse` and `sacrebleu`-like packages counts repeats, tokenises otherwise and gives other figures, so this is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LONGEST = 4  # tokens of an n-gram
RETRIEVED = 10  # paragraphs that count

Grams = frozenset[tuple[str, ...]]


def sari(question: str, decomposition: Sequence[str], gold: Sequence[str]) -> float:
    """SARI in 0..1 of the steps of a decomposition against the gold steps, with the question as source. Tokens are words; "?" is one of its own."""
    source, said, wanted = _tokens(question), _tokens(" ".join(decomposition)), _tokens(" ".join(gold))
    return sum(_sari_of_length(*(_grams(tokens, n) for tokens in (source, said, wanted))) for n in range(1, LONGEST + 1)) / LONGEST


def recall(evidence: Sequence[Any], paragraphs: Sequence[str]) -> float:
    """Share of an annotator's evidence paragraphs among the first ten of `paragraphs`, of the annotator who agrees most; 0 where there is no evidence.

    `evidence` as in the official files: annotators, each a list of steps, each a list of paragraph id lists and of marks such as "no_evidence".
    """
    found = set(paragraphs[:RETRIEVED])
    wanted = [{qid for step in annotator for entry in step if isinstance(entry, list) for qid in entry} for annotator in evidence]
    return max((len(each & found) / len(each) for each in wanted if each), default=0.0)


def _sari_of_length(source: Grams, said: Grams, wanted: Grams) -> float:
    """The mean of the F1 of additions, the F1 of what is kept and the precision of deletions."""
    added, should_add = said - source, wanted - source
    kept, should_keep = source & said, source & wanted
    deleted, should_delete = source - said, source - wanted
    return (_f1(added, should_add) + _f1(kept, should_keep) + _share(deleted & should_delete, deleted)) / 3


def _f1(did: Grams, should: Grams) -> float:
    precision, recalled = _share(did & should, did), _share(did & should, should)
    return 2 * precision * recalled / (precision + recalled) if precision and recalled else 0.0


def _share(part: Grams, whole: Grams) -> float:
    return len(part) / len(whole) if whole else 1.0


def _tokens(text: str) -> list[str]:
    return text.replace("?", " ?").split()


def _grams(tokens: Sequence[str], n: int) -> Grams:
    return frozenset(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))
