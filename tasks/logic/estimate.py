"""What the teacher would cost, before it is asked: low, expected and high."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.contracts.asks import Cost, Estimate
from tasks.contracts.recipes import TeacherExecution

EXPECTED_LENGTH = 0.5  # of max_tokens, where the ledger holds no reply of this model yet
EXPECTED_HINTS = 0.2  # of the questions: a teacher that is right on four in five
SECONDS = 10.0  # a reply, where none was timed yet
_ROW_BYTES = 4_000  # a reply in the ledger and in the tables that follow


@dataclass(frozen=True, kw_only=True)
class Known:
    """What earlier replies of the model say: mean tokens out and mean seconds."""

    tokens_out: float
    seconds: float


def estimate(
    *,
    prompts: Sequence[int],
    owned: int,
    questions: int,
    hints: bool,
    attempts: int,
    max_tokens: int,
    known: Known | None,
    usd: Callable[[int, int], float],
    pace: TeacherExecution,
    notes: Sequence[str],
) -> Estimate:
    """Cost of the asks that the ledger does not hold, whose prompts have `prompts` tokens; `questions` may be asked once more with `hints`.

    low: each once, replies of half the usual length. expected: the usual length, and hints for a fifth of the questions. high: every ask takes all its
    attempts at full length, and every question is asked again with hints. `usd(tokens_in, tokens_out)` is the price of one call of that size.
    """
    usual = known.tokens_out if known else EXPECTED_LENGTH * max_tokens
    seconds = known.seconds if known else SECONDS
    prompt = sum(prompts) / len(prompts) if prompts else 0.0
    again = questions if hints and prompts else 0

    def cost(calls: float, length: float) -> Cost:
        tokens_in, tokens_out = round(calls * prompt), round(calls * length)
        minutes = max(
            calls / pace.requests_per_minute, (tokens_in + tokens_out) / pace.tokens_per_minute, calls * seconds / 60 / pace.max_in_flight
        )  # fmt: skip
        return Cost(calls=round(calls), tokens_in=tokens_in, tokens_out=tokens_out, usd=usd(tokens_in, tokens_out), minutes=minutes)

    said = (
        f"a reply is taken to have {usual:.0f} tokens and to take {seconds:.1f} s ({'the mean of this model in the ledger' if known else 'assumed'})",
        *([f"asking again with the facts: none, {EXPECTED_HINTS:.0%} or all of {questions} questions"] if again else []),
    )
    return Estimate(
        asks=len(prompts) + owned,
        owned=owned,
        low=cost(len(prompts), usual / 2),
        expected=cost(len(prompts) + EXPECTED_HINTS * again, usual),
        high=cost((len(prompts) + again) * attempts, max_tokens),
        disk_bytes=_ROW_BYTES * (len(prompts) + owned + again),
        notes=(*said, *notes),
    )
