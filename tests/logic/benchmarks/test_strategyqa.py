"""StrategyQA rows under the named splits, and the official accuracy. Ids are the public ones; the texts here are made up."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Question
from tasks.contracts.splits import PUBLISHED, Fold, fold_of
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.benchmarks.strategyqa import read_questions, score

STORED = json.loads(files("tasks.logic.benchmarks").joinpath("strategyqa_splits.json").read_text(encoding="utf-8"))
IDS = [row.split() for row in STORED["questions"]]
ROWS: list[dict[str, Any]] = [
    {
        "qid": released,
        "term": "Heron",
        "description": "a bird",
        "question": f"Is heron {number} grey?",
        "answer": number % 7 < 3,
        "facts": ["Herons are birds.", "Some herons are grey."],
        "decomposition": ["What colour are herons?", "Is #1 grey?"],
    }
    for number, (released, _, _) in enumerate(IDS)
]


@pytest.mark.parametrize(
    ("named_split", "sizes"),
    [
        ("hub", {"train": 1038, "dev": 565, "test": 687}),
        ("finetune_cot", {"train": 1403, "dev": 200, "test": 687}),
        ("author", {"train": 2061, "dev": 229, "test": 0}),
    ],
)
def test_published_sizes_less_the_exemplars(named_split: str, sizes: dict[str, int]) -> None:
    read = read_questions(ROWS, named_split=named_split)
    assert {split: len(each.questions) + sum(each.excluded.values()) for split, each in read.items()} == sizes
    assert sum(sum(each.excluded.values()) for each in read.values()) == sum(
        row[2][PUBLISHED.index(named_split)] != "e" for row in IDS if row[0] in STORED["exemplars"]
    )
    kept = {question.qid for split in ("train", "dev") for question in read[split].questions}
    assert not kept & set(STORED["exemplars"])
    assert all(question.split == split for split, each in read.items() for question in each.questions)


def test_a_last_fit_tests_what_hub_tests_and_trains_on_the_rest_but_for_an_eighth() -> None:
    hub, refit = read_questions(ROWS, named_split="hub"), read_questions(ROWS[::-1], named_split="hub_refit")
    ids = {name: {question.qid for question in each.questions} for name, each in refit.items()}
    assert ids["test"] == {question.qid for question in hub["test"].questions}
    assert ids["train"] | ids["dev"] == {question.qid for split in ("train", "dev") for question in hub[split].questions}
    assert {split: len(each.questions) + sum(each.excluded.values()) for split, each in refit.items()} == {"train": 1401, "dev": 202, "test": 687}
    shares = [sum(question.answer == "yes" for question in refit[split].questions) / len(ids[split]) for split in ("train", "dev")]
    assert shares[0] == pytest.approx(shares[1], abs=0.005)
    assert all(question.split == split for split, each in refit.items() for question in each.questions)
    with pytest.raises(DataError, match="has none; give the file that holds them, or use hub"):
        read_questions([row for row, (_, _, codes) in zip(ROWS, IDS, strict=True) if codes[0] != "d"], named_split="hub_refit")


FOLDS = [read_questions(ROWS, named_split=f"cv5-{number}") for number in range(5)]


def test_over_all_folds_each_question_is_tested_once_by_a_model_that_never_saw_it() -> None:
    tested = Counter(question.qid for fold in FOLDS for question in fold["test"].questions)
    assert tested == dict.fromkeys((row["qid"] for row in ROWS), 1)
    for fold in FOLDS:
        parts = [{question.qid for question in each.questions} for each in fold.values()]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert not (parts[0] | parts[1]) & set(STORED["exemplars"])
        assert all(question.split == split for split, each in fold.items() for question in each.questions)
        assert [len(part) for part in parts] == pytest.approx([1603, 229, 458], abs=8)
        shares = [sum(question.answer == "yes" for question in each.questions) / len(each.questions) for each in fold.values()]
        assert shares == pytest.approx([3 / 7] * 3, abs=0.01)


def test_a_fold_is_drawn_by_id_alone_and_copies_of_a_question_share_one() -> None:
    again = read_questions(ROWS[::-1], named_split="cv5-3")
    assert {question.qid for question in again["test"].questions} == {question.qid for question in FOLDS[3]["test"].questions}
    twice = [{**row, "question": f"Is heron {number // 2} grey?", "answer": True} for number, row in enumerate(ROWS)]
    folds = [read_questions(twice, named_split=f"cv10-{number}") for number in range(10)]
    texts = Counter(question.question for fold in folds for question in fold["test"].questions)
    assert texts == dict.fromkeys((f"Is heron {number} grey?" for number in range(len(ROWS) // 2)), 1)
    assert fold_of("cv5-3") == Fold(number=3, of=5)
    assert [fold_of(name) for name in ("hub", "cv1-0", "cv11-0", "cv5-5", "cv05-0", "cv5-")] == [None] * 6


def test_the_authors_ids_are_read_as_the_released_ones() -> None:
    theirs = [{**row, "qid": author} for row, (_, author, _) in zip(ROWS, IDS, strict=True)]
    assert read_questions(theirs, named_split="hub") == read_questions(ROWS, named_split="hub")


@pytest.mark.parametrize(("codes", "loser"), [("rd", "train"), ("re", "train"), ("de", "dev"), ("rr", "train"), ("ee", "test")])
def test_of_a_question_that_occurs_twice_the_training_side_copy_goes(codes: str, loser: str) -> None:
    picked = [next(row[0] for row in IDS if row[2][0] == codes[0]), [row[0] for row in IDS if row[2][0] == codes[1]][-1]]
    rows = [{"qid": qid, "question": text, "answer": True} for qid, text in zip(picked, ("Is it blue?", "is it  BLUE"), strict=True)]
    read = read_questions(rows[::-1], named_split="hub")
    assert sum(len(each.questions) for each in read.values()) == 1
    assert {split for split, each in read.items() if each.excluded} == {loser}


def _read_one(**fields: Any) -> Question:
    row = {"qid": IDS[0][0], "question": "  Is it\n blue? ", "answer": False, **fields}
    (question,) = [question for each in read_questions([row], named_split="author").values() for question in each.questions]
    return question


def test_fields_as_the_files_write_them() -> None:
    question = _read_one()
    assert (question.question, question.answer, question.kind, question.entities) == ("Is it blue?", "no", "", ())
    assert (question.facts, question.decomposition) == ((), ())


@pytest.mark.parametrize("field", ["facts", "decomposition"])
@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["It is a bird.", " Birds\n are  grey. "], ("It is a bird.", "Birds are grey.")),
        (["It is a bird.", " ", ""], ("It is a bird.",)),
        ("It is a bird. Birds are grey.", ("It is a bird. Birds are grey.",)),  # one text is one: nobody knows where its writer would have cut it
        ("['It is a bird.', 'Birds are grey.']", ("It is a bird.", "Birds are grey.")),
        ("""["It's a bird.", 'Birds are \\'grey\\', #1 says.']""", ("It's a bird.", "Birds are 'grey', #1 says.")),
        (' ["It is a bird.", "Birds are grey."]\n', ("It is a bird.", "Birds are grey.")),
        ("['It is a bird.',]", ("It is a bird.",)),
        ("[]", ()),
        ("", ()),
        ([], ()),
        (None, ()),
        ("It is [a] bird", ("It is [a] bird",)),
        (["It\ud800 is\x00 a\x07 bird."], ("It? is a bird.",)),
    ],
)
def test_a_field_of_several_texts_is_read_in_every_form_that_files_have(field: str, value: object, texts: tuple[str, ...]) -> None:
    assert getattr(_read_one(**{field: value}), field) == texts


@pytest.mark.parametrize("field", ["facts", "decomposition"])
@pytest.mark.parametrize(
    "value",
    [3.5, 7, True, float("nan"), {"1": "It is a bird."}, [1, 2], [None], [["It is a bird."]], "['It is a bird.' 'Birds are grey.']", "[1, 2]", "[open('x')]",
     '[["nested"]]', "[" * 9000 + "]" * 9000, "[('It is a bird.')]"],
)  # fmt: skip
def test_a_field_of_another_shape_is_refused_by_row_and_name(field: str, value: object) -> None:
    with pytest.raises(DataError, match=f"row 1: `{field}` of question {IDS[0][0]} must be a list of texts, it is"):
        _read_one(**{field: value})


def test_a_question_with_half_a_character_or_a_control_is_cleaned_as_replies_are() -> None:
    question = _read_one(question="Is\ud83d it\x00 \x07blue\x1b[31m?", term="A\udfff", description="b\x00")
    assert (question.question, question.term, question.description) == ("Is? it blue[31m?", "A?", "b")
    with pytest.raises(DataError, match="row 1: `question` is empty"):
        _read_one(question="\x00\x07 \n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "row 2: question .* has no label"),
        ({"answer": "yes"}, "row 2: question .* has no label"),
        ({"question": "  "}, "row 2: `question` is empty"),
        ({"question": None}, "row 2: `question` is missing"),
        ({"qid": None}, "row 2: `qid` is missing"),
        ({"qid": IDS[0][0]}, "row 2: question .* was already given in row 1"),
        ({"qid": IDS[0][1]}, "row 2: question .* was already given in row 1"),
        ({"qid": "nobody"}, "row 2: question nobody belongs to no named split"),
    ],
)
def test_a_wrong_row_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_questions([ROWS[0], {**ROWS[1], **change}], named_split="hub")


def test_an_unknown_split_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="hub, finetune_cot, author"):
        read_questions(ROWS, named_split="official")


def test_a_sample_is_stratified_and_says_when_the_file_lacks_the_split() -> None:
    benchmark = get_benchmark("strategyqa")
    drawn = benchmark.sample(rows=ROWS, named_split="hub", kinds=None, split="train", n=100, seed=1)
    everything = benchmark.sample(rows=ROWS, named_split="hub", kinds=None, split="train", n=0, seed=1)
    share = sum(question.answer == "yes" for question in everything.questions) / len(everything.questions)
    assert abs(sum(question.answer == "yes" for question in drawn.questions) - 100 * share) <= 1
    assert drawn.excluded == everything.excluded
    with pytest.raises(DataError, match="at most 687"):
        benchmark.sample(rows=ROWS, named_split="hub", kinds=None, split="test", n=688, seed=1)
    with pytest.raises(DataError, match=re.escape("no question of the test split of author (it has: train")):
        benchmark.sample(rows=ROWS, named_split="author", kinds=None, split="test", n=0, seed=1)


GOLD = [{"qid": name, "answer": label} for name, label in (("a", True), ("b", False), ("c", True), ("d", False))]


@pytest.mark.parametrize(
    "predictions",
    [
        {"a": {"answer": True, "decomposition": [], "paragraphs": []}, "b": {"answer": True}, "c": {"answer": True}},
        {"a": True, "b": "yes", "c": "Yes", "zzz": False},
        [{"qid": "a", "answer": True}, {"qid": "b", "answer": None}, {"qid": "c", "answer": "yes"}],
    ],
)
def test_accuracy_counts_missing_and_null_as_wrong(predictions: object) -> None:
    assert score(predictions, GOLD) == {"accuracy": 0.5, "n": 4, "missing": 1}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_accuracy_is_the_share_of_equal_answers(pairs: list[tuple[bool, bool]]) -> None:
    gold = [{"qid": str(number), "answer": label} for number, (label, _) in enumerate(pairs)]
    said = {str(number): {"answer": answer} for number, (_, answer) in enumerate(pairs)}
    assert score(said, gold)["accuracy"] == sum(label == answer for label, answer in pairs) / len(pairs)


@pytest.mark.parametrize(
    ("predictions", "gold", "message"),
    [
        ({"a": "maybe"}, GOLD, "question a is 'maybe'"),
        ({"a": 1}, GOLD, "question a is 1"),
        ({"x": True}, GOLD, "none of 1 predictions"),
        ({"a": True}, [], "0 gold questions"),
        ({"a": True}, [{"qid": "a", "question": "?"}], "has no label"),
        ({"a": True}, [*GOLD, GOLD[0]], "qid a occurs twice"),
        ([{"qid": "a", "answer": True}] * 2, GOLD, "question a twice"),
        ("a", GOLD, "predictions must be"),
        ([True], GOLD, "predictions must be"),
    ],
)
def test_unusable_files_are_refused(predictions: object, gold: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(predictions, gold)


RICH: list[dict[str, Any]] = [
    {"qid": "a", "question": "Is it big?", "answer": True, "decomposition": ["What is it?", "Is #1 big?"], "evidence": [[[["P-1", "P-2"]], ["no_evidence"]]]},
    {"qid": "b", "question": "Was it?", "answer": False, "decomposition": ["When was it?"], "evidence": [[["operation"]], [[["P-3"], "operation"], [["P-4"]]]]},
]


def official(**changes: Any) -> dict[str, Any]:
    said = {qid: {"answer": True, "decomposition": ["Is it big?"], "paragraphs": ["P-1", "P-9"]} for qid in ("a", "b")}
    return {qid: {**row, **changes.get(qid, {})} for qid, row in said.items()}


def test_the_three_figures_worked_by_hand() -> None:
    # a: the question "is it big ?" asked back, gold "what is it ? is #1 big ?" (words with their capitals: Is it big ? / What is it ? Is #1 big ?).
    # 1-grams: nothing added of What, is, #1: F1 0; kept Is, it, big, ? = all four, wanted the same: 1; nothing deleted: 1. (0 + 1 + 1) / 3.
    # 2-grams: source Is-it, it-big, big-?; gold shares big-? only. Added 0; kept precision 1/3, recall 1: F1 1/2; deleted nothing: 1. (0 + 1/2 + 1) / 3.
    # 3- and 4-grams: gold shares none of Is-it-big, it-big-? / Is-it-big-?. Added 0; kept precision 0: 0; deleted nothing: 1. (0 + 0 + 1) / 3.
    first = (2 / 3 + 0.5 + 1 / 3 + 1 / 3) / 4
    assert score(official(), RICH[:1])["sari"] == pytest.approx(first, abs=1e-12)
    # b: "Is it big ?" for the question "Was it ?", gold "When was it ?".
    # 1-grams: added Is, big, wanted When, was: 0; kept it, ?, wanted it, ?: 1; deleted Was, wanted Was: 1. 2/3.
    # 2-grams: Was-it, it-?; said Is-it, it-big, big-?; gold When-was, was-it, it-?. Added 0; kept nothing, so precision 1, recall 0/1: 0; deleted both, right
    # is Was-it: 1/2. (0 + 0 + 1/2) / 3. 3-grams: Was-it-? is neither said nor gold: added 0; kept nothing of nothing: 1; deleted rightly: 1. 2/3.
    # 4-grams: the source has none. Added Is-it-big-? for When-was-it-?: 0; kept 1; deleted 1. 2/3.
    second = (2 / 3 + 0.5 / 3 + 2 / 3 + 2 / 3) / 4
    # Recall: a has P-1 of P-1, P-2; of b's annotators one has no evidence and the other P-3, P-4, neither of them found.
    assert score(official(), RICH) == pytest.approx({"accuracy": 0.5, "sari": (first + second) / 2, "recall_at_10": 0.25, "n": 2, "missing": 0}, abs=1e-12)


def test_a_perfect_decomposition_scores_one_and_the_annotator_who_agrees_most_counts() -> None:
    said = official(a={"decomposition": RICH[0]["decomposition"], "paragraphs": ["P-2", "P-1"]}, b={"decomposition": ["When was it?"], "paragraphs": ["P-4"]})
    assert score(said, RICH) == {"accuracy": 0.5, "sari": 1.0, "recall_at_10": 0.75, "n": 2, "missing": 0}


def test_only_the_first_ten_paragraphs_count() -> None:
    late = official(a={"paragraphs": [f"X-{number}" for number in range(9)] + ["P-1", "P-2"]})
    assert score(late, RICH)["recall_at_10"] == 0.25


def test_a_missing_prediction_scores_nothing_in_any_figure() -> None:
    said = {"a": {"answer": True, "decomposition": RICH[0]["decomposition"], "paragraphs": ["P-1", "P-2"]}}
    assert score(said, RICH) == {"accuracy": 0.5, "sari": 0.5, "recall_at_10": 0.5, "n": 2, "missing": 1}


def test_figures_that_cannot_be_computed_are_absent() -> None:
    answers = {qid: {"answer": True} for qid in ("a", "b")}
    assert set(score(answers, RICH)) == {"accuracy", "n", "missing"}
    assert set(score(official(), [{**row, "evidence": None} for row in RICH])) == {"accuracy", "sari", "n", "missing"}
    assert set(score(official(), [RICH[0], {"qid": "b", "question": "Was it?", "answer": False}])) == {"accuracy", "n", "missing"}


@pytest.mark.parametrize(
    ("predictions", "gold", "message"),
    [
        ({"a": {"answer": True, "decomposition": []}, "b": {"answer": True}}, RICH, "question b has no `decomposition`"),
        (official(b={"paragraphs": "P-1"}), RICH, "`paragraphs` of the prediction for question b must be a list of texts"),
        (official(b={"decomposition": [1]}), RICH, "`decomposition` of the prediction for question b must be a list of texts"),
        (official(), [{**RICH[0], "decomposition": "What?"}, RICH[1]], "`decomposition` of gold question a"),
        (official(), [{**RICH[0], "evidence": ["P-1"]}, RICH[1]], "`evidence` of gold question a"),
    ],
)
def test_fields_of_the_wrong_kind_are_named(predictions: object, gold: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(predictions, gold)


EVALUATOR = Path(__file__).resolve().parents[4] / "shared" / "data" / "strategyqa" / "evaluator"


@pytest.mark.skipif(not EVALUATOR.is_dir(), reason="the official evaluator's sample files are not on this machine; they state no licence")
def test_the_published_figures_of_the_official_sample_files() -> None:
    read = {name: json.loads((EVALUATOR / f"{name}.json").read_text(encoding="utf-8")) for name in ("gold_small", "predictions_small", "expected")}
    published = read["expected"]["small"]
    figures = score(read["predictions_small"], read["gold_small"])
    assert figures["accuracy"] == published["Accuracy"]
    assert figures["sari"] == pytest.approx(published["SARI"], abs=1e-12)
    assert figures["recall_at_10"] == pytest.approx(published["Recall@10"], abs=1e-12)
