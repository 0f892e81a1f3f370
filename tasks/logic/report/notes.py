"""What a reader should know before the figures: guards switched off, splits read twice, models that are not what their name says."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.logic.pairs import TOO_LONG
from tasks.logic.report.facts import Made, RunFacts
from tasks.logic.report.remarks import remarks


def notes(facts: RunFacts) -> tuple[str, ...]:
    """What a reader should know before the figures, in sentences."""
    recipe = facts.profile.recipe
    found = switched_off(facts)
    student = facts.named(f"student {recipe.student.model}").summary if any(each.name.startswith("student ") for each in facts.artifacts) else {}
    if student and not student["pinned"]:
        found.append(f"The student was not pinned to a revision; this run used commit {student['commit'] or 'unknown'}. Pin it with recipe.student.revision.")
    if student and student["prompt_date"]:
        found.append(f"The student's chat template prints today's date: every prompt of this run, in training and in reading, says {student['prompt_date']}.")
    if recipe.grade.split == "dev" and recipe.align.select_questions and facts.was_aligned:
        found.append(
            f"The aligned model's epoch was chosen on the first {recipe.align.select_questions} dev questions, which are read here too: "
            "its dev figure is a little too good." + " Track A and Track B were not chosen on dev." * (not recipe.sft.select_questions)
        )
    if recipe.grade.split == "dev" and recipe.sft.select_questions:
        found.append(
            f"The epochs of the fine-tuned models were chosen on the first {recipe.sft.select_questions} dev questions, which are read here too: "
            "their dev figures are a little too good."
        )
    if recipe.grade.unparsed == "as_no":
        found.append(
            'A text without a verdict counts as "no" here, as it did in the original project (recipe.grade.unparsed: as_no). '
            "That favours a model that is cut off on questions whose answer is no; the column of texts without a verdict says how many there were."
        )
    if recipe.grade.calibrate or any(each.name.endswith("/adaptive") for each in facts.artifacts):
        where = "two halves of dev, each for the other" if recipe.grade.split == "dev" else "dev"
        found.append(f"Thresholds of the calibrated and the adaptive arm were chosen on {where}: no question had a part in its own.")
    if facts.was_aligned:
        found += [f"Preference training: {alarm}." for alarm in facts.named("align").summary["alarms"]]
        if too_long := facts.named("pair").summary["turned_away"].get(TOO_LONG):
            found.append(f"{too_long} preference pairs were {TOO_LONG} and left out, their classes balanced again: raise recipe.align.max_length to have them.")
    found += remarks(facts)
    if recipe.teacher.kind == "simulated":
        on_yes, biased = recipe.teacher.error_rate or 0.0, recipe.teacher.no_bias or 0.0
        found.append(
            f"The teacher is simulated: it knows the facts of {recipe.benchmark} and errs on purpose, on {on_yes:.0%} of the questions whose answer is yes "
            f"and {on_yes * (1 - biased):.0%} of the others."
        )
    return tuple(found)


def switched_off(facts: RunFacts) -> list[str]:
    """Every guard that the recipe switches off, and what it found where it would have stopped this run."""
    found: dict[str, dict[str, list[str]]] = {guard: {} for guard in facts.profile.recipe.guards.allow}
    for made in facts.artifacts:
        for guard, said in _allowed(made):
            found.setdefault(guard, {}).setdefault(said.rstrip("."), []).append(made.name)
    told = {guard: "; ".join(f"{said} ({', '.join(dict.fromkeys(names))})" for said, names in finds.items()) for guard, finds in found.items()}
    return [f"The guard {guard} was switched off (recipe.guards.allow): {said or 'it found nothing in this run'}." for guard, said in told.items()]


def _allowed(made: Made) -> list[tuple[str, str]]:
    """What switched-off guards found in a stage, in any of its steps."""
    steps = made.summary.get("steps")
    summaries = [made.summary, *(steps.values() if isinstance(steps, Mapping) else ())]
    return [pair for each in summaries for pair in each.get("allowed", {}).items()]
