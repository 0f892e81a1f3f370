"""Named splits of StrategyQA: the published ones, one of them made ready for a last fit, and folds of a cross-validation (cv5-0 is the first of five)."""

from __future__ import annotations

import re
from typing import NamedTuple

PUBLISHED = ("hub", "finetune_cot", "author")
REFIT = "hub_refit"  # hub with most of its dev in train: what is read last, once settings are chosen on hub itself
NAMED_SPLITS = (*PUBLISHED, REFIT)
MOST = 10
_NAME = re.compile(r"cv(\d{1,2})-(\d)")


class Fold(NamedTuple):
    """Fold `number` (from 0) of `of`: its questions are the test split, the others are trained on."""

    number: int
    of: int

    @property
    def name(self) -> str:
        """What recipe.sample.split calls it."""
        return f"cv{self.of}-{self.number}"


def fold_of(name: str) -> Fold | None:
    """The fold that a split's name means, None where it means none; there are 2 to 10 folds."""
    found = _NAME.fullmatch(name)
    fold = Fold(number=int(found.group(2)), of=int(found.group(1))) if found else None
    return fold if fold and 2 <= fold.of <= MOST and fold.number < fold.of and fold.name == name else None
