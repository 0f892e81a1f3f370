"""Ask the aligned student of a finished run, and show its way to the verdict. Looks ahead through the flows to find it, so it makes and pays nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.plan import Plan, open_plan
from flows.stored import stored
from tasks.ask import Consultation, ask_student, question_of
from tasks.contracts.artifacts import ModelRef
from tasks.contracts.failures import ArtifactError
from tasks.contracts.outcomes import Students
from tasks.foresee import foresee
from tasks.loop import follow
from tasks.student import student

_TITLES = {"rewrite": "The aligned student, rewriting the draft", "reasoning": "The aligned student, without the draft (this profile trains no rewrites)"}


async def ask_profile(profile: str, overrides: Mapping[str, Any], question: str, *, console: Console) -> Consultation:
    """What the aligned student of a profile makes of a question. Raises ArtifactError where it is not trained yet, DataError for an unusable question."""
    question_of(question)  # told before anything is looked up
    plan = open_plan(profile, overrides)
    base, drafter, students = await _finished(plan, profile)
    followed = follow(plan.context, students, profile=plan.profile.name, start=plan.recipe.loop.start)
    if followed.accepted:
        console.print(Text(f"Answering: {followed.accepted} of the self-guided loop"))
    adapter = followed.adapters["aligned"]
    with console.status("loading the student") as status:

        def hear(note: str) -> None:
            status.update(Text(note))

        return await asyncio.to_thread(
            ask_student, plan.context, recipe=plan.recipe, student=base, drafter=drafter, adapter=adapter, question=question, hear=hear
        )


async def _finished(plan: Plan, profile: str) -> tuple[ModelRef, ModelRef, Students]:
    """The student, its drafter and the trained adapters, as a run of the profile would find them stored."""
    found, drafter = await stored(plan, profile), None
    if found and (named := plan.recipe.draft.model) != "student":
        with foresee():
            drafter = await student(plan.context, source=plan.folder_of(named), **plan.student_weights(named))
    if found is None or (drafter and not drafter.digest):
        where = f"these settings in {plan.context.root.path.absolute()}"
        raise ArtifactError(f"{profile} has no finished student for {where}; run socratune run {profile} first, with the same --set")
    corpus, students = found
    return corpus.student, drafter or corpus.student, students


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
    return Group(Text(answered.question, style="bold"), *panels, Panel(direct, title="The aligned student at once, without reasoning", title_align="left"))


def _parts(*parts: tuple[str, str | Sequence[str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, said in parts:
        text = said if isinstance(said, str) else "\n".join(said)
        table.add_row(Text(name, style="dim"), Text(text.strip() or "(none)"))
    return table
