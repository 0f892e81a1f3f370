"""When a self-guided loop goes on, what its next round is given, and when it ends itself (issue of the loop; ALGORITHMS 5.2 and 5.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.contracts.loops import round_label
from tasks.contracts.recipes import Align, Loop, Stop
from tasks.contracts.rounds import Round
from tasks.logic.gates import significant


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What the next round is given besides its parent."""

    number: int
    seed: int
    align: Align


def next_turn(rounds: Sequence[Round], *, recipe: Loop, align: Align, seed: int) -> Turn:
    """A seed of its own, so that a round after a rejected one draws other samples; the learning rate falls with each accepted round."""
    number = 1 + max((each.number for each in rounds), default=0)
    accepted = sum(each.verdict == "accepted" for each in rounds)
    changes = {
        "phases": (recipe.phase,),
        "learning_rate": recipe.learning_rate * recipe.decay**accepted,
        "nll_weight": recipe.nll_weight,
        "select_questions": 0,
    }
    return Turn(number=number, seed=seed + number, align=align.model_copy(update=changes))


def made_up(due: str, rounds: Sequence[Round]) -> bool:
    """Whether a firing was made up already: a round began after it was due. Then of many missed firings one is made up. Times in ISO 8601, UTC."""
    return any(due < each.started_at for each in rounds if each.number)


def lineage(rounds: Sequence[Round], label: str) -> list[Round]:
    """The student of that label and those it descends from, the oldest last: back to the start, or to a run that a person promoted.

    What a person took back is not among them, nor what the gate reverted unless a person promoted it.
    """
    labelled, found = {round_label(each.number): each for each in rounds}, []
    while label in labelled:
        found.append(labelled.pop(label))
        label = found[-1].parent
    return found


def best_before(rounds: Sequence[Round], *, parent: str, accuracy: float) -> float:
    """The highest accuracy of the parent, which has `accuracy`, and of those it descends from, a promoted run included: a child's row tells it by its gain."""
    told = [each.accuracy - gain for each in lineage(rounds, parent) for gain in ((0.0, each.gain) if each.number else (0.0,))]
    return max([accuracy, *told])


def best_round(rounds: Sequence[Round]) -> Round:
    """The one whose student is right most often on dev; ties: the earlier. Raises ValueError where there is none that the gate did not revert."""
    return max((each for each in rounds if each.verdict != "reverted"), key=lambda each: (each.accuracy, -each.number))


def pair_yield(each: Round) -> float:
    """Own pairs a question that was sampled."""
    return (each.pairs - each.replayed) / max(each.questions, 1)


def stop_reason(rounds: Sequence[Round], *, since: int, recipe: Stop, total_minutes: float | None) -> str:
    """Why the loop ends here, "" where it goes on. Rounds up to `since` ended before a person moved the pointer and count for minutes and yield alone."""
    made = [each for each in rounds if each.number]
    recent = [each for each in made if each.number > since]
    last = recent[-recipe.rejections :]
    if len(last) == recipe.rejections and all(each.verdict == "reverted" for each in last):
        return f"{_rounds(recipe.rejections)} in a row reverted"
    flat = [each for each in recent if each.verdict == "accepted"][-recipe.flat_rounds :]
    if len(flat) == recipe.flat_rounds and not any(significant(each) for each in flat):
        return f"no significant gain in {_rounds(recipe.flat_rounds)} accepted"
    paired = [each for each in made if each.questions]  # a round that was given up has no yield
    if recent and recent[-1].questions and pair_yield(recent[-1]) < recipe.min_pair_yield * pair_yield(paired[0]):
        return f"{pair_yield(recent[-1]):.2f} pairs a question, less than {recipe.min_pair_yield:.0%} of the first round's {pair_yield(paired[0]):.2f}"
    if len(recent) >= recipe.max_rounds:
        return f"{_rounds(recipe.max_rounds)} made, as many as recipe.loop.stop.max_rounds allows"
    spent = sum(each.minutes for each in made)
    if total_minutes is not None and spent >= total_minutes:
        return f"{spent:.0f} minutes used of {total_minutes:g} (execution.loop.total_minutes)"
    return ""


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"{count} rounds"
