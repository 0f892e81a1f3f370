"""Small jobs over the tiny student: rows, steps, and running a step in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tasks.contracts.artifacts import write_rows
from tasks.contracts.jobs import AlignStep, AnswerStep, Machine, ReferenceStep, ScoreStep, SftStep, Weights
from tasks.contracts.recipes import Align, Lora, Phase, Sft
from tasks.contracts.rounds import Spoken
from tasks.contracts.rows import Exam, Example, Pair, Request

MACHINE = Machine(device="cpu", processes=1, batch_tokens=160, gpu_memory_gib=None, recompute="auto", compile="auto", generate_batch=4, report_to=())
SIDES = ("chosen", "rejected")
PLAIN = Phase(epochs=1, beta=0.1, cal="none", dr="none", drop_quantile=0.0)


def stock(model: Any) -> Any:
    """The same PeftModel computing as peft does, for oracles: our form of its layers knows one adapter only."""
    for module in model.modules():
        module.__dict__.pop("forward", None)
    return model


def silent(done: int, total: int, note: str) -> None:
    """A report that nobody reads."""


def workers(folder: str | Path) -> list[psutil.Process]:
    """Processes that do a job in `folder` (a glob pattern of its path): those that write its log."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += [each for file in each.open_files() if Path(file.path).match(f"{folder}/log.txt")][:1]
    return found


def weights(model: Path, *, adapter: str = "", quantization: str = "none", dtype: str = "float32") -> Weights:
    return Weights(model=str(model), adapter=adapter, quantization=quantization, dtype=dtype)  # type: ignore[arg-type]


def examples(count: int, *, weight: float = 1.0) -> list[Example]:
    """Direct and reasoning examples in turn, of different lengths."""
    rows = []
    for index in range(count):
        answer = "yes" if index % 3 else "no"
        reasoning = f"Reasoning: {'heavier and ' * (index % 4)}number {index} says so.\nFinal a" if index % 2 else "A"
        arm = "reasoning" if index % 2 else "direct"
        rows.append(
            Example(
                qid=f"q{index}",
                arm=arm,
                prompt=f"Is {index} heavy?",
                completion=f"{reasoning}nswer: {answer.title()}",
                answer=answer,
                weight=weight,
                verdict_factor=1.0,
                reasoning_factor=1.0,
            )
        )
    return rows


def pairs(count: int) -> list[Pair]:
    """Pairs whose two sides differ in the verdict, and in length."""
    return [
        Pair(
            qid=f"q{index}",
            arm="reasoning",
            prompt=f"Is {index} heavy?",
            chosen=f"Number {index} is heavy.\nFinal answer: Yes",
            rejected=f"Number {index} is {'not ' * (index % 3)}heavy.\nFinal answer: No",
            answer="yes",
            chosen_source="own",
            rejected_source="own",
            kind="draft_wrong" if index % 2 else "draft_right",
            disagreement=index / count,
            reference_chosen=0.0,
            reference_rejected=0.0,
            reference="",
        )
        for index in range(count)
    ]


def requests(count: int) -> list[Request]:
    return [
        Request(qid=f"q{index}", arm="direct", sample=0, prompt="Is it heavy? " * (1 + index % 3), prefix="", yes_choices=(), no_choices=())
        for index in range(count)
    ]


def sft_step(folder: Path, model: Path, rows: Sequence[Example], **changes: object) -> SftStep:
    write_rows(folder / "examples.parquet", rows, Example)
    recipe = Sft(
        reasoning="completion",
        track_a=None,
        counterfactual_weight=0.0,
        select_questions=0,
        init="base",
        epochs=2,
        learning_rate=5e-3,
        warmup=0.1,
        effective_batch=8,
        max_length=200,
        verdict_weight=1.0,
        direct_weight=0.0,
        lora=Lora(rank=4, alpha=8, dropout=0.1, targets="all-linear"),
    )
    step = SftStep(
        name="sft",
        weights=weights(model),
        examples="examples.parquet",
        exams=None,
        exam_max_new_tokens=60,
        recipe=recipe,
        steps=None,
        tokens=None,
        allow=(),
        seed=3,
        machine=MACHINE,
        out="adapter",
    )
    return step.model_copy(update=changes)


def answer_step(folder: Path, model: Path, rows: Sequence[Request], **changes: object) -> AnswerStep:
    write_rows(folder / "requests.parquet", rows, Request)
    step = AnswerStep(
        name="ask",
        weights=weights(model),
        requests="requests.parquet",
        max_new_tokens=60,
        temperature=0.0,
        allow=(),
        seed=3,
        machine=MACHINE,
        out="completions.parquet",
    )
    return step.model_copy(update=changes)


def reference_step(folder: Path, model: Path, rows: Sequence[Pair], **changes: object) -> ReferenceStep:
    write_rows(folder / "pairs.parquet", rows, Pair)
    step = ReferenceStep(
        weights=weights(model, adapter="adapter"), digest="adapter-digest", pairs="pairs.parquet", max_length=200, machine=MACHINE, out="referenced.parquet"
    )
    return step.model_copy(update=changes)


def spoken(rows: Sequence[Pair]) -> list[Spoken]:
    """Both sides of pairs, each a text of its own."""
    return [
        Spoken(qid=pair.qid, role=role, prompt=pair.prompt, completion=text)
        for pair in rows
        for role, text in zip(SIDES, (pair.chosen, pair.rejected), strict=True)
    ]


def score_step(folder: Path, model: Path, rows: Sequence[Spoken], **changes: object) -> ScoreStep:
    write_rows(folder / "texts.parquet", rows, Spoken)
    step = ScoreStep(
        name="read",
        weights=weights(model, adapter="adapter"),
        texts="texts.parquet",
        machine=MACHINE,
        out="likelihoods.parquet",
    )
    return step.model_copy(update=changes)


def align_recipe(*phases: Phase, **changes: object) -> Align:
    recipe = Align(
        phases=phases or (PLAIN,),
        learning_rate=1e-3,
        warmup=0.0,
        effective_batch=8,
        max_length=200,
        cal_weight=0.5,
        dr_beta=1.0,
        nll_weight=0.0,
        select_questions=0,
    )
    return recipe.model_copy(update=changes)


def align_step(folder: Path, model: Path, exams: Sequence[Exam], recipe: Align, **changes: object) -> AlignStep:
    write_rows(folder / "exams.parquet", exams, Exam)
    step = AlignStep(
        name="align",
        weights=weights(model, adapter="adapter"),
        reference="adapter-digest",
        pairs="referenced.parquet",
        exams="exams.parquet",
        exam_max_new_tokens=60,
        recipe=recipe,
        allow=(),
        seed=3,
        machine=MACHINE,
        out="aligned",
    )
    return step.model_copy(update=changes)
