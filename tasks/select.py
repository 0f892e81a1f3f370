"""Select stage: the train questions that the teacher is asked about, where that is not all of them."""

from __future__ import annotations

from tasks.contracts.artifacts import ModelRef, TableRef, read_rows
from tasks.contracts.recipes import Student
from tasks.contracts.rows import Completion, Drafted
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.selection import TEMPERATURE, Way, chosen, selection_counts, selection_requests, usefulness
from tasks.stage import Table, Work, table_stage


@table_stage("select", version=2, run_name="select {how}")
async def select(
    work: Work,
    *,
    drafted: TableRef[Drafted],
    student: ModelRef,
    benchmark: str,
    how: Way,
    share: float,
    max_new_tokens: int,
    numbers: Student,
    seed: int,
) -> Table[Drafted]:
    """The `share` of the drafted questions that the untrained student knows least about; "random" loads no student."""
    wording = get_benchmark(benchmark)
    rows = work.root.read(drafted, Drafted)
    requests = selection_requests(rows, how=how, benchmark=wording)
    scores = {}
    if requests:
        weights = work.weights(student, None, numbers)
        step = work.answering(requests, name="select", weights=weights, max_new_tokens=max_new_tokens, temperature=TEMPERATURE, seed=seed)
        (done,) = await work.run(step)
        scores = usefulness(read_rows(work.folder / done.out, Completion), how=how, benchmark=wording)
    kept = chosen(rows, scores, share=share, seed=seed)
    return Table(kept, Drafted, selection_counts(rows, kept, scores))
