"""Folds of a cross-validation as named splits: cv5-0 is the first of five."""

from __future__ import annotations

import re
from typing import NamedTuple

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
