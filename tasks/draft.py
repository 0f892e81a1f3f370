"""Draft stage: the drafter answers each question and asks one or two clarifying ones."""

from __future__ import annotations

from collections import Counter

from tasks.contracts.artifacts import ModelRef, TableRef, read_rows
from tasks.contracts.recipes import Student
from tasks.contracts.rows import Completion, Drafted, Question
from tasks.logic.asking import draft_requests, drafted
from tasks.logic.benchmarks import get_benchmark
from tasks.stage import Table, Work, table_stage


@table_stage("draft", version=5, run_name="draft {split}")
async def draft(
    work: Work,
    *,
    split: str,
    questions: TableRef[Question],
    student: ModelRef,
    adapter: ModelRef | None,
    benchmark: str,
    max_new_tokens: int,
    numbers: Student,
    seed: int,
) -> Table[Drafted]:
    """Greedy drafts of one split by a frozen drafter: the student as it was, or with the `adapter` that was last accepted."""
    wording = get_benchmark(benchmark)
    rows = work.root.read(questions, Question)
    asked, weights = draft_requests(rows, benchmark=wording), work.weights(student, adapter, numbers)
    step = work.answering(asked, name=f"draft {split}", weights=weights, max_new_tokens=max_new_tokens, seed=seed)
    (done,) = await work.run(step)
    completions = read_rows(work.folder / done.out, Completion)
    made = drafted(rows, completions, benchmark=wording, drafter=(adapter or student).digest)
    said = {"with_questions": sum(bool(row.draft_questions) for row in made), "verdicts": Counter(row.draft_verdict for row in made)}
    return Table(made, Drafted, {**done.summary, **said})
