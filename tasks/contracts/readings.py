"""Which models a recipe trains, and which answers of them it reads: the names of the result table."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from tasks.contracts.recipes import Ablate, Grade, Sft
from tasks.contracts.rows import Arm


class Track(StrEnum):
    """A fine-tuning variant; the names of the result table."""

    TRACK_A = "track_a"
    TRACK_A_MATCHED = "track_a_matched"
    TRACK_B = "track_b"
    FACTS_ONLY = "facts_only"
    SHUFFLED_RATIONALE = "shuffled_rationale"


def numbers_of(recipe: Sft, track: Track) -> Sft:
    """The recipe as one track is trained by it: with Track A's own numbers for it, its twin and facts_only, and with nothing of them for the others."""
    answers = track in (Track.TRACK_A, Track.TRACK_A_MATCHED, Track.FACTS_ONLY)
    own = dict(recipe.track_a) if recipe.track_a and answers else {}
    return recipe.model_copy(update={**own, "track_a": None})


class Chains(NamedTuple):
    """How the chains of the sampled arms are drawn, for one question."""

    samples: int
    temperature: float


class Examination(NamedTuple):
    """How a model is asked on dev to choose its epoch."""

    arm: str
    max_new_tokens: int


class Reading(NamedTuple):
    """One model read on one split; `arms` says how many questions each arm reads, 0 = all. `chains` is None where no arm samples."""

    model: str
    split: str
    arms: dict[str, int]
    chains: Chains | None

    @property
    def asked(self) -> dict[str, int]:
        """The arms that the student is asked under; the adaptive one only chooses between their answers."""
        return {arm: size for arm, size in self.arms.items() if arm != Arm.ADAPTIVE}

    @property
    def adaptive(self) -> int | None:
        """How many questions the adaptive arm answers, 0 = all; None where it is not asked for."""
        return self.arms.get(Arm.ADAPTIVE)


_OF_TRAINED = (Arm.DIRECT, Arm.REASONING, Arm.REWRITE, Arm.SELF_CONSISTENCY, Arm.SOFT, Arm.ADAPTIVE)
SIDE_ARMS: dict[str, tuple[Arm, ...]] = {
    "zero_shot": (Arm.DIRECT, Arm.REASONING),  # no sampled arms: untrained chains seldom end, so eight of each would cost more than all else
    "track_b": _OF_TRAINED,
    "aligned": _OF_TRAINED,
}
SAMPLED = (Arm.SELF_CONSISTENCY, Arm.SOFT)
_PARTS = (Arm.DIRECT, Arm.REASONING)  # of the adaptive arm
ABLATIONS = (Arm.NO_DRAFT, Arm.SHUFFLED_DRAFT, Arm.NEUTRAL_DRAFT, Arm.DRAFT_QUESTIONS, Arm.DRAFT_VERDICT)
TWIN = "aligned_no_draft"  # aligned on the same pairs with the drafts taken out of their prompts


def kind_of(arm: str) -> Arm:
    """The arm that a reading's arm is one of: shuffles are numbered, shuffled_draft_1 and so on. Raises ValueError for a name that is no arm's."""
    return Arm.SHUFFLED_DRAFT if arm.removeprefix(f"{Arm.SHUFFLED_DRAFT}_").isdecimal() else Arm(arm)


def headline_arms(grade: Grade) -> dict[str, str]:
    """The arm that each model and control is judged by."""
    heads = grade.headline
    return {
        "zero_shot": heads.zero_shot,
        "track_a": heads.track_a,
        "track_a_matched": heads.track_a,
        "track_b": heads.track_b,
        "aligned": heads.aligned,
        "facts_only": heads.track_a,
        "shuffled_rationale": heads.track_b,
        "entity_prior": Arm.DIRECT,
    }


def exam_arm(headline: str) -> str:
    """The arm under which epochs are examined: the headline itself, or the single chain of which a derived one takes several."""
    return headline if headline in (Arm.DIRECT, Arm.REASONING, Arm.REWRITE) else Arm.REASONING.value


def twin_exam_arm(headline: str) -> str:
    """The same for the twin without drafts: where the aligned model rewrites, it does so without one."""
    return Arm.NO_DRAFT.value if exam_arm(headline) == Arm.REWRITE else exam_arm(headline)


def readings(grade: Grade, ablate: Ablate) -> list[Reading]:
    """Every reading that a recipe asks for: on dev what thresholds are chosen on, then models in the order of the result table, the twin last."""
    heads = headline_arms(grade)
    sizes = {"aligned": grade.aligned_questions}
    controls = [name for name in ("facts_only", "shuffled_rationale") if name in grade.controls]
    wanted: dict[tuple[str, str], dict[str, int]] = {
        (model, grade.split): {heads[model]: sizes.get(model, 0)}
        | {arm.value: grade.arm_questions for arm in SIDE_ARMS.get(model, ()) if arm in grade.side_arms and arm != heads[model]}
        for model in ("zero_shot", "track_a", "track_a_matched", "track_b", "aligned", *controls)
    }
    if ablate.arms:
        wanted["aligned", grade.split] = _joined(wanted["aligned", grade.split], _draft_arms(ablate))
    if ablate.matched:
        wanted["aligned", grade.split] = _joined(wanted["aligned", grade.split], {Arm.REWRITE.value: ablate.questions})
        wanted[TWIN, grade.split] = {Arm.NO_DRAFT.value: ablate.questions}
    if "entity_disjoint" in grade.controls:
        wanted |= {(model, "entity_disjoint"): {heads[model]: 0} for model in ("track_a", "track_b", "aligned")}
    wanted = {place: _with_parts(arms) for place, arms in wanted.items()}
    everything = {**_on_dev(wanted, grade), **wanted}
    chains = Chains(grade.samples, grade.temperature)
    return [Reading(model, split, arms, chains if set(SAMPLED) & arms.keys() else None) for (model, split), arms in everything.items()]


def _draft_arms(ablate: Ablate) -> dict[str, int]:
    """The full draft and every changed one, on the same questions."""
    shuffles = [f"{Arm.SHUFFLED_DRAFT}_{number}" for number in range(1, ablate.shuffles + 1)]
    arms = [name for arm in ablate.arms for name in (shuffles if arm == "shuffled_draft" else [arm])]
    return dict.fromkeys([Arm.REWRITE.value, *arms], ablate.questions)


def judged_arm(grade: Grade, ablate: Ablate) -> Arm | None:
    """The arm whose clarifying questions a judge compares: the first of reasoning and rewrite that Track B and the aligned model are both read under."""
    return next((arm for arm in (Arm.REASONING, Arm.REWRITE) if all(arm in arms for arms in _both_judged(grade, ablate))), None)


def judged_sizes(grade: Grade, ablate: Ablate) -> list[int]:
    """How many questions each of the two is read on under that arm, 0 = all. Raises KeyError where there is no such arm."""
    arm = judged_arm(grade, ablate)
    return [arms[str(arm)] for arms in _both_judged(grade, ablate)]


def _both_judged(grade: Grade, ablate: Ablate) -> list[dict[str, int]]:
    return [each.asked for each in readings(grade, ablate) if each.split == grade.split and each.model in ("track_b", "aligned")]


def _with_parts(arms: dict[str, int]) -> dict[str, int]:
    """With the arms that the adaptive one chooses between, on as many questions as it."""
    return _joined(arms, {part.value: arms[Arm.ADAPTIVE] for part in _PARTS}) if Arm.ADAPTIVE in arms else arms


def _on_dev(wanted: dict[tuple[str, str], dict[str, int]], grade: Grade) -> dict[tuple[str, str], dict[str, int]]:
    """What must be read on dev to choose thresholds there; nothing where dev is graded, because then it is read anyway."""
    needed: dict[tuple[str, str], dict[str, int]] = {}
    for (model, split), arms in wanted.items() if grade.split != "dev" else ():
        parts = {part.value: arms[Arm.ADAPTIVE] for part in _PARTS} if Arm.ADAPTIVE in arms else {}
        if grade.calibrate and split == grade.split and Arm.DIRECT in arms:
            parts[Arm.DIRECT.value] = 0
        if parts:
            needed[model, "dev"] = _joined(needed.get((model, "dev"), {}), parts)
    return needed


def _joined(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """All arms of both, each on the larger number of questions; 0 is the largest, it means all."""
    return {arm: 0 if 0 in (sizes := [each[arm] for each in (one, other) if arm in each]) else max(sizes) for arm in {**one, **other}}
