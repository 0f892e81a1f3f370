"""A profile made ready to run: the checked recipe, where artifacts live, and what follows from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tasks.contracts.artifacts import ArtifactRoot
from tasks.contracts.failures import ProfileError
from tasks.contracts.profiles import PROFILES, load_profile
from tasks.contracts.readings import Examination, Reading, Track, exam_arm, headline_arms, judged_arm, readings
from tasks.contracts.recipes import Profile, Recipe
from tasks.contracts.rows import Arm
from tasks.estimate import check_teacher, missing_key
from tasks.precision import Precision, precision
from tasks.stage import Context

ProfileName = Annotated[str, Field(description="A profile in deployments/profiles (demo, pocketqa, ...) or the path of a YAML file")]
Overrides = Annotated[dict[str, Any] | None, Field(description='Changes to the profile by dotted path, e.g. {"recipe.seed": 1}')]


@dataclass(frozen=True)
class Plan:
    """One profile with its overrides applied."""

    profile: Profile
    overrides: Mapping[str, Any]
    context: Context
    precision: Precision  # the number format that the recipe came to, and what it was chosen by

    @property
    def recipe(self) -> Recipe:
        """What is computed."""
        return self.profile.recipe

    @property
    def source(self) -> Path | str | None:
        """The question file: a path counts by content, a hub id by name."""
        path = self.recipe.sample.path
        return Path(path) if path and Path(path).exists() else path

    @property
    def splits(self) -> dict[str, int]:
        """Questions by split: train, dev (alignment chooses on it), the graded split, the entity-disjoint slice where asked for."""
        sample, grade = self.recipe.sample, self.recipe.grade
        sizes = {"train": sample.train, "dev": sample.dev, "test": sample.test, "entity_disjoint": sample.entity_disjoint}
        wanted = {"train", "dev", grade.split} | ({"entity_disjoint"} & set(grade.controls))
        return {split: size for split, size in sizes.items() if split in wanted}

    @property
    def recordings(self) -> tuple[Path, ...]:
        """Recorded replies, by content."""
        return tuple(Path(name) for name in self.recipe.teacher.recordings)

    @property
    def rationalise(self) -> bool:
        """Whether disagreements are asked again with the gold facts."""
        return self.recipe.curate.disagreement == "rationalise"

    @property
    def resamples(self) -> int:
        """Further samples of each question on which no reply agrees with gold."""
        return self.recipe.curate.resamples if self.recipe.curate.disagreement == "resample" else 0

    @property
    def validate(self) -> bool:
        """Whether the teacher checks the reasoning of its replies."""
        return self.recipe.curate.validate_with == "teacher"

    @property
    def judged_arm(self) -> Arm | None:
        """The arm whose clarifying questions a judge compares; None where nobody is asked to."""
        return judged_arm(self.recipe.grade, self.recipe.ablate) if self.recipe.judge.kind != "none" else None

    @property
    def labels(self) -> Path | None:
        """A person's winners of judged pairs, by content."""
        return Path(self.recipe.judge.labels) if self.recipe.judge.labels else None

    def folder_of(self, model: str) -> Path | None:
        """The folder that a model's name means, None for the built-in student and for hub ids."""
        return Path(model) if Path(model).is_dir() else None

    def student_weights(self, model: str) -> dict[str, Any]:
        """How `model` is fetched: a folder counts by content, anything else by name and revision."""
        numbers = self.recipe.student
        return {"model": "folder" if self.folder_of(model) else model, "revision": numbers.revision, "dtype": numbers.number_format}

    def examination(self, track: Track) -> Examination | None:
        """How the best epoch of a track is chosen on dev; None = it is not, and nothing of this enters its address."""
        if not self.recipe.sft.select_questions:
            return None
        return Examination(arm=exam_arm(headline_arms(self.recipe.grade)[track]), max_new_tokens=self.recipe.grade.max_new_tokens)

    @property
    def readings(self) -> list[Reading]:
        """Which model is read on which split under which arms."""
        return readings(self.recipe.grade, self.recipe.ablate)

    @property
    def trained_controls(self) -> tuple[Track, ...]:
        """Controls that are models of their own."""
        return tuple(track for track in (Track.FACTS_ONLY, Track.SHUFFLED_RATIONALE) if track in self.recipe.grade.controls)


def open_plan(profile: str, overrides: Mapping[str, Any] | None = None, *, asks: bool = False) -> Plan:
    """Load and check a profile; every fault is told at once, before anything is computed or paid. `asks`: what follows may ask a teacher, which takes a key."""
    loaded = load_profile(profile, folder=PROFILES, overrides=overrides or {})
    check_teacher(loaded)
    if asks and (lacking := missing_key(loaded)):
        raise ProfileError(loaded.name, [lacking])
    found = precision(loaded.recipe.student.dtype, device=loaded.execution.train.device)
    student = loaded.recipe.student.model_copy(update={"dtype": found.dtype})
    settled = loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"student": student})})
    context = Context(root=ArtifactRoot(Path(loaded.execution.root)), execution=loaded.execution)
    return Plan(profile=settled, overrides=dict(overrides or {}), context=context, precision=found)
