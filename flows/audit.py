"""What a profile's teachers and questions are worth before anything is trained on them. Plain functions: a Prefect server would take longer than the work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from flows.plan import open_plan
from flows.teach import teach
from tasks.audit import Audited, write_audit
from tasks.contracts.failures import NotYet
from tasks.foresee import foresee


async def audit(profile: str, overrides: Mapping[str, Any]) -> Audited:
    """Audit the recordings of a profile, the replies and the corpus that a run of it has stored, and its splits. Computes no stage, calls nobody."""
    plan = open_plan(profile, overrides)
    corpus = None
    with foresee(), suppress(NotYet):
        corpus = await teach.fn(profile, dict(overrides))
    stored = corpus is not None and bool(corpus.taught.digest)
    return write_audit(
        plan.context,
        profile=plan.profile,
        overrides=plan.overrides,
        source=plan.source,
        recordings=plan.recordings,
        taught=corpus.taught if corpus and stored else None,
        curated=corpus.curated if corpus and corpus.curated.digest else None,
    )


def audit_tables(audited: Audited) -> RenderableType:
    """The audit's figures as short tables for a terminal."""
    figures = audited.figures
    names = ("n", "silent", "TPR", "TNR", "says yes", "gold", "agrees")
    first = (Column("teacher", overflow="fold"), Column("verdict", no_wrap=True))  # of a narrow terminal, these stay readable
    teachers = Table(*first, *(Column(name, justify="right") for name in names), title="Teachers, on train and dev", box=SIMPLE_HEAD)
    for each in figures["teachers"]:
        counts = (f"{each['replies']:,}", f"{each['unparsed'] + each['cut']:,}")
        shares = (_share(each[name]) for name in ("true_yes", "true_no", "yes_rate", "gold_yes_rate", "agreement"))
        teachers.add_row(each["name"], each["finding"], *counts, *shares)
    columns = ("same id", "same text", "5-grams", "near")
    overlaps = Table("splits", *(Column(name, justify="right") for name in columns), title="Questions in two splits, as the file has them")
    mixed = [each for each in figures["overlaps_named"] if each["left"].endswith("/test") != each["right"].endswith("/test")]
    for each in [*figures["overlaps"], *mixed]:
        overlaps.add_row(f"{each['left']}, {each['right']}", *(f"{each[name]:,}" for name in ("same_id", "same_text", "contained", "near")))
    places = [each["part"] for each in figures["exemplars"]]
    examples = ", ".join(f"{places.count(part)} {part}" for part in dict.fromkeys(places)) or "none"
    parts: list[RenderableType] = [teachers] if figures["teachers"] else [Text("no teacher's replies are recorded or stored")]
    return Group(*parts, overlaps, Text(f"worked examples of recorded prompts among the questions: {examples}"), Text(f"page: {audited.html}"))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
