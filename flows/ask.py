"""Ask the aligned student of a finished run questions, and show its way to each verdict. Looks ahead through the flows to find it: makes and pays nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.plan import Plan, open_plan
from flows.stored import stored
from tasks.ask import Consultation, ask_student, question_of
from tasks.contracts.artifacts import ModelRef, TableRef
from tasks.contracts.failures import ArtifactError
from tasks.contracts.outcomes import FinishedRun, Students, finished_runs, read_run
from tasks.contracts.profiles import PROFILES
from tasks.contracts.rows import Question
from tasks.foresee import foresee
from tasks.loop import follow
from tasks.runs import find_run
from tasks.student import student

_TITLES = {"rewrite": "The aligned student, rewriting the draft", "reasoning": "The aligned student, without the draft (this profile trains no rewrites)"}


async def ask_profile(profile: str, overrides: Mapping[str, Any], questions: Sequence[str], *, console: Console) -> list[Consultation]:
    """What the aligned student of a profile, or of a finished run, makes of each question; it is loaded once.

    Settings are those of the run, or of the profile's last one, changed by `overrides`. Raises ArtifactError where it is not trained yet, DataError for an
    unusable question.
    """
    for question in questions:
        question_of(question)  # told before anything is looked up
    profile, overrides = _remembered(profile, overrides, console)
    plan = open_plan(profile, overrides)
    base, drafter, students, train = await _finished(plan, profile)
    followed = follow(plan.context, students, profile=plan.profile.name, start=plan.recipe.loop.start)
    if followed.accepted:
        console.print(Text(f"Answering: {followed.accepted} of the self-guided loop"))
    adapter = followed.adapters["aligned"]
    with console.status("loading the student") as status:

        def hear(note: str) -> None:
            status.update(Text(note))

        return await asyncio.to_thread(
            ask_student, plan.context, recipe=plan.recipe, student=base, drafter=drafter, adapter=adapter, train=train, questions=questions, hear=hear
        )


def _remembered(profile: str, overrides: Mapping[str, Any], console: Console) -> tuple[str, dict[str, Any]]:
    """The profile that is meant and its settings: a run's own where one is named, those of a profile's last run, `overrides` over either."""
    named = profile.endswith((".yaml", ".yml")) or (PROFILES / f"{profile}.yaml").is_file()
    runs = Path(open_plan(profile, overrides).context.root.path if named else ".") / "data" / "runs"
    if named:
        last = next((each for each in finished_runs(runs) if each.summary["profile"] == Path(profile).stem), None)
    else:
        folder = find_run(profile, root=Path())
        last = FinishedRun(folder, read_run(folder))
        profile = last.summary["profile"]
    if last is None:
        return profile, dict(overrides)
    kept = {path: value for path, value in last.summary["overrides"].items() if path not in overrides}
    if kept:
        told = " ".join(f"--set {path}={value}" for path, value in kept.items())
        console.print(f"As in {last.folder.name}: {told}", markup=False, highlight=False, soft_wrap=True)
    return profile, {**kept, **overrides}


async def _finished(plan: Plan, profile: str) -> tuple[ModelRef, ModelRef, Students, TableRef[Question]]:
    """The student, its drafter, the trained adapters and the train questions, as a run of the profile would find them stored."""
    found, drafter = await stored(plan, profile), None
    if found and (named := plan.recipe.draft.model) != "student":
        with foresee():
            drafter = await student(plan.context, source=plan.folder_of(named), **plan.student_weights(named))
    if found is None or (drafter and not drafter.digest):
        where = f"these settings in {plan.context.root.path.absolute()}"
        raise ArtifactError(f"{profile} has no finished student for {where}; run socratune run {profile} first, with the same --set")
    corpus, students = found
    return corpus.student, drafter or corpus.student, students, corpus.questions["train"]


def shown_consultation(answered: Consultation) -> RenderableType:
    """A consultation for a terminal, every part labelled, also those that the student left out."""
    draft = _parts(("Draft", answered.draft), ("Questions", answered.draft_questions), ("Verdict", answered.draft_verdict))
    panels = [Panel(draft, title="The draft", title_align="left")]
    for chain in answered.chains:
        verdict = f"{chain.verdict} (stopped by the token limit)" if chain.cut else chain.verdict
        rows = _parts(("Questions", chain.questions), ("Answers", chain.answers), ("Reasoning", chain.reasoning), ("Verdict", verdict))
        panels.append(Panel(rows, title=_TITLES[chain.arm], title_align="left"))
    chance = (1 + math.tanh(answered.direct_margin / 2)) / 2
    direct = _parts(("Verdict", answered.direct_verdict), ("Margin", f"{answered.direct_margin:+.2f} nats, yes with {chance:.0%}"))
    warned = [Text(f"Careful: {answered.warning}", style="yellow")] if answered.warning else []
    return Group(
        Text(answered.question, style="bold"), *warned, *panels, Panel(direct, title="The aligned student at once, without reasoning", title_align="left")
    )


def _parts(*parts: tuple[str, str | Sequence[str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, said in parts:
        text = said if isinstance(said, str) else "\n".join(said)
        table.add_row(Text(name, style="dim"), Text(text.strip() or "(none)"))
    return table
