"""What the teacher would cost, before it is asked: low, expected and high."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.contracts.asks import Cost, Estimate
from tasks.contracts.recipes import TeacherExecution

EXPECTED_LENGTH = 0.5  # of max_tokens, where the ledger holds no reply of this model yet
EXPECTED_HINTS = 0.2  # of the questions: a teacher that is right on four in five
SECONDS = 10.0  # a reply, where none was timed yet
_REASON = 60  # tokens of the sentence that says what was wrong with a reply
_ROW_BYTES = 4_000  # a reply in the ledger and in the tables that follow


@dataclass(frozen=True, kw_only=True)
class Known:
    """What earlier replies of the model say: mean tokens out and mean seconds."""

    tokens_out: float
    seconds: float


def estimate(
    *,
    owned: int,
    plain: Sequence[int],
    hints: Sequence[int],
    maybe: Sequence[int],
    attempts: int,
    max_tokens: int,
    known: Known | None,
    usd: Callable[[int, int], float],
    pace: TeacherExecution,
    notes: Sequence[str],
) -> Estimate:
    """Cost of the asks that the ledger does not hold, each given by the tokens of its prompt: `plain` ones, `hints` that are sure to follow, and
    hints that may follow (`maybe`) because their questions are not answered yet.

    low: each once, replies of half the usual length. expected: the usual length, and a fifth of the hints that may follow. high: all of them, every ask
    with all its attempts, each at full length and with the reply before in its prompt. `usd(tokens_in, tokens_out)` is the price of one call of that size.
    """
    usual = known.tokens_out if known else EXPECTED_LENGTH * max_tokens
    seconds = known.seconds if known else SECONDS
    sure = [*plain, *hints]

    def cost(calls: float, tokens_in: float, length: float) -> Cost:
        whole_in, whole_out = round(tokens_in), round(calls * length)
        minutes = max(calls / pace.requests_per_minute, (whole_in + whole_out) / pace.tokens_per_minute, calls * seconds / 60 / pace.max_in_flight)
        return Cost(calls=round(calls), tokens_in=whole_in, tokens_out=whole_out, usd=usd(whole_in, whole_out), minutes=minutes)

    every = [*sure, *maybe]
    repairs = attempts - 1
    said = (
        f"a reply is taken to have {usual:.0f} tokens and to take {seconds:.1f} s ({'the mean of this model in the ledger' if known else 'assumed'})",
        *([f"asking again with the facts: {len(hints)} for sure, and none, {EXPECTED_HINTS:.0%} or all of {len(maybe)} more"] if hints or maybe else []),
    )
    return Estimate(
        asks=owned + len(sure),
        owned=owned,
        low=cost(len(sure), sum(sure), usual / 2),
        expected=cost(len(sure) + EXPECTED_HINTS * len(maybe), sum(sure) + EXPECTED_HINTS * sum(maybe), usual),
        high=cost(len(every) * attempts, sum(every) * attempts + len(every) * repairs * (max_tokens + _REASON), max_tokens),
        disk_bytes=_ROW_BYTES * (owned + len(every)),
        notes=(*said, *notes),
    )
