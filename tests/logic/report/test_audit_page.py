"""The audit's figures, its words and its page: complete, escaped, self-contained."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tasks.contracts.rows import Question
from tasks.logic.audit import Source, hear
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.report.audit_page import render_audit
from tasks.logic.report.audit_view import AuditFacts, audit_figures, headline, remarks, verdict
from tasks.logic.report.summary import summary_json
from tasks.logic.sampling import Sampled
from tests.logic.report.test_report_page import Page

PARSE = get_benchmark("strategyqa").parse_teacher_reply
BIRDS = ("heron", "stork", "crane", "egret", "ibis", "bittern", "curlew", "godwit", "plover", "dunlin", "turnstone", "sanderling")
RIVERS = ("Danube", "Volga", "Loire", "Tagus", "Oder", "Shannon", "Tiber", "Ebro", "Rhone", "Thames", "Vistula", "Dnieper")


def question(number: int, split: str) -> Question:
    text = f"Could {BIRDS[number % 12]} {number} outlive {RIVERS[number // 12 % 12]} barge {number * 7919}?"
    answer = "yes" if number % 2 else "no"
    return Question(qid=f"q{number}", split=split, kind="", term="", description="", question=text, answer=answer, facts=(), decomposition=(), entities=())


PARTS = {"hub/train": range(60), "hub/dev": range(60, 80), "hub/test": range(80, 100), "author/train": range(90), "author/dev": range(90, 100)}
NAMED = {part: [question(number, part.split("/")[1]) for number in numbers] for part, numbers in PARTS.items()}


def replies(name: str, says: dict[str, str]) -> Source:
    """A source that says of each question of gold "yes" and "no" what `says` holds."""
    every = [each for part in ("hub/train", "hub/dev", "hub/test") for each in NAMED[part]]
    heard = tuple(hear(each.qid, words=(said := f"So it is. Final answer: {says[each.answer]}."), text=said, parse=PARSE) for each in every)
    return Source(name=name, kind="recorded", heard=heard)


def facts(**changed: Any) -> AuditFacts:
    mixed = replies("mixed", {"yes": "Yes", "no": "No"})
    wrong = replies("always-no", {"yes": "No", "no": "No"})
    fair = replace(mixed, name="fair", heard=(*wrong.heard[:8], *replies("x", {"yes": "Yes", "no": "Yes"}).heard[8:16], *mixed.heard[16:]))
    read = {"train": NAMED["hub/train"][1:], "dev": NAMED["hub/dev"], "test": NAMED["hub/test"]}
    values: dict[str, Any] = {
        "profile": "birds",
        "overrides": {"recipe.seed": 1},
        "benchmark": "strategyqa",
        "named_split": "hub",
        "read": {split: Sampled(questions=list(questions), excluded={"worked example": 1} if split == "train" else {}) for split, questions in read.items()},
        "named": NAMED,
        "exemplars": frozenset({"q0", "q85"}),
        "sources": (wrong, fair, mixed),
        "filters": ({"step": "asked", "yes": 30, "no": 29, "yes_share": 30 / 59}, {"step": "kept", "yes": 12, "no": 29, "yes_share": 12 / 41}),
        "max_shift": 0.02,
        "notes": ("replies.parquet is judged once it is taught.",),
    }
    return AuditFacts(**{**values, **changed})


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return audit_figures(facts())


def page(figures: dict[str, Any], **changed: str) -> str:
    return render_audit(figures, **{"generated_at": "2031-02-03 04:05 UTC", "command": "socratune audit birds", **changed})


def test_teachers_are_judged_on_train_and_dev_only(figures: dict[str, Any]) -> None:
    assert figures["judged"]["questions"] == 59 + 20
    for each in figures["teachers"]:
        assert each["replies"] == 79
        assert each["left_out"] == {"test questions": 19, "worked examples": 2}


def test_every_teacher_has_a_verdict_in_words(figures: dict[str, Any]) -> None:
    wrong, fair, filtered = (verdict(each, figures) for each in figures["teachers"])
    assert (wrong.level, fair.level, filtered.level) == ("fail", "pass", "warn")
    assert "always-no is biased towards no: it says yes 0.0 % of the time where gold has 50.6 %" in wrong.text
    assert "fair is fair" in fair.text
    assert "filtered by gold" in filtered.text
    assert headline(figures).text == "1 of 3 teachers is biased"
    assert headline(audit_figures(facts(sources=facts().sources[1:2]))).text == "The teacher is not biased"
    assert headline(audit_figures(facts(sources=()))).level == "warn"


def test_overlaps_are_told_for_the_file_the_pipeline_and_other_published_splits(figures: dict[str, Any]) -> None:
    assert {(each["left"], each["right"]): each["most"] for each in figures["overlaps_read"]} == {("train", "dev"): 0, ("train", "test"): 0, ("dev", "test"): 0}
    named = {(each["left"], each["right"]): each["same_id"] for each in figures["overlaps_named"]}
    assert named["hub/test", "author/train"] == 10
    assert len(named) == 6  # parts of one published split are not compared here
    said = " ".join(each.text for each in remarks(figures))
    assert "author/train holds 10 of the 20 questions of hub/test" in said
    assert "Worked examples of the recorded prompts that the pipeline reads: 1 in test." in said


def test_a_question_in_two_splits_that_are_read_is_a_failure() -> None:
    read = {"train": Sampled(questions=NAMED["hub/train"], excluded={}), "test": Sampled(questions=[question(3, "test")], excluded={})}
    made = audit_figures(facts(read=read, named={}, sources=()))
    first = remarks(made)[0]
    assert (first.level, first.text) == ("fail", "Questions that the pipeline reads in two splits: 1. Take one side out of the question file.")


def test_the_figures_are_strict_json(figures: dict[str, Any]) -> None:
    assert json.loads(summary_json(figures), parse_constant=pytest.fail) == figures


def test_the_page_is_well_formed_asks_nobody_and_shows_everything(figures: dict[str, Any]) -> None:
    text = page(figures)
    read = Page(text)
    assert read.heading == "1 of 3 teachers is biased"
    assert {target.removeprefix("#") for target in read.targets} <= set(read.ids)
    assert read.addresses == ["data:,"]
    assert not {"script", "img", "iframe"} & set(read.tags)
    assert "https://" not in text
    assert [part for part in ("always-no", "q85", "12 yes, 29 no: 29.3 % ✗", "author train (90)", "is judged once it is taught") if part not in text] == []
    assert text.count('<polyline class="curve') == 1 + 2  # the corpus, and the teachers that were not filtered


def test_an_audit_of_questions_alone_still_renders() -> None:
    text = page(audit_figures(facts(sources=(), filters=(), named={}, named_split=None, exemplars=frozenset(), notes=())))
    Page(text)
    assert "No reply is recorded or stored" in text
    assert "No curated corpus is stored" in text


def test_text_from_outside_is_shown_and_never_run() -> None:
    nasty = "</pre><script>alert(1)</script>"
    bad = replace(NAMED["hub/test"][0], qid="bad", question=nasty)
    read = {"train": Sampled(questions=[bad], excluded={}), "test": Sampled(questions=[replace(bad, qid="worse")], excluded={})}
    text = page(audit_figures(facts(read=read, named={}, sources=(), notes=(nasty,))), command=nasty)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 4  # twice in the pair found, a note, the command
    Page(text)
