"""Curate stage: filter, repair, rebalance and gate the teacher's replies."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from prefect.logging import get_run_logger

from tasks.contracts.artifacts import TableRef
from tasks.contracts.recipes import Curate
from tasks.contracts.rows import Curated, Drafted, Taught
from tasks.logic.balance import check_balance, keep_rates
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.curation import curate as curate_rows
from tasks.logic.curation import templated_share
from tasks.stage import Table, Work, table_stage


@table_stage("curate", version=3, run_name="curate")
async def curate(
    work: Work, *, drafted: TableRef[Drafted], taught: TableRef[Taught], benchmark: str, recipe: Curate, ask: bool, allow: tuple[str, ...], seed: int
) -> Table[Curated]:
    """Rows ready for training, with class counts after every step; UnbalancedCorpus when the classes moved too far and `allow` lacks "class_balance"."""
    template = partial(get_benchmark(benchmark).template_for, ask=ask)
    made = curate_rows(work.root.read(drafted, Drafted), work.root.read(taught, Taught), template=template, recipe=recipe, seed=seed)
    unbalanced = check_balance(made.steps, made.trained, max_shift=recipe.max_shift, allowed="class_balance" in allow)
    if unbalanced:
        get_run_logger().warning("allowed by recipe.guards.allow: %s", unbalanced)
    templated = templated_share(made.rows)
    if templated:
        get_run_logger().warning("%.1f %% of the questions that were asked about are taught from a template, for want of a reply", 100 * templated)
    provenance = [row.provenance for row in made.rows]
    summary = {
        "filters": [{**asdict(step), "yes_share": step.yes_share} for step in (*made.steps, *made.trained)],
        "keep_rates": [asdict(rate) for rate in keep_rates(made.steps)],
        "reasonings": made.reasonings,
        "pasted": made.pasted,
        "templated_share": templated,
        "provenance": {name: provenance.count(name) for name in ("agreed", "rationalised", "template", "unasked")},
        "questions": {role: len({row.qid for row in made.rows if row.role == role}) for role in ("sft", "pair")},
        "rows": len(made.rows),
        "allowed": {"class_balance": unbalanced} if unbalanced else {},
    }
    return Table(made.rows, Curated, summary)
