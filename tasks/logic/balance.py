"""Class shares: counted after every step of curation, tested for bias, restored where asked, and held by a gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tasks.contracts.failures import UnbalancedCorpus
from tasks.contracts.rows import Curated, Question
from tasks.logic.sampling import stratified

_FEW = 5  # expected count below which the chi-square approximation is not to be trusted (Cochran 1954)


@dataclass(frozen=True, kw_only=True)
class FilterStep:
    """Questions per class after one step of curation; where questions are weighted or repeated, what they count for."""

    step: str
    yes: float
    no: float

    @property
    def yes_share(self) -> float:
        """Share of "yes" among the questions that are left; 0 where none is."""
        return self.yes / (self.yes + self.no) if self.yes + self.no else 0.0


@dataclass(frozen=True, kw_only=True)
class KeepRate:
    """Shares of each class that are left after a step, and how likely a difference of this size is if class and keeping have nothing to do with each other."""

    step: str
    yes: float
    no: float
    test: Literal["chi-square", "Fisher"]
    p_value: float


def count_classes(step: str, questions: Iterable[Question]) -> FilterStep:
    """The questions of each class, every one counted once."""
    answers = [question.answer for question in questions]
    return FilterStep(step=step, yes=answers.count("yes"), no=answers.count("no"))


def keep_rates(steps: Sequence[FilterStep]) -> list[KeepRate]:
    """Keep rates by class from the first step to each later one, none of which may count more than the first.

    The test is chi-square with Yates's correction on keep x class, or Fisher's exact test where an expected count is below 5.
    """
    first = steps[0]
    return [_keep_rate(first, later) for later in steps[1:]]


def _keep_rate(first: FilterStep, later: FilterStep) -> KeepRate:
    from scipy.stats import chi2_contingency, fisher_exact  # a second to import, which a run must not wait for
    from scipy.stats.contingency import expected_freq

    table = [[later.yes, first.yes - later.yes], [later.no, first.no - later.no]]
    few = bool((expected_freq(table) < _FEW).any())
    p_value = fisher_exact(table).pvalue if few else chi2_contingency(table).pvalue
    rates = {"yes": later.yes / first.yes if first.yes else 0.0, "no": later.no / first.no if first.no else 0.0}
    return KeepRate(step=later.step, **rates, test="Fisher" if few else "chi-square", p_value=float(p_value))


def occurrences(rows: Sequence[Curated]) -> list[Curated]:
    """One row for each time that a question stands in the corpus: its first, as often as that one is repeated."""
    first = {row.qid: row for row in reversed(rows)}
    return [row for row in rows if row == first[row.qid]]


def trained_classes(rows: Sequence[Curated]) -> tuple[FilterStep, FilterStep]:
    """What each class counts for in fine-tuning, repeats and weights included: in Track A, one example a question, and in Track B, one a row.

    Track B may lean where Track A does not: a class on which the teacher is right more often has more reasonings, and fewer written knowing the answer.
    """
    sft = [row for row in rows if row.role == "sft"]
    direct = _mass("Track A, weighted", occurrences(sft), lambda row: row.direct_weight)
    return direct, _mass("Track B, weighted", sft, lambda row: row.weight * row.verdict_factor)


def _mass(step: str, rows: Sequence[Curated], weight: Callable[[Curated], float]) -> FilterStep:
    mass = {answer: round(sum(weight(row) for row in rows if row.answer == answer), 2) for answer in ("yes", "no")}
    return FilterStep(step=step, **mass)


def rebalance(
    rows: Sequence[Curated], *, how: Literal["none", "up_sample", "down_sample", "class_weight", "verdict_weight"], target_yes_share: float, seed: int
) -> list[Curated]:
    """Rows whose questions for fine-tuning have `target_yes_share` again; rows for pairs stay as they are.

    up_sample repeats questions of the class that is short, all of their rows, at the end; down_sample leaves questions of the other class out; both
    draw in the proportions of the kinds. class_weight multiplies the weights of a class by share wanted / share found, in each track, and so keeps
    their mean. verdict_weight does so to the loss of the verdict only; a direct example is hardly more than its verdict and is weighted whole.
    A class without any question cannot be restored: the gate tells.
    """
    sft = [row for row in rows if row.role == "sft"]
    direct, reasoned = trained_classes(sft)
    if how == "none" or not all(0 < share < 1 for share in (target_yes_share, direct.yes_share, reasoned.yes_share)):
        return list(rows)
    wanted = {"yes": target_yes_share, "no": 1 - target_yes_share}
    match how:
        case "up_sample":
            return [*rows, *_repeats(sft, wanted, seed=seed)]
        case "down_sample":
            surplus = _surplus(sft, wanted, seed=seed)
            return [row for row in rows if row.qid not in surplus]
    factors = _factors(direct, wanted), _factors(reasoned, wanted)
    return [_weighted(row, how, *(by_class[row.answer] for by_class in factors)) if row.role == "sft" else row for row in rows]


def _factors(found: FilterStep, wanted: dict[str, float]) -> dict[str, float]:
    return {"yes": wanted["yes"] / found.yes_share, "no": wanted["no"] / (1 - found.yes_share)}


def _weighted(row: Curated, how: Literal["class_weight", "verdict_weight"], direct: float, reasoned: float) -> Curated:
    whole = replace(row, direct_weight=row.direct_weight * direct)
    if how == "verdict_weight":
        return replace(whole, verdict_factor=row.verdict_factor * reasoned)
    return replace(whole, weight=row.weight * reasoned)


def _repeats(rows: Sequence[Curated], wanted: dict[str, float], *, seed: int) -> list[Curated]:
    classes = _classes(rows)
    short, other = _short_and_other(classes, wanted)
    missing = round(len(classes[other]) * wanted[short] / wanted[other]) - len(classes[short])
    whole, rest = divmod(missing, len(classes[short]))
    drawn = {question.qid for question in _draw(classes[short], rest, seed=seed)}
    own = [row for row in rows if row.answer == short]
    return own * whole + [row for row in own if row.qid in drawn]


def _surplus(rows: Sequence[Curated], wanted: dict[str, float], *, seed: int) -> set[str]:
    classes = _classes(rows)
    short, other = _short_and_other(classes, wanted)
    kept = max(1, round(len(classes[short]) * wanted[other] / wanted[short]))
    return {question.qid for question in classes[other]} - {question.qid for question in _draw(classes[other], kept, seed=seed)}


def _classes(rows: Sequence[Curated]) -> dict[str, list[Curated]]:
    return {answer: [row for row in occurrences(rows) if row.answer == answer] for answer in ("yes", "no")}


def _short_and_other(classes: dict[str, list[Curated]], wanted: dict[str, float]) -> tuple[str, str]:
    share = len(classes["yes"]) / (len(classes["yes"]) + len(classes["no"]))
    return ("yes", "no") if share < wanted["yes"] else ("no", "yes")


def _draw(questions: Sequence[Question], n: int, *, seed: int) -> list[Question]:
    return stratified(questions, n=n, seed=seed) if n else []


def check_balance(steps: Sequence[FilterStep], trained: Sequence[FilterStep], *, max_shift: float, allowed: bool) -> str:
    """Raise UnbalancedCorpus when the share of "yes" in one of `trained` is further than `max_shift` from the first of `steps`, or a class is gone.

    A share cannot be held more exactly than to one question, so that much is always allowed. Returns the message instead of raising where the
    recipe has `allowed` it, and "" where all is well.
    """
    before = steps[0]
    moved = [after for after in trained if _moved(before, after, max_shift)]
    if not moved:
        return ""
    told = "; ".join(f"{step.step}: {step.yes:g} yes, {step.no:g} no, {step.yes_share:.1%}" for step in (*steps, *trained))
    message = (
        f"curation moved the share of yes from {before.yes_share:.1%} to {moved[0].yes_share:.1%} (allowed: {max_shift:.1%}); {told}. "
        "Use recipe.curate.rebalance=class_weight, a less biased teacher, or recipe.curate.disagreement=rationalise with rationalised_weight 1; "
        "or raise recipe.curate.max_shift, or add class_balance to recipe.guards.allow, knowingly"
    )
    if allowed:
        return message
    raise UnbalancedCorpus(message)


def _moved(before: FilterStep, after: FilterStep, max_shift: float) -> bool:
    if (before.yes and not after.yes) or (before.no and not after.no):
        return True
    one_question = max(before.yes_share, 1 - before.yes_share) / (after.yes + after.no)
    return abs(after.yes_share - before.yes_share) > max(max_shift, one_question) + 1e-9  # what rounding may add
