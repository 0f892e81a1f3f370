"""Cards for the Hub: what an adapter or a curated data set is, how well it does and what it does not show, out of a run's summary.

Nothing of the machine enters a card: values that are paths lose their folders, and what the run does not know (a licence) is left to the person who publishes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.contracts.rows import Arm
from tasks.logic.benchmarks import yes_no
from tasks.logic.report import words

BUILT_IN = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FOLDERS = re.compile(r"(?<![\w./:-])(?:~|[A-Za-z]:|\.{1,2})?[/\\](?:[^\s/\\,\]'\"]+[/\\])*")  # of a path, up to its last part; no URL
_TEACHERS = {
    "openai": "The teacher's texts were written by a model behind an API. Its provider's terms say whether they may be published "
    "and what may be trained on them: read them before you make this public.",
    "recorded": "The teacher's texts are recordings. Whoever made them decides their licence, and so may the provider of the model that wrote them.",
    "simulated": "The teacher is a simulation that knows the benchmark's facts and errs on purpose: its texts carry nobody's terms, "
    "and figures made with it say nothing about a real teacher.",
}
_PROMPTS = {Arm.DIRECT.value: yes_no.direct_prompt, Arm.CALIBRATED.value: yes_no.direct_prompt}


def model_card(summary: Mapping[str, Any], *, model: str, trained: Mapping[str, Any], student: Mapping[str, Any]) -> str:
    """README.md of an adapter: front matter with base model and results as the Hub reads them, then prose that follows the verdicts.

    `trained` is the record of the adapter's artifact, `student` the summary of the student's. Raises KeyError when the run did not score `model`.
    """
    scored = {**summary["models"], **summary["controls"]}[model]
    cell = scored["arms"][scored["headline"]]
    base = base_model(summary["student"])
    front: dict[str, Any] = {
        **({"base_model": base} if base else {}),
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "language": ["en"],
        "tags": ["socratune", "lora", "distillation", *(["dpo"] if model == "aligned" else []), summary["benchmark"]],
        "model-index": [{"name": f"{summary['profile']}-{model}", "results": [_result(summary, arm, scored["arms"][arm]) for arm in scored["arms"]]}],
    }
    compared = [one for one, each in _compared(summary) if model in each["name"].split("_vs_")]
    return _page(
        "model_card.md",
        front=front,
        summary=summary,
        name=words.label(model),
        model=model,
        headline=scored["headline"],
        scored=scored,
        cell=cell,
        above=cell["ci_low"] > summary["majority_accuracy"],
        base=base,
        student=without_folders(summary["student"]),
        source=student,
        numbers=trained["recipe"].get("numbers", {}),
        compared=compared,
        open=[one for one in compared if one.verdict == "underpowered"],
        warnings=[said for said in words.warnings(summary) if said.startswith((words.label(model), "Test", "Dev"))],
        prompt=_PROMPTS.get(scored["headline"], yes_no.rewrite_prompt if scored["headline"] == Arm.REWRITE else yes_no.reasoning_prompt),
        rewrite=scored["headline"] == Arm.REWRITE,
        packages={name: version for name, version in trained["packages"].items() if version and name in ("torch", "transformers", "peft", "trl")},
        digest=trained["digest"],
        **_shared(summary),
    )


def data_card(summary: Mapping[str, Any], *, rows: Mapping[str, int]) -> str:
    """README.md of the curated data; `rows` counts the lines of each JSONL file by its name without suffix."""
    front = {
        "language": ["en"],
        "task_categories": ["question-answering", "text-generation"],
        "tags": ["socratune", "distillation", "preference", summary["benchmark"]],
        "size_categories": [_size(max(rows.values()))],
        "configs": [{"config_name": name, "data_files": f"{name}.jsonl", **({"default": True} if name == "curated" else {})} for name in rows],
    }
    return _page("data_card.md", front=front, summary=summary, rows=rows, steps=summary["curation"]["steps"], **_shared(summary))


def base_model(student: str) -> str:
    """The student's id on the Hub, "" where it is somebody's folder."""
    return BUILT_IN.get(student) or (student if _HUB_ID.fullmatch(student) else "")


def publishable_config(config: Mapping[str, Any], *, base: str) -> dict[str, Any]:
    """An adapter's or a tokenizer's configuration with its base named and without any value that is a path of this machine."""
    kept = {key: value for key, value in config.items() if not (isinstance(value, str) and _FOLDERS.match(value))}
    named = {"base_model_name_or_path": base or None} if "base_model_name_or_path" in config else {}
    return {key: value for key, value in kept.items() if key not in ("name_or_path", "_name_or_path")} | named


def without_folders(value: object) -> str:
    """A value as text whose paths keep their last part only."""
    return _FOLDERS.sub("", str(value))


def _result(summary: Mapping[str, Any], arm: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    interval = f"95 % CI {100 * cell['ci_low']:.1f} to {100 * cell['ci_high']:.1f}, n = {cell['n']}, majority line {100 * summary['majority_accuracy']:.1f}"
    return {
        "task": {"type": "question-answering", "name": f"yes/no questions, {words.arm_label(arm)} arm"},
        "dataset": {"name": summary["benchmark"], "type": summary["benchmark"], "split": summary["split"]},
        "metrics": [{"type": "accuracy", "value": round(cell["accuracy"], 4), "name": f"accuracy ({interval})"}],
    }


def _compared(summary: Mapping[str, Any]) -> list[tuple[words.Statement, Mapping[str, Any]]]:
    return [(words.statements({**summary, "comparisons": [each]})[0], each) for each in summary["comparisons"]]


def _shared(summary: Mapping[str, Any]) -> dict[str, Any]:
    kind, _, name = summary["teacher"].partition(":")
    return {
        "teacher": without_folders(name),
        "kind": kind,
        "terms": _TEACHERS[kind],
        "changes": [f"{path} = {without_folders(value)}" for path, value in summary["overrides"].items()],
        "reads": [f"{words.capitalised(each['split'])}: {each['times']} under {each['recipe']}" for each in summary["test_reads"]],
        "words": words,
    }


def _page(template: str, *, front: Mapping[str, Any], **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("tasks.logic.report", "templates"), autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n{environment.get_template(template).render(**values)}"


def _size(count: int) -> str:
    """The Hub's words for a number of rows."""
    return next(name for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**12, "n>100K")) if count < limit)
