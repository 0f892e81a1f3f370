"""Parts of a prompt, masses and what they prove: properties that hold for any text, and verdicts on planted attributions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.rows import Arm, Attributed, TokenShare
from tasks.logic.attribution import CONTENT, attributables, attribution_evidence, chain_parts, prompt_parts, shares
from tests.logic.rows_of import BENCHMARK, completion, drafted, questions

DRAFT = "Questions: When did Caesar die? Was it no later than 1876?\nAnswer: Yes or so"
ASKED = ("When did Caesar die?", "Was it no later than 1876?")


def by_role(parts):
    return [(part.role, part.text) for part in parts]


def test_a_prompt_is_cut_at_its_question_and_at_what_the_draft_asks_and_says():
    row = drafted(questions(1)[0], draft=DRAFT, verdict="yes", asked=ASKED)
    parts = by_role(prompt_parts(row, benchmark=BENCHMARK))
    assert parts[1] == ("question", row.question)
    assert parts[3:-1] == [
        ("draft_other", "Questions: "), ("draft_questions", ASKED[0]), ("draft_other", " "), ("draft_questions", ASKED[1]),
        ("draft_other", " Answer: "), ("draft_verdict", "Yes"), ("draft_other", " or so"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("draft", "verdict", "asked", "word"),
    [
        ("Answer: No", "no", (), "No"),
        ("No doubt it is so.\nAnswer: no, it is not", "no", (), "no"),
        ("I would say yes", "yes", (), "yes"),
        ("Is there no other? Hm", "unparsed", ("Is there no other?",), None),
        ("Is there no other? It is so.", "yes", ("Is there no other?",), None),
        ("", "unparsed", (), None),
    ],
)
def test_the_word_of_the_verdict_is_found_outside_the_questions(draft, verdict, asked, word):
    parts = prompt_parts(drafted(questions(1)[0], draft=draft, verdict=verdict, asked=asked), benchmark=BENCHMARK)
    assert [part.text for part in parts if part.role == "draft_verdict"] == ([word] if word else [])


@given(draft=st.text(max_size=80), asked=st.lists(st.text(min_size=1, max_size=20), max_size=2), verdict=st.sampled_from(["yes", "no", "unparsed"]))
def test_parts_are_the_prompt_whatever_the_draft(draft, asked, verdict):
    row = drafted(questions(1)[0], draft=draft + "".join(asked), verdict=verdict, asked=tuple(asked))
    parts = prompt_parts(row, benchmark=BENCHMARK)
    assert "".join(part.text for part in parts) == BENCHMARK.prompt(Arm.REWRITE, row)
    assert all(part.text for part in parts)
    assert "".join(part.text for part in parts if part.role == "question") == row.question


@given(text=st.text(max_size=80))
def test_a_chain_ends_with_its_label_and_only_the_label_is_template(text):
    parts = chain_parts(text, benchmark=BENCHMARK)
    assert "".join(part.text for part in parts) == BENCHMARK.before_verdict(text)
    assert [part.text for part in parts if part.role == "template"] == ["Final answer:"]


def token(qid, role, value, *, model="aligned", draft="own", place=0):
    return TokenShare(qid=qid, model=model, draft=draft, place=place, token="x", role=role, attribution=value)


@given(values=st.lists(st.tuples(st.sampled_from(CONTENT), st.floats(-9, 9)), max_size=30))
def test_masses_are_shares(values):
    rows = [token("q", role, value) for role, value in [("question", 0.0), ("draft_other", 0.0), *values]]
    found = shares(rows)
    assert 0 <= found.verdict_mass + found.questions_mass <= found.mass + 1e-9 <= 1 + 2e-9
    assert 0 < found.token_share < 1
    assert found.enrichment >= 0
    flipped = shares([token("q", each.role, -each.attribution) for each in rows])
    assert flipped == found


def evidence(n, *, before, after, shuffled=(3.0, 1.0), broken=()):
    """Each side: attribution on each of two question tokens and on each of two draft tokens; the question's own number moves it a little."""
    sides = {("track_b", "own"): before, ("aligned", "own"): after, ("aligned", "shuffled"): shuffled}
    texts, tokens = [], []
    for (model, draft), (question, drafted_) in sides.items():
        for number in range(n):
            bad = (model, draft, number) in broken
            texts.append(
                Attributed(
                    qid=f"q{number}", model=model, draft=draft, said="yes", change=2.0, error=0.3 if bad else 0.01, points=33, complete=not bad, masked=1.0
                )
            )
            shift = 0.05 * (-1) ** number
            pairs = [("question", question), ("question", question), ("draft_verdict", drafted_ + shift), ("draft_questions", drafted_)]
            tokens += [token(f"q{number}", role, value, model=model, draft=draft, place=place) for place, (role, value) in enumerate(pairs)]
    return attribution_evidence(texts, tokens, questions=n, before="track_b", after="aligned", resamples=500, seed=1)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((2.0, 1.0), (1.0, 2.0), "pass"),  # more than before, and enough
        ((1.0, 2.0), (2.0, 1.0), "fail"),  # less than before
        ((9.9, 0.1), (9.0, 1.0), "fail"),  # more than before, but a tenth
        ((1.0, 1.0), (1.0, 1.0), "underpowered"),
    ],
)
def test_the_verdict_follows_what_was_planted(before, after, verdict):
    found = evidence(20, before=before, after=after)
    assert found.verdict == verdict
    assert found.masses["aligned"].token_share == 0.5
    assert found.masses["aligned"].mass == pytest.approx(after[1] / sum(after), abs=0.02)
    assert found.masses["aligned"].enrichment == pytest.approx(2 * found.masses["aligned"].mass)
    assert found.masses["aligned"].masked == 1.0
    assert found.within_tolerance == 1.0


def test_texts_that_do_not_add_up_are_left_out_of_masses_and_pairs_and_counted():
    broken = {("aligned", "own", 0), ("track_b", "own", 1), ("track_b", "own", 2)}
    found = evidence(6, before=(2.0, 1.0), after=(1.0, 2.0), broken=broken)
    assert found.excluded == {"track_b": 2, "aligned": 1, "aligned_shuffled": 0}
    assert found.within_tolerance == pytest.approx(15 / 18)
    assert (found.masses["track_b"].n, found.masses["aligned"].n) == (4, 5)
    assert (found.median_error, found.worst_error, found.median_points) == (0.01, 0.3, 33.0)


@pytest.mark.parametrize("n", [0, 1])
def test_one_question_or_none_proves_nothing(n):
    found = evidence(n, before=(2.0, 1.0), after=(1.0, 2.0))
    assert found.verdict == "underpowered"
    assert len(found.masses) == 3 * n


def test_texts_carry_prompt_and_chain_of_the_same_question():
    rows = [drafted(row, draft=DRAFT, asked=ASKED) for row in questions(2)]
    made = attributables(rows, [completion(row, f"{row.qid} it is.\nFinal answer: No") for row in rows], model="m", draft="own", benchmark=BENCHMARK)
    for text, row in zip(made, rows, strict=True):
        assert "".join(text.prompt) == BENCHMARK.prompt(Arm.REWRITE, row)
        assert "".join(text.prefix) == f"{row.qid} it is.\nFinal answer:"
        assert len(text.prompt) == len(text.prompt_roles)
