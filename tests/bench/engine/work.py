"""What there is to train on and to continue: seeded random tokens whose lengths follow those of real data. The same for every side."""

import random
from dataclasses import dataclass
from typing import Literal

LAWS = {"direct": (40, 8, 24, 96), "cot": (180, 45, 80, 400)}  # mean, spread, least, most tokens of a row
PROMPT, COMPLETION = (80, 12), (100, 20)  # mean, spread; of a preference pair
LONGEST = 2048
EPOCHS = 4  # of preference training: the reference is computed once and used in each
_FIRST, _BOS, _EOS = 4, 1, 2  # the first ordinary token


@dataclass(frozen=True)
class Pair:
    """Token ids of one preference pair."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class Job:
    """What one reading asks of one side."""

    reading: str
    model: str = "llama7b"
    law: str = ""  # a key of LAWS, or "" for rows of LONGEST
    processes: int = 1
    capped: bool = False  # whether the allocator is held to what an 8 GB card has
    cpu: bool = False  # tiny shapes
    quick: bool = False
    student: str = ""  # folder of a real student's weights, "" = random ones; for samples only
    adapter: str = ""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    questions: int = 300  # of which samples are drawn
    settings: tuple[tuple[str, str], ...] = ()  # of our machine, where a reading asks for others than a run's

    @property
    def batch(self) -> int:
        """Rows or pairs an optimiser step."""
        return (4 if self.cpu else 32) * self.processes

    @property
    def vocabulary(self) -> int:
        return 512 if self.cpu else 32000

    @property
    def prompts_at_once(self) -> int:
        return 4 if self.cpu else 256

    @property
    def new_tokens(self) -> int:
        return 8 if self.cpu else 64

    def rows(self, steps: int) -> list[list[int]]:
        """Token ids of so many optimiser steps; the loss is on all of a row's tokens but the first."""
        chance = random.Random(0)
        lengths = [self._length(chance) for _ in range(steps * self.batch)]
        return [[_BOS, *self._tokens(chance, length - 2), _EOS] for length in lengths]

    def pairs(self, steps: int) -> list[Pair]:
        """The preference pairs of so many optimiser steps."""
        chance = random.Random(0)

        def part(mean: int, spread: int) -> list[int]:
            return self._tokens(chance, max(4, int(chance.gauss(mean, spread)) // self._shorter))

        return [Pair(part(*PROMPT), part(*COMPLETION), part(*COMPLETION)) for _ in range(steps * self.batch)]

    def prompts(self) -> list[list[int]]:
        """Token ids of the prompts, all as long as what is to be generated."""
        chance = random.Random(0)
        return [self._tokens(chance, self.new_tokens) for _ in range(self.prompts_at_once)]

    @property
    def sampled_tokens(self) -> int:
        """The limit of a sample."""
        return 8 if self.tiny else 128

    @property
    def samples_at_once(self) -> int:
        """What a profile for such a machine says."""
        return 4 if self.tiny else 200 if self.cpu else 256

    @property
    def tiny(self) -> bool:
        """Whether shapes are tiny."""
        return self.cpu and not self.student

    def asked(self) -> list[list[int]]:
        """Token ids of the questions that samples are drawn of."""
        chance = random.Random(0)
        lengths = [max(4, int(chance.gauss(*PROMPT)) // self._shorter) for _ in range(6 if self.tiny else 48 if self.quick else self.questions)]
        return [self._tokens(chance, length) for length in lengths]

    @property
    def _shorter(self) -> int:
        return 8 if self.cpu else 1

    def _length(self, chance: random.Random) -> int:
        if not self.law:
            return LONGEST // self._shorter
        mean, spread, least, most = LAWS[self.law]
        return max(4, min(most, max(least, int(chance.gauss(mean, spread)))) // self._shorter)

    def _tokens(self, chance: random.Random, count: int) -> list[int]:
        return [chance.randrange(_FIRST, self.vocabulary) for _ in range(count)]


def as_text(tokens: list[int]) -> str:
    """The text that `random_tokenizer` reads as these tokens."""
    return " ".join(f"t{token}" for token in tokens)
