"""What the teacher would cost, before it is asked: low, expected and high."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.contracts.asks import Cost, Estimate
from tasks.contracts.execution import TeacherExecution

EXPECTED_LENGTH = 0.5  # of max_tokens, where the ledger holds no reply of this model yet
EXPECTED_WRONG = 0.2  # of the questions and of the replies: a teacher that is right on four in five
CHECKS = 2  # of each reply that agrees with gold
CHECK_LENGTH = 12  # tokens of a check's reply, which is one word in a form
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
    again: Sequence[int],
    maybe: Sequence[int],
    checks: Sequence[int],
    check_frame: int | None,
    attempts: int,
    max_tokens: int,
    known: Known | None,
    usd: Callable[[int, int], float],
    pace: TeacherExecution,
    notes: Sequence[str],
) -> Estimate:
    """Cost of the asks that the ledger does not hold, each given by the tokens of its prompt.

    `plain` ones; those that are sure to be asked `again` because the ledger's replies are wrong, and those that may be (`maybe`) because their questions
    are not answered yet; `checks` of replies that the ledger holds. Replies that are still to come are checked as well where `check_frame`, the tokens of
    a check without its reasoning, is not None.

    low: each once, replies of half the usual length, none of the new ones right. expected: the usual length, and a teacher that is right on four in five.
    high: all of them, every ask with all its attempts, each at full length and with the reply before in its prompt. `usd(tokens_in, tokens_out)` is the
    price of one call of that size.
    """
    usual = known.tokens_out if known else EXPECTED_LENGTH * max_tokens
    seconds = known.seconds if known else SECONDS
    short = min(CHECK_LENGTH, max_tokens)
    repairs = attempts - 1
    checked = 0 if check_frame is None else CHECKS
    frame = check_frame or 0

    def cost(calls: float, tokens_in: float, tokens_out: float) -> Cost:
        whole_in, whole_out = round(tokens_in), round(tokens_out)
        minutes = max(calls / pace.requests_per_minute, (whole_in + whole_out) / pace.tokens_per_minute, calls * seconds / 60 / pace.max_in_flight)
        return Cost(calls=round(calls), tokens_in=whole_in, tokens_out=whole_out, usd=usd(whole_in, whole_out), minutes=minutes)

    sure = [*plain, *again]
    every = [*sure, *maybe]
    likely = len(sure) + EXPECTED_WRONG * len(maybe)
    right = checked * (1 - EXPECTED_WRONG) * likely  # checks to expect of replies to come
    most = checked * len(every)
    asks = len(every) + len(checks) + most
    said = (
        f"a reply is taken to have {usual:.0f} tokens and to take {seconds:.1f} s ({'the mean of this model in the ledger' if known else 'assumed'})",
        *([f"asking again: {len(again)} for sure, and none, {EXPECTED_WRONG:.0%} or all of {len(maybe)} more"] if again or maybe else []),
        *([f"checks of reasoning: {len(checks)} for sure, and none, {right:.0f} or {most} more"] if checks or checked else []),
    )
    return Estimate(
        asks=owned + len(sure) + len(checks),
        owned=owned,
        low=cost(len(sure) + len(checks), sum(sure) + sum(checks), len(sure) * usual / 2 + len(checks) * short),
        expected=cost(
            likely + len(checks) + right,
            sum(sure) + EXPECTED_WRONG * sum(maybe) + sum(checks) + right * (frame + usual),
            likely * usual + (len(checks) + right) * short,
        ),
        high=cost(
            asks * attempts,
            (sum(every) + sum(checks) + most * (frame + max_tokens)) * attempts + asks * repairs * (max_tokens + _REASON),
            asks * attempts * max_tokens,
        ),
        disk_bytes=_ROW_BYTES * (owned + asks),
        notes=(*said, *notes),
    )
