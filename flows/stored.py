"""What a profile's earlier runs left stored, found without making anything."""

from __future__ import annotations

from flows.plan import Plan
from flows.teach import teach
from flows.train import train
from tasks.contracts.failures import NotYet
from tasks.contracts.outcomes import Corpus, Students
from tasks.foresee import foresee


async def stored(plan: Plan, profile: str) -> tuple[Corpus, Students] | None:
    """The corpus and the trained students, as a run of the profile would find them; None where a stage has not run yet.

    Without preference pairs Track B would pass for the aligned student, so pairs are looked for too.
    """
    try:
        with foresee():
            corpus = await teach.fn(profile, dict(plan.overrides))
            students = await train.fn(profile, dict(plan.overrides), corpus)
    except NotYet:
        return None
    digests = [corpus.student.digest, students.pairs.digest, *(adapter.digest for adapter in students.adapters.values())]
    return (corpus, students) if all(digests) else None
