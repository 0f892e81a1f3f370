"""Made-up experiments on learning by asking, beside the made-up run: a draft family, an attribution, a judge, and hundreds of questions to browse."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

from tasks.contracts.evidence import AttributionEvidence, Gain, JudgeEvidence, Mass
from tasks.contracts.rows import Judgement, Score, TokenShare
from tasks.logic.report.experiments import draft_summary
from tasks.logic.report.view import ModelReply, ReportView, Transcript
from tasks.logic.scores import Comparison, compare, holm, score
from tests.logic.report.sample_run import predictions, sample_summary, sample_view

ARMS = {
    "rewrite": 0.86,
    "no_draft": 0.7,
    "shuffled_draft_1": 0.66,
    "shuffled_draft_2": 0.7,
    "neutral_draft": 0.71,
    "draft_questions": 0.84,
    "draft_verdict": 0.69,
}
PAIRS = {
    "full_draft_vs_no_draft": "no_draft",
    "full_draft_vs_shuffled_draft": "shuffled_draft_1",
    "full_draft_vs_neutral_draft": "neutral_draft",
    "full_draft_vs_aligned_no_draft": "twin",
}


def draft_record(verdict: str = "pass", *, confounded: bool = False) -> tuple[dict[str, Any], list[Score]]:
    """What the grade stage records of the draft family, and its cells."""
    read = {arm: predictions("aligned", arm, right) for arm, right in ARMS.items()} | {"twin": predictions("aligned_no_draft", "no_draft", 0.76)}
    compared: list[Comparison] = [
        compare(name, read["rewrite"], read[other], resamples=300, seed=0, claim=0.03 if other == "twin" else 0.0)
        for name, other in PAIRS.items()
        if not (confounded and other == "twin")
    ]
    compared.append(compare("draft_questions_vs_draft_verdict", read["draft_questions"], read["draft_verdict"], resamples=300, seed=0))
    record = {"verdict": verdict, "confounded": confounded, "comparisons": [asdict(each) for each in holm(compared)], "unmatched": 0}
    return record, [score(rows) for rows in read.values()]


def draft(verdict: str = "pass", *, confounded: bool = False) -> dict[str, Any] | None:
    """summary.json's `draft`."""
    record, scores = draft_record(verdict, confounded=confounded)
    return draft_summary(record, scores, split="dev")


def mass(enrichment: float, *, n: int = 196) -> Mass:
    return Mass(
        n=n, mass=0.38 * enrichment, token_share=0.38, enrichment=enrichment, verdict_mass=0.07, verdict_share=0.02, questions_mass=0.31,
        questions_share=0.29, masked=0.84,
    )  # fmt: skip


def attribution(verdict: str = "pass", *, enrichment: float = 1.34, own: str = "pass") -> dict[str, Any]:
    """summary.json's `attribution`."""
    gain = Gain(difference=enrichment - 1.02, ci_low=enrichment - 1.12, ci_high=enrichment - 0.9, verdict=verdict)
    return asdict(
        AttributionEvidence(
            questions=200, excluded={"track_b": 4, "aligned": 2, "aligned_shuffled": 0}, within_tolerance=0.985, median_error=0.012, worst_error=0.081,
            median_points=128.0, masses={"track_b": mass(1.02), "aligned": mass(enrichment), "aligned_shuffled": mass(0.9)}, enrichment_gain=gain,
            shuffled_gain=Gain(difference=0.44, ci_low=0.3, ci_high=0.57, verdict=own), verdict=verdict,
        )
    )  # fmt: skip


def judge(verdict: str = "underpowered", *, usable: bool = True) -> dict[str, Any]:
    """summary.json's `judge`."""
    return asdict(
        JudgeEvidence(
            judge="simulated-judge", prompt="5a" * 32, n=240, wins=92, ties=80, losses=68, unparsed=3, net=0.1, ci_low=-0.002, ci_high=0.2,
            inconsistent=0.21 if usable else 0.41, usable=usable, words=2.4, net_at_equal_length=0.06, verdict=verdict, human_n=50, kappa=0.61,
            kappa_low=0.41, kappa_high=0.8,
        )
    )  # fmt: skip


def token_shares() -> tuple[TokenShare, ...]:
    """Two questions as three readings see them."""
    parts = [
        ("template", "Question: "),
        ("question", "Could Julius Caesar have used a telephone?"),
        ("template", "\nDraft: "),
        ("draft_verdict", "No."),
        ("draft_questions", " When did Julius Caesar die? When was the telephone invented?"),
        ("template", "\nRewrite it.\n"),
        ("chain", "Q: When did Julius Caesar die? A: 44 BC. 44 BC is before 1876."),
    ]
    wave = random.Random(11)
    rows = []
    for qid in ("pq-0", "pq-1"):
        for model, draft in (("track_b", "own"), ("aligned", "own"), ("aligned", "shuffled")):
            tokens = [(role, piece) for role, text in parts for piece in text.replace(" ", "\0 ").split("\0") if piece]
            rows += [
                TokenShare(
                    qid=qid, model=model, draft=draft, place=place, token=token, role=role,
                    attribution=0.0 if role in ("template", "chain") else wave.gauss(0.15 if role.startswith("draft") else 0.02, 0.25),
                )
                for place, (role, token) in enumerate(tokens)
            ]  # fmt: skip
    return tuple(rows)


def judgements() -> tuple[Judgement, ...]:
    new, old = ("When did Julius Caesar die?", "When was the telephone invented?"), ("Who was Caesar?",)
    return tuple(
        Judgement(
            qid=f"pq-{winner}", question="Could Julius Caesar have used a telephone?", new=new, old=old, first=winner, second=winner, winner=winner, judge="j"
        )
        for winner in ("new", "tie", "old")
    )


def many_transcripts(n: int = 687) -> tuple[Transcript, ...]:
    """Questions that differ in words, facts and who is right."""
    chance = random.Random(5)
    things = ("telephone", "steam engine", "printing press", "microscope", "bicycle", "thermometer", "submarine")
    people = ("Julius Caesar", "Marie Curie", "Confucius", "Galileo Galilei", "Cleopatra", "Isaac Newton")
    made = []
    for number in range(n):
        thing, person = things[number % 7], people[number % 6]
        gold = "yes" if number % 2 else "no"
        chain = f"Q: When did {person} die? A: Long ago.\nQ: When was the {thing} invented? A: Later.\nSo the answer follows.\nFinal answer: "
        replies = []
        for model, arm, right in (("track_a", "direct", 0.55), ("track_b", "reasoning", 0.88), ("aligned", "reasoning", 0.885)):
            if model == "aligned" and number % 3 == 0:
                continue  # read on fewer questions
            hit = chance.random() < right
            verdict = gold if hit else "unparsed" if chance.random() < 0.1 else "no" if gold == "yes" else "yes"
            replies.append(ModelReply(model=model, arm=arm, text=(chain if arm == "reasoning" else "") + verdict, verdict=verdict, right=hit))
        facts = (f"{person} died.", f"The {thing} came later.")
        teacher = "" if number % 4 else f"The {thing} came long after {person}."
        made.append(
            Transcript(
                qid=f"pq-{number}", question=f"Could {person} have used a {thing} in case {number}?", gold=gold, facts=facts,
                draft=f"Yes. When did {person} die?", asked=(f"When did {person} die?",), teacher=teacher,
                replies=tuple(replies),
            )
        )  # fmt: skip
    return tuple(made)


def full_summary(**replaced: Any) -> dict[str, Any]:
    """summary.json with every experiment."""
    values: dict[str, Any] = {"draft": draft(), "attribution": attribution(), "judge": judge()}
    return sample_summary(**{**values, **replaced})


def full_view(**replaced: Any) -> ReportView:
    """A report with every section."""
    values: dict[str, Any] = {"attributed": token_shares(), "judged": judgements(), "transcripts": many_transcripts()}
    return sample_view(full_summary(), **{**values, **replaced})
