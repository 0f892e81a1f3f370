"""What the teach stage would cost: told in the UI before it begins, and by `socratune plan` without beginning it. Never on the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect.artifacts import acreate_table_artifact

from tasks.contracts.artifacts import TableRef
from tasks.contracts.asks import Ask, Cost, Estimate
from tasks.contracts.failures import ProfileError, TeacherRefused
from tasks.contracts.recipes import Profile, Recipe
from tasks.contracts.rows import Drafted, Question
from tasks.foresee import foreseen
from tasks.gateways.hub import read_questions_file
from tasks.gateways.kinds import open_teacher, price_for, settings_of
from tasks.gateways.ledger import Ledger
from tasks.gateways.teacher import Reply, first_request
from tasks.gateways.tokens import estimated_tokens, how_counted
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.estimate import Known, estimate
from tasks.logic.teaching import asks_for, replies_as_json, undrafted
from tasks.stage import Context


def check_teacher(profile: Profile) -> None:
    """Raise ProfileError when no price is known for a paid model: told before a student drafts."""
    recipe, pace = profile.recipe.teacher, profile.execution.teacher
    if recipe.kind == "openai":
        try:
            price_for(open_teacher(recipe, recordings=(), pace=pace, seed=0), recipe=recipe, pace=pace)
        except TeacherRefused as error:
            raise ProfileError(profile.name, [f"recipe.teacher.model: {error}"]) from error


async def tell_cost(
    context: Context, *, recipe: Recipe, questions: TableRef[Question], drafted: TableRef[Drafted], source: Path | str | None, rationalise: bool
) -> None:
    """Estimate the teach stage from what is stored so far; a table artifact, or a line of the plan."""
    if recipe.teacher.kind == "recorded":
        return
    rows = _rows(context, recipe=recipe, questions=questions, drafted=drafted, source=source)
    if rows is None:
        return
    made = _estimate(context, recipe=recipe, rows=rows, rationalise=rationalise)
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
    drawn = get_benchmark(recipe.benchmark).sample(
        rows=read_questions_file(str(source)) if source else [], named_split=sample.split, kinds=sample.kinds, split="train", n=sample.train, seed=recipe.seed
    )
    return undrafted(drawn.questions)


def _estimate(context: Context, *, recipe: Recipe, rows: Sequence[Drafted], rationalise: bool) -> Estimate:
    numbers, pace, wording = recipe.teacher, context.execution.teacher, get_benchmark(recipe.benchmark)
    as_json = replies_as_json(numbers.response_format, model=numbers.model)
    settings, teacher = settings_of(numbers), open_teacher(numbers, recordings=(), pace=pace, seed=recipe.seed)

    def by_key(*, samples: int, hint: bool) -> dict[str, Ask]:
        asks = asks_for(rows, benchmark=wording, samples=samples, hint=hint, as_json=as_json)
        return {first_request(ask, settings).key(teacher.source(ask)): ask for ask in asks}

    plain = by_key(samples=numbers.samples, hint=False)
    hinted = by_key(samples=1, hint=True) if rationalise and teacher.can_take_hints else {}
    stored, known = _stored(context, [*plain, *hinted], model=numbers.model)
    gold = {row.qid: row.answer for row in rows}
    agreed = {ask.qid for key, ask in plain.items() if key in stored and wording.parse_teacher_reply(stored[key].text).verdict == gold[ask.qid]}
    waiting = {ask.qid for key, ask in plain.items() if key not in stored} - agreed
    missing = [ask for key, ask in hinted.items() if key not in stored and ask.qid not in agreed]
    schema = estimated_tokens([{"content": json.dumps(wording.reply_schema)}], model=numbers.model) if as_json else 0

    def prompts(asks: Sequence[Ask]) -> list[int]:
        return [estimated_tokens(ask.messages, model=numbers.model) + schema for ask in asks]

    price = price_for(teacher, recipe=numbers, pace=pace)
    notes = [f"prompt tokens {how_counted(numbers.model)}", f"prices: {price.origin}"]
    if pace.mode == "batch":
        notes.append("a batch may take up to 24 hours whatever the limits say")
    if any(not row.draft for row in rows):
        notes.append("drafts are not written yet, so prompts are counted without them")
    return estimate(
        owned=len(stored),
        plain=prompts([ask for key, ask in plain.items() if key not in stored]),
        hints=prompts([ask for ask in missing if ask.qid not in waiting]),
        maybe=prompts([ask for ask in missing if ask.qid in waiting]),
        attempts=numbers.attempts,
        max_tokens=numbers.max_tokens,
        known=known,
        usd=lambda tokens_in, tokens_out: price.usd(tokens_in=tokens_in, tokens_out=tokens_out),
        pace=pace,
        notes=notes,
    )


def _stored(context: Context, keys: Sequence[str], *, model: str) -> tuple[dict[str, Reply], Known | None]:
    """What the ledger holds of these, and what it knows of the model; nothing where there is no ledger yet."""
    path = context.root.path / context.execution.ledger
    if not path.is_file():
        return {}, None
    with Ledger(path, budget_usd=None) as ledger:
        return ledger.find_many(keys), ledger.usual(model)


def _shown(cost: Cost) -> dict[str, Any]:
    return {**asdict(cost), "usd": f"{cost.usd:.2f}", "minutes": f"{cost.minutes:.1f}"}
