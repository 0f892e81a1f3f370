"""Replaying recordings: what matches, what is missing, which line is bad."""

import json

import pytest

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Outcome
from tasks.gateways.recorded_teacher import RecordedTeacher, read_recordings
from tests.gateways.bench import ask_for, questions


def _write(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def _row(question, answer="yes", **more):
    return {"qid": question.qid, "question": question.question, "reasoning": f"It follows for {question.qid}.", "answer": answer, **more}


async def test_a_recording_answers_without_key_or_network_and_lacks_are_failed_rows(bench, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    known, negative, silent, unknown = questions(4)
    path = _write(tmp_path / "r.jsonl", [_row(known, True), "", _row(negative, "no"), _row(silent, None)])
    wanted = [ask_for(question) for question in (known, negative, silent, unknown)] + [ask_for(known, hinted=True), ask_for(known, sample=1)]
    bench.budget = 1.0
    answers, usage = await bench.ask(wanted, teacher=RecordedTeacher([path], settings=bench.settings))
    assert [answer.outcome for answer in answers] == [Outcome.OK, Outcome.OK, Outcome.UNPARSED, Outcome.FAILED, Outcome.FAILED, Outcome.FAILED]
    assert answers[0].text == f"It follows for {known.qid}.\nFinal answer: Yes"
    assert answers[1].text.endswith("Final answer: No")
    assert {answer.note for answer in answers[3:]} == {"not in the recordings"}
    assert (usage.calls, usage.failed, usage.usd) == (3, 3, 0.0)
    again, second = await bench.ask(wanted, teacher=RecordedTeacher([path], settings=bench.settings))
    assert (again, second.calls, second.cached) == (answers, 0, 3)


async def test_a_changed_recording_is_another_source(bench, tmp_path):
    (question,) = questions(1)
    path = _write(tmp_path / "r.jsonl", [_row(question, "yes")])
    await bench.ask([ask_for(question)], teacher=RecordedTeacher([path], settings=bench.settings))
    _write(path, [_row(question, "no")])
    (answer,), usage = await bench.ask([ask_for(question)], teacher=RecordedTeacher([path], settings=bench.settings))
    assert usage.calls == 1
    assert answer.text.endswith("No")


def test_a_byte_order_mark_and_what_no_text_holds_are_left_out(tmp_path):
    (question,) = questions(1)
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(_row(question) | {"reasoning": "It\ud800 fol\x00lows.\x07"}), encoding="utf-8-sig")
    (recording,) = read_recordings([path]).values()
    assert recording.reasoning == "It? follows."


def test_several_files_are_several_samples(tmp_path):
    (question,) = questions(1)
    first, second = _write(tmp_path / "a", [_row(question)]), _write(tmp_path / "b", [_row(question), _row(question, sample=4)])
    assert set(read_recordings([first, second])) == {(question.qid, 0), (question.qid, 1), (question.qid, 4)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "must be an object"),
        ('{"reasoning": "r", "answer": "yes"}', "qid"),
        ('{"qid": "q", "answer": "yes"}', "reasoning"),
        ('{"qid": "q", "reasoning": "r", "answer": "maybe"}', "'maybe'"),
        ('{"qid": "q", "reasoning": "r", "answer": 1}', "not 1"),
        ('{"qid": "q", "reasoning": "r", "answer": ["yes"]}', "answer"),
        ('{"qid": "q", "reasoning": "r", "answer": "yes", "sample": -1}', "sample"),
        ('{"qid": "a", "reasoning": "r", "answer": "yes"}', "recorded before"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = _write(tmp_path / "r.jsonl", ['{"qid": "a", "reasoning": "r", "answer": "yes"}', line])
    with pytest.raises(DataError, match=rf"r\.jsonl, line 2.*{said}"):
        read_recordings([path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl.*recipe\.teacher\.recordings"):
        read_recordings([tmp_path / "none.jsonl"])
