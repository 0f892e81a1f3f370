from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.recipes import PairRecipe
from tasks.contracts.rounds import Attempt
from tasks.contracts.rows import Arm, Curated, Pair
from tasks.logic.round_pairs import fresh_pairs, paired, round_pairs, that_fit, with_replay
from tests.logic.rows_of import BENCHMARK, curated, questions

RECIPE = PairRecipe(arms=("reasoning",), samples=2, temperature=0.8, max_new_tokens=99, max_length_ratio=1.3, per_question=2)
CORPUS = [curated(row) for row in questions(24)]
YES, NO = (next(row for row in CORPUS if row.answer == answer) for answer in ("yes", "no"))


def opposite(verdict: str) -> str:
    return {"yes": "no", "no": "yes"}.get(verdict, verdict)


def chain(row: Curated, verdict: str, *, fact: str = "", words: str = "") -> str:
    answered = (fact, *row.answered[1:]) if fact else row.answered
    return BENCHMARK.completion(asked=row.asked, answered=answered, reasoning=f"{row.reasoning} {words}", answer=verdict)


def attempt(row: Curated, text: str, *, sample: int = 0, valid: bool = True) -> Attempt:
    verdict = BENCHMARK.parse(text, cut=False)
    return Attempt(
        qid=row.qid, split="train", sample=sample, text=text, tokens=20, cut=False, answer=row.answer, verdict=verdict, after=0.9, elsewhere=0.1, valid=valid
    )


def build(attempts: list[Attempt], *, most: float = 1.0, corpus: list[Curated] = CORPUS, seed: int = 0, **changes: object):
    recipe = RECIPE.model_copy(update=changes)
    return round_pairs(
        attempts, drafted=CORPUS, curated=corpus, arm=Arm.REASONING, recipe=recipe, max_similarity=most, benchmark=BENCHMARK, seed=seed
    )  # fmt: skip


def both(*, valid: bool = True, fact: str = "") -> list[Attempt]:
    """A right and a wrong sample of one question of each class."""
    rows = (YES, NO)
    right = [attempt(row, chain(row, row.answer, fact=fact, words="Mine"), valid=valid) for row in rows]
    return [*right, *(attempt(row, chain(row, opposite(row.answer)), sample=1) for row in rows)]


def test_an_own_right_and_valid_sample_is_chosen_over_an_own_wrong_one() -> None:
    made = build(both()).pairs
    assert [(pair.chosen_source, pair.answer, pair.disagreement) for pair in made] == [("own", "yes", 0.0), ("own", "no", 0.0)]
    assert all("Mine" in pair.chosen and "Mine" not in pair.rejected for pair in made)


def test_a_sample_with_the_teachers_facts_is_preferred_and_one_without_is_taken_where_there_is_no_other() -> None:
    astray = both(fact="It was so in 1999.")
    assert [("1999" in pair.chosen, pair.chosen_source) for pair in build(astray).pairs] == [(True, "own")] * 2
    assert not [pair for pair in build([*astray, *both()]).pairs if "1999" in pair.chosen]


def test_without_a_valid_sample_the_teachers_chain_is_chosen_where_its_verdict_is_gold() -> None:
    assert [(pair.chosen_source, pair.chosen) for pair in build(both(valid=False)).pairs] == [("teacher", chain(row, row.answer)) for row in (YES, NO)]
    for changes in ({"verdict": "unparsed"}, {"reasoning": ""}):
        made = build(both(valid=False), corpus=[replace(row, **changes) for row in CORPUS])
        assert made.pairs == []
        assert made.turned_away == {"questions without a chain to follow": 2}


def test_a_question_that_nobody_curated_needs_samples_of_its_own() -> None:
    assert build(both(valid=False), corpus=[]).pairs == []
    assert len(build(both(), corpus=[]).pairs) == 2


@pytest.mark.parametrize(
    ("reason", "setting"),
    [("sides too much alike", {"most": 0.5}), ("lengths too far apart", {"max_length_ratio": 1.0})],
)
def test_pairs_that_teach_nothing_but_a_word_or_a_length_are_turned_away(reason: str, setting: dict[str, float]) -> None:
    made = build(both(), **setting)
    assert made.pairs == []
    assert made.turned_away == {reason: 2}


def test_where_the_best_text_does_not_fit_the_next_one_is_tried() -> None:
    long = [attempt(row, chain(row, row.answer, words="on and " * 60)) for row in (YES, NO)]
    assert not [pair for pair in build([*long, *both()]).pairs if "on and" in pair.chosen]
    assert len(build([*long, *both()]).pairs) == 2


def test_a_wrong_text_counts_once_and_a_question_gives_no_more_than_its_share() -> None:
    again = [attempt(row, chain(row, opposite(row.answer), words=word), sample=2) for row in (YES, NO) for word in ("", "", "Or", "Then")]
    for most in (1, 2, 3):
        made = build([*both(), *again], per_question=most).pairs
        assert len(made) == 2 * most
        assert len({pair.rejected for pair in made}) == 2 * most


def test_of_the_larger_class_pairs_of_questions_at_the_extremes_go_first() -> None:
    yes = [row for row in CORPUS if row.answer == "yes"][:3]
    rows = [*yes, NO]
    tries = [attempt(row, chain(row, row.answer, words="Mine")) for row in rows] + [attempt(row, chain(row, opposite(row.answer))) for row in rows]
    tries += [attempt(row, chain(row, "yes", words=f"More {count}"), sample=count) for row in yes[:2] for count in range(2, 10)]  # 9 of 10 right
    for seed in range(8):
        assert {pair.qid for pair in build(tries, seed=seed).pairs} == {yes[2].qid, NO.qid}


VERDICTS = st.lists(st.lists(st.tuples(st.sampled_from(["yes", "no", "unparsed"]), st.booleans(), st.integers(0, 3)), max_size=6), max_size=24)


@given(VERDICTS, st.integers(0, 9), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_whatever_was_sampled_sides_differ_in_verdict_classes_are_balanced_and_replay_has_its_share(said, seed: int, share: float) -> None:
    tries = [
        attempt(row, "I wonder" if verdict == "unparsed" else chain(row, verdict, words="so " * word), sample=number, valid=valid)
        for row, own in zip(CORPUS, said, strict=False)
        for number, (verdict, valid, word) in enumerate(own)
    ]
    fresh = build(tries, seed=seed).pairs
    for pair in fresh:
        assert BENCHMARK.parse(pair.chosen, cut=False) == pair.answer == opposite(BENCHMARK.parse(pair.rejected, cut=False))
        assert pair.rejected not in pair.prompt
    counts = [sum(pair.answer == answer for pair in fresh) for answer in ("yes", "no")]
    assert counts[0] == counts[1]
    assert max([sum(pair.qid == row.qid for pair in fresh) for row in CORPUS]) <= RECIPE.per_question
    old = FIRST if share < 1 else FIRST[:6]
    pairs = with_replay(fresh, old, arm=Arm.REASONING, share=share, seed=seed)
    replayed = len(pairs) - len(fresh)
    assert pairs[: len(fresh)] == fresh
    assert fresh_pairs(pairs, old) == fresh
    assert set(pairs[len(fresh) :]) <= {pair for pair in old if pair.arm == "reasoning"}
    if not fresh:
        assert pairs == []
    elif share == 1:
        assert replayed == 3
    else:
        assert abs(replayed - share * len(pairs)) <= 0.5
    by_class = [sum(pair.answer == answer for pair in pairs) for answer in ("yes", "no")]
    assert share == 1 or abs(by_class[0] - by_class[1]) <= 1


def first_pairs() -> list[Pair]:
    template = build(both()).pairs[0]
    return [
        replace(
            template, qid=f"old-{index}", answer=("yes", "no")[index // 2 % 2], arm=("reasoning", "rewrite")[index % 2], reference="first", disagreement=0.5
        )
        for index in range(400)
    ]


FIRST = first_pairs()


@given(st.sets(st.integers(0, 39)), st.integers(0, 9), st.sampled_from([0.0, 0.25, 0.5]))
def test_what_is_left_of_pairs_that_were_too_long_is_balanced_and_replay_has_its_share(gone: set[int], seed: int, share: float) -> None:
    template = build(both()).pairs[0]
    fresh = [replace(template, qid=f"new-{index}", answer=("yes", "no")[index % 2]) for index in range(20)]
    pairs = with_replay(fresh, FIRST, arm=Arm.REASONING, share=share, seed=seed)
    read = [pair for index, pair in enumerate(pairs) if index not in gone]
    left, all_left = that_fit(read, FIRST, arm=Arm.REASONING, share=share, seed=seed)
    assert set(left) <= set(all_left) <= set(read)
    fewest = min(sum(pair.answer == answer for pair in read if pair in fresh) for answer in ("yes", "no"))
    assert Counter(pair.answer for pair in left) == +Counter(yes=fewest, no=fewest)
    assert len(all_left) - len(left) <= round(len(left) * share / (1 - share))
    if not gone & set(range(len(pairs))):
        assert set(all_left) == set(pairs)


def test_the_figures_of_a_round() -> None:
    fresh = build(both()).pairs
    pairs = with_replay(fresh, FIRST, arm=Arm.REASONING, share=0.5, seed=0)
    told = paired(pairs, fresh, turned_away={"why": 3}, questions=8)
    assert (told["fresh"], told["replayed"], told["yield"], told["by_class"]) == (2, 2, 0.25, {"yes": 2, "no": 2})
    assert paired([], [], turned_away={}, questions=0)["yield"] == 0.0
    assert {pair.disagreement for pair in pairs[2:]} == {0.5}
