"""Sample stage: seeded questions of one split."""

from __future__ import annotations

from pathlib import Path

from tasks.contracts.rows import Question
from tasks.gateways.hub import naming, read_questions_file
from tasks.logic.benchmarks import get_benchmark
from tasks.stage import Table, Work, table_stage


@table_stage("sample", version=1, run_name="sample {split}")
async def sample(
    work: Work, *, benchmark: str, split: str, size: int, seed: int, source: Path | str | None, named_split: str | None, kinds: tuple[str, ...] | None
) -> Table[Question]:
    """`size` questions of `split` (0 = all), balanced or stratified as the benchmark says; one ref a split, so a test size retrains nothing."""
    rows = read_questions_file(str(source)) if source else []
    with naming(source):
        drawn = get_benchmark(benchmark).sample(rows=rows, named_split=named_split, kinds=kinds, split=split, n=size, seed=seed)
    answers = [question.answer for question in drawn.questions]
    counts = {"yes": answers.count("yes"), "no": answers.count("no")}
    return Table(drawn.questions, Question, {"split": split, "class_counts": counts, "excluded": drawn.excluded})
