"""The self-guided loop: one firing, one round from the last accepted student. What it needs to go on stands in artifacts, so any machine may fire it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.plan import Overrides, Plan, ProfileName, open_plan
from flows.stored import stored
from flows.teach import teach
from flows.train import train
from tasks.align import align
from tasks.announce import announce, final_state
from tasks.contracts.artifacts import ModelRef, TableRef
from tasks.contracts.outcomes import Corpus, Firing, Origin, RoundMade, Students
from tasks.contracts.rounds import Attempt
from tasks.contracts.rows import Drafted, Prediction
from tasks.draft import draft
from tasks.explore import explore
from tasks.gauge import gauge
from tasks.loop import Opened, conclude, opened, told
from tasks.pair import pair_round
from tasks.predict import predict


@flow(name="self-guided", flow_run_name="self-guided {profile}")
async def self_guided(profile: ProfileName = "demo", overrides: Overrides = None) -> State[Firing]:
    """One round: sample the last accepted student, pair, train one epoch, accept or revert. Says so, and pauses its schedule once the stop rule holds."""
    plan = open_plan(profile, overrides)
    loop = _Loop(plan, *(await stored(plan, profile) or await _trained(profile, overrides)))
    async with opened(plan.context, profile=plan.profile.name, recipe=plan.recipe, start=loop.start) as state:
        if state.stopped or state.made_up:
            firing = told(state.folder, verdict="stopped" if state.stopped else "skipped", number=None, reasons=(), stopped=state.stopped)
        else:
            origin = await loop.origin()
            made, why = await loop.in_time(state)
            firing = await conclude(plan.context, loop=state, recipe=plan.recipe, origin=origin, made=made, why=why)
        await announce(state.folder, firing, profile=profile, overrides=plan.overrides)
    return final_state(firing)


async def _trained(profile: str, overrides: Overrides) -> tuple[Corpus, Students]:
    """What the first firing of a profile that was never run has to make."""
    corpus = await teach(profile, overrides)
    return corpus, await train(profile, overrides, corpus)


@dataclass(frozen=True)
class _Loop:
    """The stages of one round, with what they all share."""

    plan: Plan
    corpus: Corpus
    students: Students

    @property
    def start(self) -> ModelRef:
        return self.students.adapters[self.plan.recipe.loop.start]

    async def origin(self) -> Origin:
        """What every round is compared with. Made once; the first round's samples are the start student's own."""
        seed, drafted = self.plan.recipe.seed, self.corpus.drafted["dev"]
        return Origin(
            attempts=await self.explore("train", await self.redraft("train", self.start), student=self.start, seed=seed + 1),
            dev_attempts=await self.explore("dev", drafted, student=self.start, seed=seed),
            read=await self.read(drafted, student=self.start, name="start"),
            pairs=self.students.pairs,
        )

    async def in_time(self, state: Opened) -> tuple[RoundMade | None, str]:
        """The round, or None and why there is none."""
        minutes = self.plan.context.execution.loop.round_minutes
        try:
            async with asyncio.timeout(minutes and minutes * 60):
                made = await self.round(state)
        except TimeoutError:
            return None, f"given up after {minutes:g} minutes (execution.loop.round_minutes)"
        return made, "" if made else "no pair of a right and a wrong sample could be made"

    async def round(self, state: Opened) -> RoundMade | None:
        """Redraft, sample, pair, train, read; None where there is nothing to train on."""
        recipe, run, turn, parent = self.plan.recipe, self.plan.context, state.turn, state.parent.adapter
        rules = recipe.loop
        train, dev = await self.redraft("train", parent), await self.redraft("dev", parent)
        attempts = await self.explore("train", train, student=parent, seed=turn.seed)
        pairs = await pair_round(
            run, attempts=attempts, drafted=train, curated=self.corpus.curated, first=self.students.pairs, student=self.corpus.student, adapter=parent,
            benchmark=recipe.benchmark, arm=rules.explore.arm, recipe=recipe.pair, max_similarity=rules.max_similarity, replay=rules.replay,
            max_length=recipe.align.max_length, numbers=recipe.student, seed=turn.seed,
        )  # fmt: skip
        if not pairs.rows:
            return None
        student = await align(
            run, pairs=pairs, student=self.corpus.student, track_b=parent, dev=dev, benchmark=recipe.benchmark, recipe=turn.align,
            exam_arm=rules.explore.arm, exam_max_new_tokens=recipe.grade.max_new_tokens, allow=recipe.guards.allow, numbers=recipe.student, seed=turn.seed,
        )  # fmt: skip
        gauged = await gauge(
            run, pairs=pairs, first=self.students.pairs, dev=dev, student=self.corpus.student, candidate=student, accepted=parent,
            track_b=self.students.adapters["track_b"], benchmark=recipe.benchmark, arm=rules.explore.arm, questions=rules.gate.drift_questions,
            max_new_tokens=recipe.grade.max_new_tokens, allow=recipe.guards.allow, numbers=recipe.student, seed=turn.seed,
        )  # fmt: skip
        read, before = await self.read(dev, student=student, name=f"round-{turn.number}"), await self.read(dev, student=parent, name=state.parent_reading)
        return RoundMade(attempts=attempts, pairs=pairs, student=student, read=read, parent=before, gauged=gauged)

    async def redraft(self, split: str, student: ModelRef) -> TableRef[Drafted]:
        """Drafts of `student` where the loop's prompt shows a draft."""
        recipe = self.plan.recipe
        if recipe.loop.explore.arm != "rewrite":
            return self.corpus.drafted[split]
        return await draft(
            self.plan.context, split=split, questions=self.corpus.questions[split], student=self.corpus.student, adapter=student,
            benchmark=recipe.benchmark, max_new_tokens=recipe.draft.max_new_tokens, numbers=recipe.student, seed=recipe.seed,
        )  # fmt: skip

    async def explore(self, split: str, drafted: TableRef[Drafted], *, student: ModelRef, seed: int) -> TableRef[Attempt]:
        """Samples of a split; of dev every question, the same number of times."""
        recipe = self.plan.recipe
        rules, train = recipe.loop.explore, split == "train"
        return await explore(
            self.plan.context, split=split, drafted=drafted, curated=self.corpus.curated if train else None, student=self.corpus.student, adapter=student,
            benchmark=recipe.benchmark, recipe=rules if train else rules.model_copy(update={"questions": 0, "extra_samples": 0}),
            max_new_tokens=recipe.grade.max_new_tokens, allow=recipe.guards.allow, numbers=recipe.student, seed=seed,
        )  # fmt: skip

    async def read(self, dev: TableRef[Drafted], *, student: ModelRef, name: str) -> TableRef[Prediction]:
        """Greedy answers to dev."""
        recipe = self.plan.recipe
        shared: dict[str, Any] = {"benchmark": recipe.benchmark, "allow": recipe.guards.allow, "numbers": recipe.student, "seed": recipe.seed}
        return await predict(
            self.plan.context, model=name, split="dev", questions=dev, student=self.corpus.student, adapter=student, arms={recipe.loop.explore.arm: 0},
            chains=None, max_new_tokens=recipe.grade.max_new_tokens, unparsed=recipe.grade.unparsed, **shared,
        )  # fmt: skip
