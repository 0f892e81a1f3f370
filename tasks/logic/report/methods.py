"""The methods section: what a run did and with which numbers, generated from its recipe and its summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contracts.recipes import Answers, Phase, Recipe, Sft
from tasks.logic.report import words

_DISAGREEMENT = {
    "drop": "replies that disagree with gold were dropped",
    "resample": "where no reply agreed with gold the teacher was asked again",
    "rationalise": "where the teacher disagreed with gold it was shown the gold answer and asked to explain it",
    "consensus": "replies were kept only where the majority of the teacher's own samples agreed with gold",
}
_REBALANCE = {
    "none": "nothing further was done to the class balance",
    "up_sample": "the rarer class was repeated until the balance was that of the questions asked",
    "down_sample": "the commoner class was thinned until the balance was that of the questions asked",
    "class_weight": "classes were weighted back to the balance of the questions asked",
    "verdict_weight": "the loss of the verdict was weighted back to the balance of the questions asked",
}
_AWAY = {
    "no_draft": "no draft",
    "shuffled_draft": "another question's draft",
    "neutral_draft": "as many neutral words",
    "draft_questions": "the draft's questions without its verdict",
    "draft_verdict": "the draft's verdict without its questions",
}
_NO_PAIRS = "Preference training was asked for, but there was no pair of a right and a wrong chain to train on: the aligned model is Track B itself."


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of the methods section."""

    heading: str
    text: str


def methodology(summary: Mapping[str, Any], recipe: Recipe, *, aligned: bool) -> list[Paragraph]:
    """What was done, in the order of the pipeline; experiments that the recipe does not ask for have no paragraph. `aligned`: there were pairs to train on."""
    found = [
        Paragraph("Questions", _questions(summary, recipe)),
        Paragraph("Teacher and curation", _teaching(summary, recipe)),
        Paragraph("Fine-tuning", _tuning(recipe)),
        Paragraph("Preference training", _preferences(recipe) if aligned else _NO_PAIRS),
        *([Paragraph("Self-guided loop", _loop(summary["accepted"]))] if summary["accepted"] else []),
        Paragraph("Evaluation", _evaluation(summary, recipe)),
    ]
    if recipe.ablate.arms:
        found.append(Paragraph("Draft experiment", _drafts(recipe)))
    if recipe.attribute.questions:
        found.append(Paragraph("Attribution", _attribution(recipe)))
    if recipe.judge.kind != "none":
        found.append(Paragraph("Judge", _judge(recipe)))
    return found


def _loop(accepted: str) -> str:
    return (
        f"The aligned model of this report is not the one that preference training made but the loop's accepted student, {accepted}: it went on from there on "
        "pairs of its own samples, and a gate let it pass. The loop's page has its history (socratune loop PROFILE --rounds 0 says where)."
    )


def _questions(summary: Mapping[str, Any], recipe: Recipe) -> str:
    sizes = ", ".join(f"{count:,} {name}" for name, count in summary["splits"].items() if count)
    return (
        f"The benchmark is {recipe.benchmark}: {sizes} questions with a yes or no answer, drawn with seed {recipe.seed} and disjoint by text. "
        f"Results are read on {recipe.grade.split}, where always giving the commoner answer scores {words.percent(summary['majority_accuracy'])}. "
        f"The student is {recipe.student.model}, in {recipe.student.quantization} weights and {recipe.student.dtype} arithmetic. Before anything is taught "
        f"it drafts an answer to every question, with clarifying questions, in at most {recipe.draft.max_new_tokens} tokens."
    )


def _teaching(summary: Mapping[str, Any], recipe: Recipe) -> str:
    teacher, curate = recipe.teacher, recipe.curate
    asked = "answered the student's questions and reasoned to a verdict" if teacher.ask else "reasoned to a verdict without seeing the student's questions"
    replies = "one reply" if teacher.samples == 1 else f"{teacher.samples} replies"
    first, last = summary["curation"]["steps"][:1], summary["curation"]["steps"][-1:]
    moved = f" The share of yes was {words.percent(first[0]['yes_share'])} among the questions and {words.percent(last[0]['yes_share'])} at the end." * bool(
        first
    )
    return (
        f"The teacher ({teacher.kind}, {teacher.model}) gave {replies} to each chosen question at temperature {teacher.temperature:g}: it {asked}. "
        f"Its verdicts were held against gold; {_DISAGREEMENT[curate.disagreement]}, and {_REBALANCE[curate.rebalance]}. "
        f"Curation was allowed to move the share of yes by {words.points(curate.max_shift, signed=False)} points.{moved}"
    )


def _tuning(recipe: Recipe) -> str:
    sft, lora = recipe.sft, recipe.sft.lora
    start = "the base model" if sft.init == "base" else "Track A"
    shared, own = _trained(sft), f" Track A, whose completion is hardly more than its verdict, has its own: {_trained(sft.track_a)}." if sft.track_a else ""
    return (
        "Track A learned to answer at once; Track B learned to ask, to answer its own questions, to reason and then to answer. Both are low-rank adapters "
        f"(rank {lora.rank}, alpha {lora.alpha}), {sft.effective_batch} examples a step, with the same numbers: {shared}.{own} Track B starts from {start}. "
        "Because Track B sees more tokens, a second Track A was trained for as many steps."
    )


def _trained(numbers: Sft | Answers) -> str:
    return f"{_times(numbers.epochs, 'epoch')}, learning rate {numbers.learning_rate:g}, the verdict weighted {numbers.verdict_weight:g} times"


def _preferences(recipe: Recipe) -> str:
    pair, align = recipe.pair, recipe.align
    phases = "; ".join(_phase(phase) for phase in align.phases)
    return (
        f"Questions kept away from fine-tuning were answered {pair.samples} times by Track B at temperature {pair.temperature:g}; right and wrong chains of "
        f"like length became preference pairs ({' and '.join(pair.arms)}). Direct preference optimisation then started from Track B, which is also its "
        f"reference, at learning rate {align.learning_rate:g}: {phases}. A likelihood term of weight {align.nll_weight:g} keeps the chosen chain likely"
        + (f", and the best epoch on {align.select_questions} dev questions was kept, Track B included." if align.select_questions else ".")
    )


def _phase(phase: Phase) -> str:
    parts = [f"{_times(phase.epochs, 'epoch')} at beta {phase.beta:g}"]
    parts += [f"calibrated ({phase.cal})"] * (phase.cal != "none") + [f"robust ({phase.dr})"] * (phase.dr != "none")
    return ", ".join(parts + [f"without the {phase.drop_quantile:.0%} most suspicious pairs"] * (phase.drop_quantile > 0))


def _evaluation(summary: Mapping[str, Any], recipe: Recipe) -> str:
    heads = recipe.grade.headline
    return (
        f"Each model is judged by an arm that was fixed beforehand: the untrained student by {words.arm_label(heads.zero_shot)}, Track A by "
        f"{words.arm_label(heads.track_a)}, Track B by {words.arm_label(heads.track_b)}, the aligned model by {words.arm_label(heads.aligned)}. Decoding is "
        f"greedy, at most {recipe.grade.max_new_tokens} tokens; as for texts without a verdict, {words.unparsed_counts(summary)}. Shares have 95 % Wilson "
        f"intervals. Two models are compared on the same questions: the exact McNemar test, a paired bootstrap interval of {recipe.grade.bootstrap:,} "
        "draws, and Holm's correction over the family. A comparison passes, fails, or is underpowered: then these data decide neither way."
    )


def _drafts(recipe: Recipe) -> str:
    ablate = recipe.ablate
    away = ", ".join(_AWAY[arm] for arm in ablate.arms)
    shuffles = f" Drafts were exchanged {_times(ablate.shuffles, 'time')}, each a derangement matched on verdict and length." * (
        "shuffled_draft" in ablate.arms
    )
    twin = (
        " A model that only ever saw prompts with a draft reads one without it badly for that reason alone, so a twin was aligned on the same pairs "
        "without drafts, and is read without."
        if ablate.matched
        else " No twin was trained without drafts, so a loss without the draft may also be a loss by an unfamiliar prompt."
    )
    return (
        f"To see what the draft is worth, the aligned model rewrote {_read_on(ablate.questions)} again with the draft changed: {away}.{shuffles}{twin} "
        "Learning by asking means that the draft helps against the fairest comparison and that its questions help more than its verdict."
    )


def _attribution(recipe: Recipe) -> str:
    each = recipe.attribute
    return (
        f"Integrated gradients of log P(yes) − log P(no) over the input embeddings, on {each.questions} questions, from padding in place of question and "
        f"draft to the prompt as it is, the model's own chain kept, at {each.points} points and up to {each.most_points} where the attributions did not add "
        f"up within {each.tolerance:.0%}. What still did not is excluded and counted. A draft that is half of the prompt holds half of the weight by chance, "
        "so mass is held against its share of the tokens."
    )


def _judge(recipe: Recipe) -> str:
    judge = recipe.judge
    return (
        f"The {judge.kind} judge {judge.model} compared the questions that the aligned model asks with those of Track B, blinded and without verdicts, on "
        f"{_read_on(judge.questions)}, in both orders. A side wins only where it wins in both; else the pair is a tie. Net is wins minus losses as a share "
        "of all pairs."
    )


def _read_on(questions: int) -> str:
    return f"the first {questions:,} questions" if questions else "every question"


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
