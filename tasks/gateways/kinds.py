"""Which teacher a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.contracts.execution import TeacherExecution
from tasks.contracts.failures import TeacherRefused
from tasks.contracts.recipes import Teacher as TeacherRecipe
from tasks.gateways.caller import price_of
from tasks.gateways.credentials import key_fault, url_fault
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.prices import Price, given_price, published_price
from tasks.gateways.recorded_teacher import RecordedTeacher
from tasks.gateways.teacher import Settings, Teacher

SIMULATED = "simulated"  # how the names of simulated models begin


def settings_of(recipe: TeacherRecipe) -> Settings:
    """How the recipe has every ask sampled."""
    return Settings(model=recipe.model, temperature=recipe.temperature, max_tokens=recipe.max_tokens, attempts=recipe.attempts)


def price_for(teacher: Teacher, *, recipe: TeacherRecipe, pace: TeacherExecution) -> Price:
    """What the recipe's model costs in the profile's mode. Raises TeacherRefused for a paid model without a known price."""
    given = given_price(pace.price) if pace.price and recipe.kind == "openai" else None
    price = price_of(teacher, model=recipe.model, given=given)
    return price.in_batch() if pace.mode == "batch" else price


def judge_pace(pace: TeacherExecution, *, model: str) -> TeacherExecution:
    """How a judge may be asked: as the teacher, but the profile's own price, which is the teacher's, is only for a model without a published one."""
    return pace if published_price(model) is None else pace.model_copy(update={"price": None})


def endpoint_faults(recipe: TeacherRecipe, pace: TeacherExecution) -> list[str]:
    """What keeps a paid teacher from ever answering, as far as it can be known without asking it: its name, its price, the key's characters, the address."""
    if recipe.kind != "openai":
        return []
    faults = [fault for fault in (key_fault(), url_fault()) if fault]
    if recipe.model.startswith(SIMULATED):
        return [f"kind=openai needs the name of a model that the endpoint serves, and {recipe.model!r} is answered on this machine; such as gpt-4o", *faults]
    try:
        price_for(open_teacher(recipe, recordings=(), pace=pace, seed=0), recipe=recipe, pace=pace)
    except TeacherRefused as error:
        faults.insert(0, str(error))
    return faults


def open_teacher(recipe: TeacherRecipe, *, recordings: Sequence[Path], pace: TeacherExecution, seed: int) -> Teacher:
    """The recipe's teacher, to be used with `async with`. `recordings` are the recipe's files where they lie; `seed` draws simulated errors.

    Raises DataError for a bad recording.
    """
    if recipe.kind == "recorded":
        return RecordedTeacher(recordings, settings=settings_of(recipe))
    if recipe.kind == "simulated":
        from tasks.gateways.simulated_teacher import SimulatedTeacher

        error_rate, no_bias = recipe.error_rate or 0.0, recipe.no_bias or 0.0  # load_profile has refused null
        return SimulatedTeacher(error_rate=error_rate, no_bias=no_bias, timeout_seconds=pace.timeout_seconds, seed=seed)
    return OpenAITeacher(timeout_seconds=pace.timeout_seconds, tries=pace.tries)
