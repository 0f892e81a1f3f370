"""What students are asked, and how their replies become predictions. Scoring uses the very prompts that training used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from tasks.contracts.rows import Arm, Completion, Drafted, Exam, Prediction, Question, Request, Verdict
from tasks.logic.ablations import ablated
from tasks.logic.benchmarks import Benchmark


def draft_requests(questions: Sequence[Question], *, benchmark: Benchmark) -> list[Request]:
    """One drafting request a question."""
    return [
        Request(qid=row.qid, arm="draft", sample=0, prompt=benchmark.draft_prompt(row.question), prefix=benchmark.draft_prefix, yes_choices=(), no_choices=())
        for row in questions
    ]


def drafted(questions: Sequence[Question], completions: Sequence[Completion], *, benchmark: Benchmark, drafter: str) -> list[Drafted]:
    """Questions with the drafter's text, its verdict and its clarifying questions; `drafter` is the model's digest."""
    rows = []
    for question, completion in zip(questions, completions, strict=True):
        said = benchmark.own_draft(completion.text)
        parsed = benchmark.parse_draft(said)
        values = {name: getattr(question, name) for name in Question.__dataclass_fields__}
        rows.append(Drafted(**values, draft=said, draft_verdict=parsed.verdict, draft_questions=parsed.questions, drafter=drafter))
    return rows


def greedy_requests(rows: Sequence[Drafted], *, arm: str, benchmark: Benchmark, seed: int) -> tuple[list[Request], dict[str, int]]:
    """Requests of an arm that is answered once, under the draft that it shows; and what of the drafts could not be changed as intended, by reason."""
    shown = ablated(rows, arm=arm, benchmark=benchmark, seed=seed)
    return [replace(request, arm=arm) for request in arm_requests(shown.rows, arm=shown.prompt, benchmark=benchmark)], shown.unmatched


def arm_requests(rows: Sequence[Drafted], *, arm: Arm, benchmark: Benchmark, samples: int = 1) -> list[Request]:
    """Requests of one arm: the direct arm scores both answers after its prefix, the others generate `samples` times."""
    direct = arm is Arm.DIRECT
    return [
        Request(
            qid=row.qid,
            arm=arm,
            sample=sample,
            prompt=benchmark.prompt(arm, row),
            prefix=benchmark.direct_prefix if direct else "",
            yes_choices=benchmark.yes_choices if direct else (),
            no_choices=benchmark.no_choices if direct else (),
        )
        for row in rows
        for sample in range(samples)
    ]


def exams(rows: Sequence[Drafted], *, arm: Arm, benchmark: Benchmark) -> list[Exam]:
    """Requests with their gold answers, by which alignment chooses its epoch. An arm made of reasoning chains is examined by one greedy chain."""
    arm = arm if arm in (Arm.DIRECT, Arm.REASONING, Arm.REWRITE, Arm.NO_DRAFT) else Arm.REASONING
    answers = {row.qid: row.answer for row in rows}
    return [Exam(**asdict(request), answer=answers[request.qid]) for request in arm_requests(rows, arm=arm, benchmark=benchmark)]


def predictions(rows: Sequence[Drafted], completions: Sequence[Completion], *, model: str, benchmark: Benchmark) -> list[Prediction]:
    """Completions with their verdicts, beside gold. A reply without a verdict says why."""
    by_qid = {row.qid: row for row in rows}
    return [prediction(by_qid[completion.qid], completion, model=model, benchmark=benchmark) for completion in completions]


def settled(made: Sequence[Prediction], *, unparsed: str) -> list[Prediction]:
    """Predictions with what a text without a verdict counts as: "wrong" leaves it unparsed, "as_no" makes it a no and keeps the reason."""
    return [replace(row, verdict=Verdict.NO) if unparsed == "as_no" and row.verdict == Verdict.UNPARSED else row for row in made]


def prediction(row: Drafted, completion: Completion, *, model: str, benchmark: Benchmark) -> Prediction:
    """One completion with its verdict, beside gold."""
    verdict = benchmark.parse(completion.text, cut=completion.cut)
    reason = "" if verdict is not Verdict.UNPARSED else ("stopped by the token limit" if completion.cut else "no verdict in the text")
    return Prediction(
        qid=row.qid,
        split=row.split,
        kind=row.kind,
        model=model,
        arm=completion.arm,
        question=row.question,
        answer=row.answer,
        verdict=verdict,
        text=completion.text,
        tokens=completion.tokens,
        cut=completion.cut,
        margin=completion.margin,
        reason=reason,
    )
