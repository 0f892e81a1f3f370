"""What the teach stage would cost: told in the UI before it begins, and by `socratune plan` without beginning it. Never on the network."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect.artifacts import acreate_table_artifact

from tasks.contracts.artifacts import TableRef
from tasks.contracts.asks import Answer, Ask, Cost, Estimate
from tasks.contracts.execution import TeacherExecution
from tasks.contracts.failures import ProfileError
from tasks.contracts.recipes import Profile, Recipe, Teacher
from tasks.contracts.rows import Drafted, Outcome, Question
from tasks.foresee import foreseen
from tasks.gateways.credentials import NO_KEY, has_key
from tasks.gateways.hub import naming, read_questions_file
from tasks.gateways.kinds import endpoint_faults, judge_pace, open_teacher, price_for, settings_of
from tasks.gateways.ledger import Ledger
from tasks.gateways.teacher import Reply, first_request
from tasks.gateways.tokens import estimated_tokens, how_counted
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.estimate import CHECK_LENGTH, Known, estimate
from tasks.logic.judging import as_teacher
from tasks.logic.selection import chosen
from tasks.logic.teaching import Talk, agrees, asks_for, check_ask, check_asks, further_asks, talk_of, taught_rows, undrafted
from tasks.stage import Context


def check_teacher(profile: Profile) -> None:
    """Raise ProfileError where a paid teacher or judge could never answer: its model, its price, the key, the address. Told before a student drafts."""
    faults: dict[str, None] = {}  # in order; a fault of the environment is told once
    for name, recipe, pace in _paid(profile):
        found = endpoint_faults(recipe, pace)
        faults |= dict.fromkeys(fault if fault.startswith("OPENAI_") else f"recipe.{name}.model: {fault}" for fault in found)
    if faults:
        raise ProfileError(profile.name, list(faults))


def missing_key(profile: Profile) -> str | None:
    """What a run would lack to ask; None where it has a key or needs none. Replies of the same model in the ledger may be all that it needs."""
    if has_key():
        return None
    path = Path(profile.execution.root) / profile.execution.ledger
    models = [recipe.model for _, recipe, _ in _paid(profile)]
    if models and path.is_file():
        with Ledger(path, budget_usd=None) as ledger:
            models = [model for model in models if not ledger.knows(model)]
    return NO_KEY if models else None


def _paid(profile: Profile) -> list[tuple[str, Teacher, TeacherExecution]]:
    """The teacher and the judge, as far as they are asked over a network: name, recipe and pace."""
    recipe, pace = profile.recipe, profile.execution.teacher
    asked = [("teacher", recipe.teacher, pace), ("judge", as_teacher(recipe.judge), judge_pace(pace, model=recipe.judge.model))]
    return [each for each in asked if getattr(recipe, each[0]).kind == "openai"]


async def tell_cost(
    context: Context,
    *,
    recipe: Recipe,
    questions: TableRef[Question],
    drafted: TableRef[Drafted],
    asked: TableRef[Drafted],
    source: Path | str | None,
    rationalise: bool,
    resamples: int,
    validate: bool,
) -> None:
    """Estimate the teach stage from what is stored so far; a table artifact, or a line of the plan. `asked` are those of `drafted` that it asks about."""
    if recipe.teacher.kind == "recorded":
        return
    rows = _rows(context, recipe=recipe, questions=questions, drafted=asked if asked.digest else drafted, source=source)
    if rows is None:
        return
    if not asked.digest:  # which ones is not known yet, how many is
        rows = chosen(rows, {}, share=recipe.teacher.select_share, seed=recipe.seed)
    made = _estimate(context, recipe=recipe, rows=rows, rationalise=rationalise, resamples=resamples, validate=validate)
    plan = foreseen()
    if plan is not None:
        plan.estimate = made
        return
    lines = [{"case": name, **_shown(getattr(made, name))} for name in ("low", "expected", "high")]
    described = f"{made.owned} of {made.asks} replies are in the ledger already. " + "; ".join(made.notes)
    await acreate_table_artifact(key="teacher-estimate", table=lines, description=described)


def free_bytes(context: Context) -> int:
    """Room on the disk that holds the artifact root."""
    existing = next(path for path in (context.root.path, *context.root.path.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _rows(
    context: Context, *, recipe: Recipe, questions: TableRef[Question], drafted: TableRef[Drafted], source: Path | str | None
) -> Sequence[Drafted] | None:
    """The drafts, or the questions with empty drafts; None where neither can be known without fetching."""
    if drafted.digest:
        return context.root.read(drafted, Drafted)
    if questions.digest:
        return undrafted(context.root.read(questions, Question))
    if source is not None and not Path(source).exists():
        return None
    sample = recipe.sample
    rows = read_questions_file(str(source)) if source else []
    with naming(source):
        drawn = get_benchmark(recipe.benchmark).sample(rows=rows, named_split=sample.split, kinds=sample.kinds, split="train", n=sample.train, seed=recipe.seed)
    return undrafted(drawn.questions)


def _estimate(context: Context, *, recipe: Recipe, rows: Sequence[Drafted], rationalise: bool, resamples: int, validate: bool) -> Estimate:
    """What the teach stage would buy of `rows`: the same asks as it makes, less those whose replies the ledger holds."""
    numbers, pace = recipe.teacher, context.execution.teacher
    talk = talk_of(numbers, benchmark=get_benchmark(recipe.benchmark))
    settings, teacher = settings_of(numbers), open_teacher(numbers, recordings=(), pace=pace, seed=recipe.seed)

    def by_key(asks: Sequence[Ask]) -> dict[str, Ask]:
        return {first_request(ask, settings).key(teacher.source(ask)): ask for ask in asks}

    hints = rationalise and teacher.can_take_hints
    plain = by_key(asks_for(rows, talk=talk, samples=range(numbers.samples), hint=False))
    again = by_key(further_asks(rows, talk=talk, samples=numbers.samples, resamples=resamples, rationalise=hints))
    stored, known = _stored(context, [*plain, *again], model=numbers.model)
    taught = taught_rows(rows, [_answer(ask, stored[key], talk) for key, ask in plain.items() if key in stored], talk=talk)
    agreed = {row.qid for row in taught if agrees(row)}
    more = [_answer(ask, stored[key], talk) for key, ask in again.items() if key in stored and ask.qid not in agreed]
    checks = by_key(check_asks(taught + taught_rows(rows, more, talk=talk), talk=talk, seed=recipe.seed)) if validate else {}
    checked, _ = _stored(context, list(checks), model=numbers.model)
    waiting = {ask.qid for key, ask in plain.items() if key not in stored} - agreed
    missing = [ask for key, ask in again.items() if key not in stored and ask.qid not in agreed]

    def prompts(asks: Iterable[Ask]) -> list[int]:
        return [estimated_tokens([*ask.messages, *_schema_of(ask)], model=numbers.model) for ask in asks]

    price = price_for(teacher, recipe=numbers, pace=pace)
    notes = [f"prompt tokens {how_counted(numbers.model)}", f"prices: {price.origin}"]
    if pace.mode == "batch":
        notes.append("a batch may take up to 24 hours whatever the limits say")
    if any(not row.draft for row in rows) and numbers.ask:
        notes.append("drafts are not written yet, so prompts are counted without them")
    if numbers.select_share < 1:
        notes.append(f"{len(rows)} questions are asked about, {numbers.select_share:.0%} of them all")
    return estimate(
        owned=len(stored) + len(checked),
        plain=prompts(ask for key, ask in plain.items() if key not in stored),
        again=prompts(ask for ask in missing if ask.qid not in waiting),
        maybe=prompts(ask for ask in missing if ask.qid in waiting),
        checks=prompts(ask for key, ask in checks.items() if key not in checked),
        check_frame=math.ceil(statistics.fmean(prompts(check_ask(row, "", talk=talk) for row in rows))) if validate and rows else None,
        attempts=numbers.attempts,
        max_tokens=numbers.max_tokens,
        known=known,
        usd=lambda tokens_in, tokens_out: price.usd(tokens_in=tokens_in, tokens_out=tokens_out),
        pace=pace,
        notes=notes,
    )


def _answer(ask: Ask, reply: Reply, talk: Talk) -> Answer:
    """A stored first reply as the answer that it would be."""
    problem = "cut or refused" if reply.finish_reason != "stop" else talk.problem(reply.text) or ""
    return Answer(ask=ask, outcome=Outcome.UNPARSED if problem else Outcome.OK, text=reply.text, model=reply.model, attempts=1, note=problem)


def _schema_of(ask: Ask) -> list[dict[str, str]]:
    """The reply's schema, which is part of the prompt that is paid for."""
    return [] if ask.schema is None else [{"content": json.dumps(ask.schema)}]


def _stored(context: Context, keys: Sequence[str], *, model: str) -> tuple[dict[str, Reply], Known | None]:
    """What the ledger holds of these, and what it knows of the model; nothing where there is no ledger yet."""
    path = context.root.path / context.execution.ledger
    if not path.is_file():
        return {}, None
    with Ledger(path, budget_usd=None) as ledger:
        return ledger.find_many(keys), ledger.usual(model, above=CHECK_LENGTH)


def _shown(cost: Cost) -> dict[str, Any]:
    return {**asdict(cost), "usd": f"{cost.usd:.2f}", "minutes": f"{cost.minutes:.1f}"}
