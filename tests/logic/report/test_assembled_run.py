"""From artifact records and rows to the summary and the view: experiments find their place, and every graded question its draft, teacher and answers."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from tasks.contracts.profiles import load_profile
from tasks.contracts.rows import Prediction, Score, TokenShare
from tasks.logic.report.assemble import run_summary, run_view
from tasks.logic.report.facts import Made, RunFacts
from tasks.logic.report.render import render_report
from tasks.logic.report.slides import run_slides
from tasks.logic.report.tables import render_markdown_tables
from tasks.logic.report.words import percent, statements
from tasks.logic.scores import compare, score
from tests.logic.report.sample_experiments import attribution, draft_record, judge, judgements, token_shares
from tests.logic.report.sample_run import EXPERIMENTS, MODELS, PROFILES
from tests.logic.rows_of import drafted, questions, taught

GRADED = questions(6, split="dev")


def answers(model: str, arm: str) -> list[Prediction]:
    return [
        Prediction(
            qid=row.qid, split="dev", kind=row.kind, model=model, arm=arm, question=row.question, answer=row.answer, verdict="yes", text="Final answer: Yes",
            tokens=4, cut=False, margin=0.4 if arm == "direct" else math.nan, reason="",
        )
        for row in GRADED
    ]  # fmt: skip


def made(name: str, summary: dict[str, Any], *, stage: str = "", seconds: float = 1.0) -> Made:
    record = {"stage": stage or name.split()[0], "seconds": seconds, "rows": 6, "digest": "ab" * 32, "packages": {"torch": "2"}, "summary": summary}
    return Made(name=name, path=f"data/{name.split()[0]}/0c0ffee1", record=record, cached=False)


def records(*, draft: dict[str, Any] | None, preferred: bool) -> list[Made]:
    history = [{"step": step, "loss": 1.0 / step, "a": -0.1, "b": -0.5, "gap": 0.4} for step in (1, 2, 3)]
    selection = [{"epoch": epoch, "correct": 3, "yes": 6 - epoch, "unparsed": 0, "n": 6} for epoch in range(3)]
    aligned = {"history": history, "selection": selection, "kept_epoch": 1, "alarms": []}
    rows = {name: answers(name, "reasoning" if name in ("track_b", "aligned") else "direct") for name in MODELS}
    compared = [asdict(compare("track_b_vs_track_a", rows["track_b"], rows["track_a"], resamples=50, seed=0))]
    usage = dict.fromkeys(("calls", "cached", "retries", "reasks", "failed", "tokens_in", "tokens_out"), 1) | {"usd": 0.5}
    cost = {"cost": {"direct": {"ms_per_question": 2.0, "tokens_per_question": 0.0}, "reasoning": {"ms_per_question": 20.0, "tokens_per_question": 40.0}}}
    return [
        made("student smollm2-135m-instruct", {"pinned": True, "commit": "", "prompt_date": ""}),
        made("sample dev", {"excluded": {}}),
        made("draft dev", {}),
        made("teach", {"usage": usage}),
        made("curate", {"filters": [{"step": "asked", "yes": 3, "no": 3}], "rows": 6}),
        made("finetune track_b", {"history": history}),
        made("pair", {"turned_away": {}}),
        made("align", aligned, stage="align" if preferred else "finetune"),
        *(made(f"predict {name}/dev", cost) for name in MODELS),
        made("grade", {"comparisons": compared, "calibration": {}, "draft": draft}),
    ]


def facts(*, draft: dict[str, Any] | None = None, preferred: bool = True, extra: tuple[Made, ...] = (), cells: tuple[Score, ...] = (), **rows: Any) -> RunFacts:
    read = [answers(name, arm) for name in MODELS for arm in ("direct", "reasoning")]
    return RunFacts(
        profile=load_profile("demo", folder=PROFILES, overrides=EXPERIMENTS),
        overrides={},
        artifacts=(*records(draft=draft, preferred=preferred), *extra),
        scores=(*(score(each) for each in read), *cells),
        graded=tuple(drafted(row, draft="Yes. Who?", asked=("Who?",)) for row in GRADED),
        taught=tuple(replace(taught(GRADED[2]), sample=sample, reply=f"teacher's sample {sample}") for sample in (0, 1)),
        predictions=tuple(row for each in read for row in each),
        attributed=rows.get("attributed", ()),
        judged=rows.get("judged", ()),
        test_reads=(),
        accepted="",
        generated_at="2031-02-03 04:05 UTC",
    )


def test_every_graded_question_has_its_draft_its_teacher_and_all_headline_answers() -> None:
    known = facts()
    view = run_view(known, run_summary(known))
    assert sorted(item.qid for item in view.transcripts) == sorted(row.qid for row in GRADED)
    by_id = {item.qid: item for item in view.transcripts}
    assert by_id[GRADED[2].qid].teacher == "teacher's sample 0"
    assert {item.teacher for item in view.transcripts if item.qid != GRADED[2].qid} == {""}
    for row in GRADED:
        item = by_id[row.qid]
        assert (item.draft, item.asked, item.facts) == ("Yes. Who?", ("Who?",), row.facts)
        assert [(reply.model, reply.right) for reply in item.replies] == [(name, row.answer == "yes") for name in MODELS]
    assert {name: sum(each.n for each in bins) for name, bins in view.reliability.items()} == dict.fromkeys(MODELS, 6)
    assert [(row.epoch, row.yes) for row in view.selection] == [(0, 6), (1, 5), (2, 4)]
    assert len(view.preference_loss) == len(view.margins) == 3


def test_experiments_come_from_their_records_and_leave_the_result_table_alone() -> None:
    record, cells = draft_record()
    extra = (made("attribute", {"evidence": attribution()}), made("judge", {"evidence": judge()}))
    known = facts(draft=record, cells=tuple(cells), extra=extra, attributed=token_shares(), judged=judgements())
    summary = run_summary(known)
    assert (summary["attribution"], summary["judge"]) == (attribution(), judge())
    assert summary["draft"]["verdict"] == "pass"
    assert list(summary["models"]["aligned"]["arms"]) == ["direct", "reasoning", "rewrite"]
    assert "aligned_no_draft" not in summary["controls"]
    page = render_report(run_view(known, summary))
    assert all(f'<section id="{name}">' in page for name in ("draft", "attribution", "judge"))
    assert all(f'href="#artifact-{name}-0c0ffee1"' in page for name in ("attribute", "judge"))


def test_what_a_run_did_not_ask_for_is_not_in_its_page() -> None:
    known = facts()
    summary = run_summary(known)
    assert (summary["draft"], summary["attribution"], summary["judge"]) == (None, None, None)
    page = render_report(run_view(known, summary))
    assert not any(f'<section id="{name}">' in page or f'href="#{name}"' in page for name in ("draft", "attribution", "judge"))


def test_a_model_that_was_not_aligned_shows_no_preference_training() -> None:
    known = facts(preferred=False)
    view = run_view(known, run_summary(known))
    assert (view.preference_loss, view.margins, view.selection) == ((), (), ())
    assert any("the aligned model is Track B itself" in note for note in view.notes)


def test_a_model_under_two_names_is_said_to_be_one_and_a_few_pairs_are_told() -> None:
    known = facts()
    twins = [made(f"finetune {name}", {"history": []}) for name in ("track_a", "track_a_matched")]  # at one place: one artifact
    aligned = known.named("align")
    start = replace(aligned, record={**aligned.record, "summary": {**aligned.summary, "kept_epoch": 0, "pairs": 4}})
    kept = [start if each is aligned else each for each in known.artifacts]
    once = replace(
        known, artifacts=(*twins, *kept), predictions=tuple(row for row in known.predictions if row.model != "track_a_matched"),
        scores=tuple(cell for cell in known.scores if cell.model != "track_a_matched"),
    )  # fmt: skip
    summary = run_summary(once)
    assert summary["same_as"] == {"track_a_matched": "track_a", "aligned": "track_b"}
    shown = render_markdown_tables(summary)["results"]
    page = render_report(run_view(once, summary))
    for words in ("(as many steps as B)", "(= Track B)", "the aligned model is Track B itself", "only 4 pairs"):
        assert words in shown
        assert words in page
    assert "track_a_matched" not in summary["models"]
    assert run_slides(run_view(once, summary)).slides


def test_figures_quoted_with_a_comparison_are_of_the_questions_compared() -> None:
    rows = answers("track_b", "direct")
    wrong = [replace(row, verdict="yes" if row.answer == "no" else "no") for row in rows[:2]]
    each = compare("aligned_vs_track_b", rows[:2], wrong, resamples=50, seed=0)
    assert (each.right, each.right - each.difference) == (0.5, 0.0)
    said = statements({"comparisons": [asdict(each)], **{name: run_summary(facts())[name] for name in ("models", "controls")}})[0].evidence
    assert f"{percent(0.5)} against {percent(0.0)} right on the 2 questions that both answered" in said


@pytest.mark.parametrize("nasty", ["</script><script>x</script>", "<img src=x>", "]]>&amp;"])
def test_tokens_and_judged_questions_are_escaped(nasty: str) -> None:
    token = TokenShare(qid=nasty, model="aligned", draft="own", place=0, token=nasty, role="question", attribution=1.0)
    extra = (made("attribute", {"evidence": attribution()}), made("judge", {"evidence": judge()}))
    judged = (replace(judgements()[0], question=nasty, new=(nasty,)),)
    known = facts(extra=extra, attributed=(token,), judged=judged)
    page = render_report(run_view(known, run_summary(known)))
    assert page.count("<script") == 2
    assert nasty not in page
