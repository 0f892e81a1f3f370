"""The time left, of a stage and of the whole run: from how long stages took before, corrected by how long they take now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.plan import Plan
from tasks.watch import Progress, State

# Seconds of each stage in the demo on two cores: only their ratios matter once a stage has ended.
WEIGHTS = {
    "student": 8.0, "sample": 0.5, "draft": 90.0, "select": 60.0, "teach": 10.0, "curate": 3.0, "finetune": 200.0, "pair": 50.0, "pair-no-draft": 10.0,
    "align": 130.0, "predict": 30.0, "adapt": 1.0, "grade": 5.0, "judge": 10.0, "attribute": 60.0, "report": 5.0,
}  # fmt: skip
_PRIOR = 30.0  # seconds: how much the ratios count against what this run has shown
_TRUST = 5.0  # a stage's own pace is believed fully once a fifth of it is done


def expected(plan: Plan) -> tuple[str, ...]:
    """The stages of a whole run of a profile, as they name themselves, in order. Those that a run turns out not to need are passed over."""
    recipe = plan.recipe
    drafts = [f"{stage} {split}" for split in plan.splits for stage in ("sample", "draft")]
    tracks = ["track_a", "track_b", "track_a_matched", *(str(control) for control in plan.trained_controls)]
    pairs = ["pair", "align on pairs", *(["pair without drafts", "align on pair-no-drafts"] if recipe.ablate.matched else [])]
    readings = [f"predict {each.model} on {each.split}" for each in plan.readings]
    chosen = [f"select {recipe.teacher.select}"] if recipe.teacher.select != "all" else []
    last = ["grade", *(["judge"] if plan.judged_arm is not None else []), *([f"attribute {recipe.grade.split}"] if recipe.attribute.questions else [])]
    return ("student", *drafts, *chosen, "teach", "curate", *(f"finetune {track}" for track in tracks), *pairs, *readings, *last)


class Countdown:
    """Hears of every stage; says what is left. `before`: seconds that stages took, by their first word."""

    def __init__(self, stages: Sequence[str], *, before: Mapping[str, float]) -> None:
        self._ahead, self._weights = list(stages), {**WEIGHTS, **before}
        self.total, self.ended = len(stages), 0
        self._spent, self._weighed = _PRIOR, _PRIOR
        self._begun: dict[str, float] = {}
        self._shares: dict[str, float] = {}

    def hear(self, said: Progress, *, now: float) -> None:
        """Take in one word about a stage, said at `now` (seconds of any clock)."""
        self._pass_over(said.stage)
        if said.state is State.STARTED:
            self._begun[said.stage], self._shares[said.stage] = now, 0.0
        elif said.state is State.RUNNING:
            self._shares[said.stage] = max(self._shares.get(said.stage, 0.0), min(said.share or 0.0, 1.0))
        else:
            self.ended += 1
            begun = self._begun.pop(said.stage, None)
            if said.state is State.DONE and begun is not None:
                self._spent += now - begun
                self._weighed += self._weight(said.stage)

    def stage_left(self, stage: str, *, now: float) -> float:
        """Seconds left of a stage that runs; never below zero."""
        elapsed, share = now - self._begun[stage], self._shares[stage]
        trust = min(1.0, _TRUST * share)
        foreseen = max(self._weight(stage) * self._rate, elapsed)
        total = trust * elapsed / share + (1 - trust) * foreseen if share else foreseen
        return max(total - elapsed, 0.0)

    def run_left(self, *, now: float) -> float | None:
        """Seconds left of the whole run; None where its stages are not known."""
        if not self.total:
            return None
        return sum(self.stage_left(stage, now=now) for stage in self._begun) + self._rate * sum(map(self._weight, self._ahead))

    def elapsed(self, stage: str, *, now: float) -> float:
        """Seconds since a running stage began."""
        return now - self._begun[stage]

    @property
    def _rate(self) -> float:
        return self._spent / self._weighed

    def _weight(self, stage: str) -> float:
        return self._weights.get(stage.split(" ", 1)[0], 1.0)

    def _pass_over(self, stage: str) -> None:
        """Stages come in order: one that is heard of leaves none before it to come."""
        place = next((number for number, name in enumerate(self._ahead) if stage == name or (name == "student" and stage.startswith("student "))), None)
        if place is not None:
            self.ended += place
            del self._ahead[: place + 1]
