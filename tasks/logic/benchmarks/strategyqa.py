"""StrategyQA (Geva et al. 2021): official fields, the three named splits that publications use, and the official figures of a prediction file.

Splits: `hub` 1,038 / 565 / 687 (train / dev / test), `finetune_cot` 1,603 / 687 (Ho et al. 2022; dev is a fixed stratified 200 of its train) and
`author` 2,061 / 229 (no test). They are lists of question ids in `strategyqa_splits.json`; both the released and the authors' own ids are known.
`hub_refit` tests what `hub` tests and trains on all else but for every eighth question, which stays dev: 1,401 / 202 / 687.
Beside them cvK-I is fold I of a cross-validation over all questions: its test split is that fold, and over all K folds each question is tested once.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Question
from tasks.contracts.splits import NAMED_SPLITS, PUBLISHED, REFIT, Fold, fold_of
from tasks.logic.benchmarks.strategyqa_figures import recall, sari
from tasks.logic.sampling import Sampled, check_disjoint, normalised, require, stratified
from tasks.logic.texts import line_of

_SPLITS = ("train", "dev", "test")  # from the most to the least training-like
_DEV_OF_REST = 8  # every eighth question outside the test split is dev, where folds or a last fit leave it open
_DUPLICATE = "asked again in a less training-like place"
_EXEMPLAR = "few-shot exemplar of the recorded teachers"

_STRING = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""
_PRINTED = re.compile(rf"\s*\[\s*(?:(?:{_STRING})\s*(?:,\s*(?:{_STRING})\s*)*,?\s*)?\]\s*")  # commas between all of them: 'a' 'b' would be one text


class _Places(NamedTuple):
    """Where questions belong: released qid by either id, split by named split and released qid, and the exemplars' qids."""

    qids: dict[str, str]
    splits: dict[str, dict[str, str]]
    exemplars: frozenset[str]


def sample(*, rows: Sequence[Mapping[str, Any]], named_split: str, split: str, n: int, seed: int) -> Sampled:
    """`n` questions (0 = all) of one split, in the proportions of its answers. Raises DataError when the file holds fewer, or none."""
    read = read_questions(rows, named_split=named_split)
    found = read.get(split, Sampled(questions=[], excluded={}))
    require(n, available=len(found.questions), split=split)
    if not found.questions:
        held = ", ".join(f"{name} {len(each.questions)}" for name, each in read.items() if each.questions) or "none"
        raise DataError(f"the question file has no question of the {split} split of {named_split} (it has: {held}); give the file that holds them")
    return Sampled(questions=stratified(found.questions, n=n, seed=seed), excluded=found.excluded)


def read_questions(rows: Sequence[Mapping[str, Any]], *, named_split: str) -> dict[str, Sampled]:
    """Official rows (qid, question, answer; optional term, description, facts, decomposition) by split, under released qids.

    Left out and counted: the training-side copy of a question that occurs twice, and the six few-shot exemplars of the recorded GPT-4 prompts from
    train and dev. Raises DataError, naming the row, on an unlabelled, empty, repeated or unknown question.
    """
    questions = _questions(rows, named_split)
    exemplars = _places().exemplars
    kept: dict[str, str] = {}  # the copy to keep of each text: the least training-like, then the first
    for question in sorted(questions, key=lambda each: -_SPLITS.index(each.split)):
        kept.setdefault(normalised(question.question), question.qid)
    made = {split: Sampled(questions=[], excluded={}) for split in _SPLITS}
    reasons: dict[str, Counter[str]] = {split: Counter() for split in _SPLITS}
    for question in questions:
        if kept[normalised(question.question)] != question.qid:
            reasons[question.split][_DUPLICATE] += 1
        elif question.qid in exemplars and question.split != "test":
            reasons[question.split][_EXEMPLAR] += 1
        else:
            made[question.split].questions.append(question)
    check_disjoint({split: found.questions for split, found in made.items()})
    return {split: Sampled(questions=found.questions, excluded=dict(reasons[split])) for split, found in made.items()}


def named_parts(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Question]]:
    """Every part of the three published splits ("hub/train" and so on) as the questions of `rows` fall into them, nothing left out; empty parts are absent.

    Raises DataError as `read_questions` does for a row that is wrong.
    """
    parts: dict[str, list[Question]] = {f"{name}/{split}": [] for name in PUBLISHED for split in _SPLITS}
    for name in PUBLISHED:
        for question in _questions(rows, name):
            parts[f"{name}/{question.split}"].append(question)
    return {part: questions for part, questions in parts.items() if questions}


def exemplars() -> frozenset[str]:
    """Released qids of the few-shot exemplars of the recorded teachers' prompts."""
    return _places().exemplars


def score(predictions: object, gold: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The official figures over all `n` gold questions: `accuracy`, `sari` and `recall_at_10`, each in 0..1.

    `predictions` is {qid: {"answer": ..., "decomposition": [step], "paragraphs": [id]}}, {qid: answer} or [{"qid": ..., "answer": ...}]; an answer is true,
    false, "yes", "no" or null. `sari` is there when predictions have a `decomposition` and every gold row has one, `recall_at_10` when they have
    `paragraphs` and every gold row has `evidence`; else the key is absent. The official evaluator refuses a file that lacks a question; here a question
    that is `missing` counts as 0 in every figure, and so does an answer that is null.
    Raises DataError when gold is unlabelled or repeats an id, when a prediction is something else or lacks what others have, or when none belongs to gold.
    """
    rows = _gold(gold)
    given = _by_qid(predictions)
    said = {qid: _predicted(qid, value.get("answer")) for qid, value in given.items()}
    if not rows.keys() & said.keys():
        raise DataError(f"none of {len(said)} predictions belongs to one of {len(rows)} gold questions; score against the gold file of the same questions")
    right = sum(said.get(qid) is row["answer"] for qid, row in rows.items())
    figures: dict[str, float] = {"accuracy": right / len(rows)}
    if steps := _lists(given, "decomposition") if _all_have(rows, "decomposition") else {}:
        asked = {qid: (_text(rows[qid], "question", number), steps[qid]) for number, qid in enumerate(rows, start=1) if qid in steps}
        figures["sari"] = sum(sari(question, said, rows[qid]["decomposition"]) for qid, (question, said) in asked.items()) / len(rows)
    if found := _lists(given, "paragraphs") if _all_have(rows, "evidence") else {}:
        figures["recall_at_10"] = sum(recall(row["evidence"], found.get(qid, [])) for qid, row in rows.items()) / len(rows)
    return {**figures, "n": len(rows), "missing": len(rows.keys() - said.keys())}


def _gold(gold: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Labelled rows by question id."""
    rows: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(gold, start=1):
        qid = _text(row, "qid", number)
        if qid in rows:
            raise DataError(f"gold row {number}: qid {qid} occurs twice; remove one of the rows")
        _label(row, number)
        rows[qid] = row
    return rows


def _all_have(rows: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Whether every gold row has the field. Raises DataError for one that is no list: steps as texts, or annotators as lists of steps."""
    for qid, row in rows.items():
        value = row.get(name)
        entries = (str,) if name == "decomposition" else (list,)
        if value is not None and not (isinstance(value, list) and all(isinstance(entry, entries) for entry in value)):
            raise DataError(f"`{name}` of gold question {qid} is not what the official files have there; it is {value!r:.80}")
    return all(row.get(name) is not None for row in rows.values())


def _questions(rows: Sequence[Mapping[str, Any]], named_split: str) -> list[Question]:
    """Rows as questions in file order, every one checked and placed."""
    places, fold = _places(), fold_of(named_split)
    if fold is None and named_split not in NAMED_SPLITS:
        known = ", ".join(NAMED_SPLITS)
        raise DataError(f"StrategyQA has no split named {named_split!r}; set recipe.sample.split to one of {known}, or to a fold such as cv5-0")
    split = {} if fold else places.splits["hub" if named_split == REFIT else named_split]
    seen: dict[str, int] = {}
    questions = []
    for number, row in enumerate(rows, start=1):
        given, answer = _text(row, "qid", number), _label(row, number)
        qid = places.qids.get(given)
        if qid is None:
            raise DataError(f"row {number}: question {given} belongs to no named split; use the released StrategyQA train questions, or remove the row")
        if qid in seen:
            raise DataError(f"row {number}: question {given} was already given in row {seen[qid]}; remove one of them")
        seen[qid] = number
        questions.append(_question(row, qid, number, answer=answer, split=split.get(qid, "")))
    if named_split == REFIT:
        return _refitted(questions)
    return _folded(questions, fold) if fold else questions


def _folded(questions: Sequence[Question], fold: Fold) -> list[Question]:
    """Questions in their order with the split that `fold` gives them, answers in equal shares everywhere; copies of a question stay together."""
    copies: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        copies[normalised(question.question)].append(question)
    ranks: dict[str, list[str]] = {"yes": [], "no": []}
    for text, same in sorted(copies.items(), key=lambda each: hashlib.sha256(min(row.qid for row in each[1]).encode()).digest()):
        ranks[same[0].answer].append(text)
    split: dict[str, str] = {}
    for texts in ranks.values():
        split |= dict.fromkeys(texts[fold.number :: fold.of], "test")
        split |= {text: "train" if rank % _DEV_OF_REST else "dev" for rank, text in enumerate(text for text in texts if text not in split)}
    return [replace(question, split=split[normalised(question.question)]) for question in questions]


def _refitted(questions: Sequence[Question]) -> list[Question]:
    """Questions in their order; of those outside the test split every eighth of either answer is dev, drawn by id, and the others are train."""
    if not any(each.split == "dev" for each in questions):
        raise DataError(f"{REFIT} trains on hub's dev questions too, and the question file has none; give the file that holds them, or use hub")
    ranks: Counter[str] = Counter()
    split: dict[str, str] = {}
    for question in sorted((each for each in questions if each.split != "test"), key=lambda each: hashlib.sha256(each.qid.encode()).digest()):
        split[question.qid] = "train" if ranks[question.answer] % _DEV_OF_REST else "dev"
        ranks[question.answer] += 1
    return [replace(question, split=split.get(question.qid, "test")) for question in questions]


def _question(row: Mapping[str, Any], qid: str, number: int, *, answer: bool, split: str) -> Question:
    return Question(
        qid=qid,
        split=split,
        kind="",
        term=line_of(str(row.get("term") or "")),
        description=line_of(str(row.get("description") or "")),
        question=_text(row, "question", number),
        answer="yes" if answer else "no",
        facts=_texts(row, "facts", number),
        decomposition=_texts(row, "decomposition", number),
        entities=(),
    )


def _text(row: Mapping[str, Any], name: str, number: int) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not (said := line_of(value)):
        raise DataError(f"row {number}: `{name}` is {'missing' if value is None else 'empty or no text'}; every row needs qid, question and answer")
    return said


def _texts(row: Mapping[str, Any], name: str, number: int) -> tuple[str, ...]:
    """A field of several texts: a list of them, a list that was written as one text, or one text, which is then the only one."""
    value = row.get(name)
    if isinstance(value, str):
        value = _written_list(value) if value.strip()[:1] + value.strip()[-1:] == "[]" else [value]
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise DataError(f"row {number}: `{name}` of question {row.get('qid')} must be a list of texts, it is {row[name]!r:.60}; mend the row or leave it out")
    return tuple(said for each in value if (said := line_of(each)))


def _written_list(text: str) -> object:
    """The list that a text spells, in JSON or as Python prints one (how tables saved as CSV have it); 0, which is no list, where it spells none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return [ast.literal_eval(each) for each in re.findall(_STRING, text)] if _PRINTED.fullmatch(text) else 0


def _label(row: Mapping[str, Any], number: int) -> bool:
    label = row.get("answer")
    if not isinstance(label, bool):
        raise DataError(f"row {number}: question {row.get('qid')} has no label (`answer` must be true or false, it is {label!r}); use a labelled file")
    return label


def _by_qid(predictions: object) -> dict[str, Mapping[str, Any]]:
    """Predictions as objects by question id, whatever their form."""
    if isinstance(predictions, Mapping):
        return {str(qid): value if isinstance(value, Mapping) else {"answer": value} for qid, value in predictions.items()}
    if isinstance(predictions, Sequence) and not isinstance(predictions, str) and all(isinstance(row, Mapping) for row in predictions):
        pairs = [(_text(row, "qid", number), row) for number, row in enumerate(predictions, start=1)]
        twice = [qid for qid, count in Counter(qid for qid, _ in pairs).items() if count > 1]
        if not twice:
            return dict(pairs)
        raise DataError(f"the predictions answer question {twice[0]} twice; keep one answer a question")
    raise DataError('predictions must be {qid: {"answer": true}}, {qid: "yes"} or a list of {"qid", "answer"}')


def _lists(given: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, list[str]]:
    """One field of all predictions, {} where none has it; all or none, as the official evaluator wants it."""
    found = {qid: value[name] for qid, value in given.items() if name in value}
    if found and (lacking := given.keys() - found.keys()):
        raise DataError(f"the prediction for question {min(lacking)} has no `{name}`, others have one; give every prediction the same fields")
    for qid, value in found.items():
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise DataError(f"`{name}` of the prediction for question {qid} must be a list of texts, it is {value!r:.80}")
    return found


def _predicted(qid: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    known = {"yes": True, "no": False, "true": True, "false": False, "unparsed": None}
    if isinstance(value, str) and value.strip().casefold() in known:
        return known[value.strip().casefold()]
    raise DataError(f'the prediction for question {qid} is {value!r}; write true, false, "yes", "no" or null')


@cache
def _places() -> _Places:
    """The id lists that come with the package. A row is "released-id author-id codes", one letter a named split."""
    stored = json.loads(files("tasks.logic.benchmarks").joinpath("strategyqa_splits.json").read_text(encoding="utf-8"))
    rows = [row.split() for row in stored["questions"]]
    names = {"r": "train", "d": "dev", "e": "test"}
    splits = {name: {qid: names[codes[index]] for qid, _, codes in rows} for index, name in enumerate(PUBLISHED)}
    return _Places(qids={key: qid for qid, author, _ in rows for key in (qid, author)}, splits=splits, exemplars=frozenset(stored["exemplars"]))
