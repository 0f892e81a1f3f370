"""Profiles on disk: read, override, check everything, tell every fault at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tasks.contracts.failures import ProfileError
from tasks.contracts.readings import judged_arm
from tasks.contracts.recipes import Profile, Recipe, Teacher
from tasks.contracts.sources import is_lost_path
from tasks.contracts.splits import NAMED_SPLITS, fold_of

PROFILES = Path(__file__).resolve().parents[2] / "deployments" / "profiles"


def load_profile(source: str, *, folder: Path, overrides: Mapping[str, object]) -> Profile:
    """Read a profile by name (from `folder`) or by path, apply `path=value` overrides and check everything.

    A profile with `extends: other` says only what differs from the other one. Raises ProfileError with every fault at once: unknown, missing or
    ill-typed keys, absent files, batches that do not divide, fields that the chosen teacher or benchmark needs or does not know.
    """
    path, tree = _read(source, folder=folder, below=())
    faults = [fault for key, value in overrides.items() if (fault := _override(tree, key, value))]
    tree = _at_home(tree)
    try:
        profile = Profile(name=path.stem, **tree)
    except TypeError:
        raise ProfileError(str(path), [*faults, "the key `name` is the file's name; remove it"]) from None
    except ValidationError as error:
        raise ProfileError(str(path), [*faults, *(_explain(dict(item)) for item in error.errors())]) from None
    faults += _contradictions(profile)
    if faults:
        raise ProfileError(str(path), faults)
    return profile


def _read(source: str, *, folder: Path, below: tuple[Path, ...]) -> tuple[Path, dict[str, Any]]:
    """A profile's file and its tree, laid over the one that it extends. `below` are the profiles that extend this one."""
    path = Path(source) if source.endswith((".yaml", ".yml")) else folder / f"{source}.yaml"
    if not path.is_file():
        raise ProfileError(source, [_unknown(source, path, folder=folder)])
    if path.resolve() in below:
        raise ProfileError(str(path), ["extends itself, by way of others; one profile of the chain must be complete"])
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(str(path), [f"cannot be read as YAML: {error}"]) from error
    if not isinstance(tree, dict):
        raise ProfileError(str(path), ["must hold two sections, `recipe` and `execution`"])
    if (base := tree.pop("extends", None)) is None:
        return path, tree
    _, whole = _read(str(base), folder=folder, below=(*below, path.resolve()))
    return path, _laid_over(whole, tree)


def _unknown(source: str, path: Path, *, folder: Path) -> str:
    """What is known instead of a profile that is not there."""
    names = sorted(each.stem for each in folder.glob("*.yaml"))
    others = names if path.parent == folder else [str(each) for pattern in ("*.yaml", "*.yml") for each in sorted(path.parent.glob(pattern))]
    close = difflib.get_close_matches(source, others, n=1) or difflib.get_close_matches(path.stem, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    where = "" if path.parent == folder else f" in {path.parent.absolute()}"
    return f"no such profile{where}; {hint}known ones: {', '.join(names) or 'none found'}; or give the path of a YAML file"


def _at_home(tree: Any) -> Any:
    """A tree whose paths that begin with ~ lie in the home folder, as a shell would have written them."""
    if isinstance(tree, dict):
        return {key: _at_home(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_at_home(value) for value in tree]
    if isinstance(tree, str) and tree.startswith("~"):
        return os.path.expanduser(tree)
    return tree


def _laid_over(whole: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A tree with changes: sections are merged, anything else, lists too, is replaced."""
    both = {key: _laid_over(whole[key], value) if isinstance(value, dict) and isinstance(whole.get(key), dict) else value for key, value in changes.items()}
    return {**whole, **both}


def _override(tree: dict[str, Any], key: str, value: object) -> str | None:
    """Set `key` (dotted) in `tree`; returns what is wrong with it, if anything."""
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        close = _meant(key, _paths(tree))
        return f"override {key}: no such key" + (f"; did you mean {close}?" if close else "")
    node[last] = value
    return None


def _meant(key: str, paths: list[str]) -> str | None:
    """The path that a wrong one stands for: one that ends in it, else one like it, else one whose last name is like its last; the least deep of several."""

    def like(name: str, names: Iterable[str]) -> list[str]:
        return difflib.get_close_matches(name, sorted(set(names)), n=1)

    last = like(key.rpartition(".")[2], (path.rpartition(".")[2] for path in paths))
    ending = [path for path in paths if path.endswith(f".{key}")]
    found = ending or like(key, paths) or [path for path in paths if path.rpartition(".")[2] in last]
    return min(found, key=lambda path: path.count("."), default=None)


def _paths(tree: object, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [prefix]
    return [path for key, value in tree.items() for path in _paths(value, f"{prefix}.{key}" if prefix else str(key))]


def _explain(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or check the spelling"
    if error["type"] == "missing":
        return f"{where}: missing; a profile is complete, copy the line from deployments/profiles/demo.yaml"
    return f"{where}: {error['msg']} (got {error['input']!r})"


def _contradictions(profile: Profile) -> list[str]:
    """Faults between fields, in plain words."""
    recipe, train = profile.recipe, profile.execution.train
    faults = [
        f"{name}.effective_batch {batch} is less than execution.train.processes {train.processes}: some of them would have no row of a step"
        for name, batch in (("recipe.sft", recipe.sft.effective_batch), ("recipe.align", recipe.align.effective_batch))
        if batch < train.processes
    ]
    faults += [
        f"execution.train.report_to: {name} is not installed; pip install {name}, or remove it from the list"
        for name in train.report_to
        if find_spec(name) is None
    ]
    faults += _lost_paths(profile)
    faults += _teacher_faults(recipe.teacher, mode=profile.execution.teacher.mode)
    faults += _asking_faults(recipe)
    faults += _sample_faults(recipe)
    faults += _sft_faults(recipe)
    faults += _judge_faults(recipe)
    faults += _ablation_faults(recipe)
    if recipe.attribute.questions == 1:
        faults.append("recipe.attribute.questions: one question has neither an interval nor another draft; ask for at least 2, or 0")
    faults += [
        f"{name}.select_questions {asked} is more than recipe.sample.dev {recipe.sample.dev}"
        for name, asked in (("recipe.sft", recipe.sft.select_questions), ("recipe.align", recipe.align.select_questions))
        if recipe.sample.dev and asked > recipe.sample.dev
    ]
    return faults


def _lost_paths(profile: Profile) -> list[str]:
    """Models and question files that are named by a path where nothing is. What may be a hub id is not looked for here."""
    recipe = profile.recipe
    named = {"recipe.student.model": recipe.student.model, "recipe.draft.model": recipe.draft.model, "recipe.sample.path": recipe.sample.path or ""}
    faults = [f"{name}: nothing is at {path} (looked in {Path.cwd()})" for name, path in named.items() if is_lost_path(path)]
    root = Path(profile.execution.root)
    if root.exists() and not root.is_dir():
        faults.append(f"execution.root: {root} is a file; give a folder")
    return faults


def _sft_faults(recipe: Recipe) -> list[str]:
    if recipe.sft.reasoning == "completion":
        return []
    faults = []
    if "label_in_prompt" not in recipe.guards.allow:
        faults.append(
            "recipe.sft.reasoning: with the reasoning in the prompt the label stands there too; the least loss is to copy it, and evaluation has none to copy. "
            "Set it to completion, or, to see it fail, name label_in_prompt in recipe.guards.allow"
        )
    if recipe.sft.counterfactual_weight:
        faults.append("recipe.sft.counterfactual_weight: a student that writes no reasoning has none to follow; set it to 0")
    return faults


def _ablation_faults(recipe: Recipe) -> list[str]:
    faults = []
    if recipe.ablate.matched and "rewrite" not in recipe.pair.arms:
        faults.append("recipe.ablate.matched: no preference pair shows a draft for a twin to do without; add rewrite to recipe.pair.arms, or set it to false")
    faults += [
        f"recipe.ablate.arms: {arm} is compared with {other} alone; add it, or leave both out"
        for arm, other in (("draft_questions", "draft_verdict"), ("draft_verdict", "draft_questions"))
        if arm in recipe.ablate.arms and other not in recipe.ablate.arms
    ]
    return faults


def _teacher_faults(teacher: Teacher, *, mode: str) -> list[str]:
    faults = []
    if mode == "batch" and teacher.kind == "recorded":
        faults.append("execution.teacher.mode: a recorded teacher has no Batch API; set it to online")
    if teacher.kind == "recorded" and not teacher.recordings:
        faults.append("recipe.teacher.recordings: needs a JSONL file or a ledger export; --set recipe.teacher.recordings=[FILE]")
    faults += [f"recipe.teacher.recordings: no such file {name}" for name in teacher.recordings if not Path(name).is_file()]
    if teacher.kind == "simulated" and (teacher.error_rate is None or teacher.no_bias is None):
        faults.append("recipe.teacher: a simulated teacher needs error_rate and no_bias")
    return faults


def _judge_faults(recipe: Recipe) -> list[str]:
    judge = recipe.judge
    if judge.kind == "none":
        return []
    faults = []
    if judge.kind == "simulated" and not judge.model.startswith("simulated"):
        faults.append(f"recipe.judge.model: a simulated judge answers on this machine and must not pass for {judge.model}; call it simulated-judge")
    if judged_arm(recipe.grade, recipe.ablate) is None:
        faults.append(
            "recipe.judge.kind: Track B and the aligned model share no arm that asks questions; add reasoning to recipe.grade.side_arms, or set it to none"
        )
    if judge.labels is not None and not Path(judge.labels).is_file():
        faults.append(f"recipe.judge.labels: no such file {judge.labels}")
    return faults


def _asking_faults(recipe: Recipe) -> list[str]:
    """What is asked, and how often, against who is asked and why."""
    teacher, curate = recipe.teacher, recipe.curate
    faults = []
    if teacher.select == "all" and teacher.select_share != 1:
        faults.append(
            f"recipe.teacher.select_share: {teacher.select_share:g} of the questions, but select=all asks about every one; set it to 1, or choose a way"
        )
    if teacher.select != "all" and not teacher.select_share:
        faults.append("recipe.teacher.select_share: 0 asks about nothing; give the share of the train questions to pay for")
    if curate.disagreement == "resample" and not curate.resamples:
        faults.append("recipe.curate.resamples: disagreement=resample needs at least 1")
    if curate.validate_with == "teacher" and teacher.kind == "recorded" and not all(name.endswith(".parquet") for name in teacher.recordings or ("",)):
        faults.append("recipe.curate.validate_with: recorded replies cannot be asked to check reasoning; set it to none, or replay a ledger export (.parquet)")
    return faults


def _sample_faults(recipe: Recipe) -> list[str]:
    sample = recipe.sample
    if recipe.benchmark == "pocketqa":
        faults = ["recipe.sample.path: pocketqa is built in; set it to null"] if sample.path else []
        faults += ["recipe.sample.split: pocketqa draws its own splits and has no folds; set it to null"] if sample.split else []
        return faults + ["recipe.sample: pocketqa has thousands of questions; give train, dev and test a size"] * (0 in (sample.train, sample.dev, sample.test))
    faults = []
    if not sample.path:
        faults.append("recipe.sample.path: strategyqa needs its question file (JSON or JSONL) or a hub id; set it with --set recipe.sample.path=FILE")
    if sample.split not in NAMED_SPLITS and not fold_of(sample.split or ""):
        faults.append(f"recipe.sample.split: {sample.split!r} is not one of {', '.join(NAMED_SPLITS)}, nor a fold such as cv5-0")
    if sample.kinds is not None:
        faults.append("recipe.sample.kinds: strategyqa has no kinds; set it to null")
    if sample.entity_disjoint or {"entity_disjoint", "entity_prior"} & set(recipe.grade.controls):
        faults.append("recipe.grade.controls: entity controls exist for pocketqa only")
    return faults


def profile_lines(folder: Path) -> dict[str, str]:
    """Every profile of a folder by name, with the first comment of its file."""
    lines = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in sorted(folder.glob("*.yaml"))}
    return {name: next((line.lstrip("# ") for line in said if line.startswith("#")), "") for name, said in lines.items()}
