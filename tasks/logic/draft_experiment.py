"""Whether the aligned model gains by asking: its rewrite arm under changed drafts, and against a twin that was aligned without drafts (ALGORITHMS 8.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.contracts.readings import ABLATIONS, TWIN, kind_of
from tasks.contracts.rows import Arm, Prediction
from tasks.logic.claims import Claim, Pooled, Sides, compare_family, pool_family
from tasks.logic.scores import Comparison, Finding

FULL = "full_draft"
DRAFT_CLAIMS = (
    Claim(new=FULL, old=Arm.NO_DRAFT, claim=0.0),
    Claim(new=FULL, old=Arm.SHUFFLED_DRAFT, claim=0.0),
    Claim(new=FULL, old=Arm.NEUTRAL_DRAFT, claim=0.0),
    Claim(new=Arm.NO_DRAFT, old=Arm.SHUFFLED_DRAFT, claim=0.0),
    Claim(new=Arm.DRAFT_QUESTIONS, old=Arm.DRAFT_VERDICT, claim=0.0),
    Claim(new=FULL, old=TWIN, claim=0.03),
)
_BY_TRAINING, _BY_READING, _BY_ASKING = DRAFT_CLAIMS[5].name, DRAFT_CLAIMS[0].name, DRAFT_CLAIMS[4].name
FEWEST = 100  # questions from which a comparison says anything: with fewer, not one change seen still leaves room for the 3 points claimed (3 / n)


@dataclass(frozen=True, kw_only=True)
class DraftExperiment:
    """The family of comparisons and what it says of "learns by asking".

    `confounded`: no twin was trained without drafts, or none that differs, so that "no draft" is a prompt that the model never met in training.
    `unmatched` by arm: drafts that could not be changed as intended, by reason. `notes` say in words what limits the experiment.
    """

    verdict: Finding
    confounded: bool
    comparisons: list[Comparison]
    unmatched: dict[str, dict[str, int]]
    notes: tuple[str, ...]


def draft_experiment(
    predictions: Sequence[Prediction],
    *,
    split: str,
    resamples: int,
    seed: int,
    unmatched: Mapping[str, Mapping[str, int]],
    rewrite_pairs: int | None,
) -> DraftExperiment | None:
    """What the readings of `split` say, None where no draft was changed. `rewrite_pairs`: preference pairs that showed the aligned model a draft, None
    where no twin was asked for."""
    compared = compare_family(DRAFT_CLAIMS, draft_sides(predictions, split=split), resamples=resamples, seed=seed)
    if not compared:
        return None
    return _judged(compared, unmatched={arm: dict(reasons) for arm, reasons in unmatched.items()}, twin=bool(rewrite_pairs), asked=rewrite_pairs is not None)


def pool_drafts(runs: Sequence[tuple[str, Sequence[Prediction]]], *, resamples: int, seed: int) -> tuple[list[Pooled], DraftExperiment | None]:
    """The same over several runs, each (graded split, predictions): every claim that all of them can answer, and what all together say."""
    pooled = pool_family(DRAFT_CLAIMS, [draft_sides(rows, split=split) for split, rows in runs], resamples=resamples, seed=seed)
    if not pooled:
        return [], None
    twin = any(each.together.name == _BY_TRAINING for each in pooled)
    return [Pooled(runs=tuple(map(_enough, each.runs)), together=_enough(each.together)) for each in pooled], _judged(
        [each.together for each in pooled], unmatched={}, twin=twin, asked=twin
    )


def draft_sides(predictions: Sequence[Prediction], *, split: str) -> Sides:
    """The readings of each side of the draft's claims; numbered shuffles are readings of one side."""
    arms: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for row in predictions:
        if row.split == split and (side := _side(row)):
            arms[side, row.arm].append(row)
    sides: dict[str, list[list[Prediction]]] = defaultdict(list)
    for (side, _), rows in arms.items():
        sides[side].append(rows)
    return sides


def _side(row: Prediction) -> str | None:
    if row.model == TWIN:
        return TWIN
    if row.model != "aligned":
        return None
    if row.arm == Arm.REWRITE:
        return FULL
    return kind.value if (kind := kind_of(row.arm)) in ABLATIONS else None


def _judged(compared: Sequence[Comparison], *, unmatched: dict[str, dict[str, int]], twin: bool, asked: bool) -> DraftExperiment:
    """Both parts must pass: the draft is worth its points, and its questions more than its verdict; else the model copies the draft's verdict."""
    family = {each.name: each for each in map(_enough, compared)}
    parts = [family[name].verdict if name in family else Finding.UNDERPOWERED for name in (_BY_TRAINING if asked else _BY_READING, _BY_ASKING)]
    verdict = Finding.FAIL if Finding.FAIL in parts else Finding.UNDERPOWERED if Finding.UNDERPOWERED in parts else Finding.PASS
    notes = []
    if not asked:
        notes.append(
            "No model was trained without drafts (recipe.ablate.matched), so a prompt without one is new to the model that is asked: "
            "what it loses there may be the strange prompt and not the draft."
        )
    elif not twin:
        notes.append(
            "No preference pair showed the aligned model a draft, so its twin without drafts learned the same: there is no effect of the drafts to find. "
            "Raise recipe.pair.samples or recipe.curate.pair_share."
        )
    notes += [
        f"{count:,} drafts had nothing that {arm} could show: {reason} (recipe.draft.model, recipe.draft.max_new_tokens)."
        for arm, reasons in unmatched.items()
        for reason, count in reasons.items()
        if arm in (Arm.DRAFT_QUESTIONS, Arm.DRAFT_VERDICT) and 2 * count > max(each.n for each in compared)
    ]
    if any(each.n < FEWEST for each in compared):
        notes.append(f"Comparisons on fewer than {FEWEST} questions are called underpowered whatever they show.")
    return DraftExperiment(verdict=verdict, confounded=not twin, comparisons=list(family.values()), unmatched=unmatched, notes=tuple(notes))


def _enough(each: Comparison) -> Comparison:
    return each if each.n >= FEWEST else replace(each, verdict=Finding.UNDERPOWERED)
