"""Curate stage: filter, repair and gate the teacher's replies."""

from __future__ import annotations

from dataclasses import asdict

from tasks.contracts.artifacts import TableRef
from tasks.contracts.recipes import Curate
from tasks.contracts.rows import Curated, Taught
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.curation import check_balance
from tasks.logic.curation import curate as curate_rows
from tasks.stage import Table, Work, table_stage


@table_stage("curate", version=2, run_name="curate")
async def curate(work: Work, *, taught: TableRef[Taught], benchmark: str, recipe: Curate, seed: int) -> Table[Curated]:
    """Rows ready for training, with class counts after every filter; UnbalancedCorpus when the classes moved too far."""
    made = curate_rows(
        work.root.read(taught, Taught),
        template=get_benchmark(benchmark).template_rationale,
        disagreement=recipe.disagreement,
        rationalised_weight=recipe.rationalised_weight,
        pair_share=recipe.pair_share,
        seed=seed,
    )
    check_balance(made.steps, max_shift=recipe.max_shift)
    provenance = [row.provenance for row in made.rows]
    summary = {
        "filters": [{**asdict(step), "yes_share": step.yes_share} for step in made.steps],
        "provenance": {name: provenance.count(name) for name in ("agreed", "rationalised", "template")},
        "questions": {role: len({row.qid for row in made.rows if row.role == role}) for role in ("sft", "pair")},
        "rows": len(made.rows),
    }
    return Table(made.rows, Curated, summary)
