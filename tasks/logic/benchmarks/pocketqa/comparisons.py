"""What pocketqa compares: attributes with their one sentence a fact, and comparisons with both polarities of their wording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.logic.benchmarks.pocketqa.history import EVENTS, INVENTIONS
from tasks.logic.benchmarks.pocketqa.nature import ATOMIC_NUMBERS, HEIGHTS, LIFE_SPANS, MASSES, SPEEDS
from tasks.logic.benchmarks.pocketqa.people import BIRTHS, DEATHS


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribute:
    """A number that each of its entities has. `ask` and `tell` are the only question and sentence about it, wherever it appears."""

    noun: str
    values: Mapping[str, int]
    ask: str
    tell: str
    unit: str  # "year" counts from the birth of Christ; anything else follows the number, "" for a bare one

    def show(self, name: str) -> str:
        """The value as text: "44 BC", "110 km/h"."""
        value = self.values[name]
        if self.unit == "year":
            return f"{-value} BC" if value < 0 else str(value)
        return f"{value} {self.unit}".strip()

    def question(self, name: str) -> str:
        """The sub-question whose answer is `fact`."""
        return self.ask.format(name)

    def fact(self, name: str) -> str:
        """The canonical sentence."""
        return capitalised(self.tell.format(name, self.show(name)))


@dataclass(frozen=True, kw_only=True)
class Wording:
    """One way to ask a comparison. The answer is yes when "the left value is the smaller one" equals `yes_when_less`."""

    kind: str
    text: str
    yes_when_less: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Two attributes side by side, asked in two opposite wordings. `less` and `more` conclude, in the questions' own words.

    A pair is asked only when its values are clearly apart: by more than `gap` years (`late_gap` where the left one comes later), or by more than the
    factor `ratio`.
    """

    left: Attribute
    right: Attribute
    relation: tuple[str, str]
    less: str
    more: str
    wordings: tuple[Wording, Wording]
    ratio: float = 1.0
    gap: int = 0
    late_gap: int = 0

    @property
    def symmetric(self) -> bool:
        """Whether both sides come from one table, so that a pair can be asked in either order."""
        return self.left is self.right

    def is_less(self, left: str, right: str) -> bool:
        """Whether the left value is the smaller one."""
        return self.left.values[left] < self.right.values[right]

    def clear(self, left: str, right: str) -> bool:
        """Whether the two values are far enough apart to ask."""
        low, high = sorted((self.left.values[left], self.right.values[right]))
        gap = self.gap if self.is_less(left, right) else max(self.gap, self.late_gap)
        return high - low > gap and (self.ratio == 1.0 or high > low * self.ratio)


def capitalised(text: str) -> str:
    """`text` with a capital first letter and the rest as it is."""
    return text[0].upper() + text[1:]


def _both(kinds: tuple[str, str], texts: tuple[str, str]) -> tuple[Wording, Wording]:
    """The wording that is true of the smaller left value, then its opposite."""
    return (
        Wording(kind=kinds[0], text=texts[0], yes_when_less=True),
        Wording(kind=kinds[1], text=texts[1], yes_when_less=False),
    )


_TIME = ("before", "after")
_AMOUNT = ("less than", "more than")
_YEARS = 2  # a gap of at least three years

_DEATH = Attribute(noun="person", values=DEATHS, ask="When did {} die?", tell="{} died in {}.", unit="year")
_BIRTH = Attribute(noun="person", values=BIRTHS, ask="When was {} born?", tell="{} was born in {}.", unit="year")
_INVENTION = Attribute(noun="invention", values=INVENTIONS, ask="When did {} first appear?", tell="{} first appeared in {}.", unit="year")
_EVENT = Attribute(noun="event", values=EVENTS, ask="When did {} take place?", tell="{} took place in {}.", unit="year")
_MASS = Attribute(noun="animal or thing", values=MASSES, ask="How heavy is {}?", tell="{} weighs about {}.", unit="kg")
_SPEED = Attribute(noun="animal or thing that moves", values=SPEEDS, ask="How fast is {}?", tell="{} reaches about {}.", unit="km/h")
_LIFE = Attribute(noun="living thing", values=LIFE_SPANS, ask="How long does {} live?", tell="{} lives about {}.", unit="years")
_HEIGHT = Attribute(noun="mountain or structure", values=HEIGHTS, ask="How tall is {}?", tell="{} is {} tall.", unit="m")
_ATOM = Attribute(noun="chemical element", values=ATOMIC_NUMBERS, ask="What is the atomic number of {}?", tell="{} has atomic number {}.", unit="")

ATTRIBUTES = (_DEATH, _BIRTH, _INVENTION, _EVENT, _MASS, _SPEED, _LIFE, _HEIGHT, _ATOM)

COMPARISONS = (
    Comparison(
        left=_DEATH, right=_INVENTION, relation=_TIME, gap=_YEARS, late_gap=9, less="{0} died too early to use it", more="{0} could have used it",
        wordings=_both(("too_early_to_use", "could_have_used"), ("Did {0} die too early to use {1}?", "Could {0} have used {1}?")),
    ),
    Comparison(
        left=_DEATH, right=_EVENT, relation=_TIME, gap=_YEARS, less="{0} died before it", more="{0} died after it",
        wordings=_both(("died_before_event", "died_after_event"), ("Did {0} die before {1}?", "Did {0} die after {1}?")),
    ),
    Comparison(
        left=_DEATH, right=_DEATH, relation=_TIME, gap=_YEARS, less="{0} died before {1}", more="{0} died after {1}",
        wordings=_both(("died_before", "died_after"), ("Did {0} die before {1}?", "Did {0} die after {1}?")),
    ),
    Comparison(
        left=_BIRTH, right=_BIRTH, relation=_TIME, gap=_YEARS, less="{0} was born before {1}", more="{0} was born after {1}",
        wordings=_both(("born_before", "born_after"), ("Was {0} born before {1}?", "Was {0} born after {1}?")),
    ),
    Comparison(
        left=_INVENTION, right=_INVENTION, relation=_TIME, gap=_YEARS, less="{0} appeared before {1}", more="{0} appeared after {1}",
        wordings=_both(("appeared_before", "appeared_after"), ("Did {0} appear before {1}?", "Did {0} appear after {1}?")),
    ),
    Comparison(
        left=_EVENT, right=_EVENT, relation=_TIME, gap=_YEARS, less="{0} came before {1}", more="{0} came after {1}",
        wordings=_both(("happened_before", "happened_after"), ("Did {0} come before {1}?", "Did {0} come after {1}?")),
    ),
    Comparison(
        left=_MASS, right=_MASS, relation=_AMOUNT, ratio=1.5, less="{0} is lighter", more="{0} is heavier",
        wordings=_both(("lighter", "heavier"), ("Is {0} lighter than {1}?", "Is {0} heavier than {1}?")),
    ),
    Comparison(
        left=_SPEED, right=_SPEED, relation=_AMOUNT, ratio=1.3, less="{0} is slower", more="{0} is faster",
        wordings=_both(("slower", "faster"), ("Is {0} slower than {1}?", "Is {0} faster than {1}?")),
    ),
    Comparison(
        left=_LIFE, right=_LIFE, relation=_AMOUNT, ratio=1.5, less="{0} has a shorter life", more="{0} has a longer life",
        wordings=_both(("shorter_life", "longer_life"), ("Does {0} have a shorter life than {1}?", "Does {0} have a longer life than {1}?")),
    ),
    Comparison(
        left=_HEIGHT, right=_HEIGHT, relation=_AMOUNT, ratio=1.05, less="{0} is shorter", more="{0} is taller",
        wordings=_both(("shorter", "taller"), ("Is {0} shorter than {1}?", "Is {0} taller than {1}?")),
    ),
    Comparison(
        left=_ATOM, right=_ATOM, relation=_AMOUNT, less="{0} has the lower one", more="{0} has the higher one",
        wordings=_both(
            ("lower_atomic_number", "higher_atomic_number"),
            ("Is the atomic number of {0} lower than that of {1}?", "Is the atomic number of {0} higher than that of {1}?"),
        ),
    ),
)  # fmt: skip

WORDINGS = {wording.kind: (comparison, wording) for comparison in COMPARISONS for wording in comparison.wordings}
