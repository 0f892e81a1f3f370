"""Data audit from the command line: teachers, overlaps, worked examples and class shares, before anything is trained. Seconds, and no Prefect server."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import Address, TableRef, content_digest, write_atomically
from tasks.contracts.failures import DataError
from tasks.contracts.recipes import Profile
from tasks.contracts.rows import Curated, Taught
from tasks.gateways.hub import naming, read_questions_file
from tasks.gateways.recorded_teacher import read_recordings
from tasks.logic.audit import Source, hear, taught_sources
from tasks.logic.benchmarks import Benchmark, get_benchmark
from tasks.logic.report.audit_page import render_audit
from tasks.logic.report.audit_view import AuditFacts, audit_figures
from tasks.logic.report.summary import summary_json
from tasks.stage import Context


@dataclass(frozen=True, kw_only=True)
class Audited:
    """Where an audit lies, and its figures."""

    html: Path
    json: Path
    figures: Mapping[str, Any]


def write_audit(
    context: Context,
    *,
    profile: Profile,
    overrides: Mapping[str, Any],
    source: Path | str | None,
    recordings: Sequence[Path],
    taught: TableRef[Taught] | None,
    curated: TableRef[Curated] | None,
) -> Audited:
    """Write `data/audit/<key>/` with audit.html and audit.json; the same data under the same profile is the same folder.

    `taught` and `curated` are what a run has stored, None where nothing is. Raises DataError for files that cannot be read or do not belong together.
    """
    recipe = profile.recipe
    wording, sample = get_benchmark(recipe.benchmark), recipe.sample
    rows = read_questions_file(str(source)) if source else []
    sizes = {"train": sample.train, "dev": sample.dev, "test": sample.test, "entity_disjoint": sample.entity_disjoint}
    exports = [path for path in recordings if path.suffix == ".parquet"]
    with naming(source):
        read = wording.splits(rows=rows, named_split=sample.split, kinds=sample.kinds, sizes=sizes, seed=recipe.seed)
        named = wording.named_parts(rows)
    facts = AuditFacts(
        profile=profile.name,
        overrides=overrides,
        benchmark=recipe.benchmark,
        named_split=sample.split,
        read=read,
        named=named,
        exemplars=wording.exemplars(),
        sources=(
            *_recorded([path for path in recordings if path not in exports], wording),
            *(taught_sources(context.root.read(taught, Taught)) if taught else ()),
        ),
        filters=tuple(context.root.record(curated)["summary"]["filters"]) if curated else (),
        max_shift=recipe.curate.max_shift,
        notes=tuple(
            f"{path.name} is a ledger export and knows no question ids; its replies are judged once they are taught." for path in exports if not taught
        ),
    )
    figures = audit_figures(facts)
    folder = context.root.folder("data", _address(profile, source, recordings, taught, curated))
    folder.mkdir(parents=True, exist_ok=True)
    changes = "".join(f" --set {shlex.quote(f'{path}={_shown(value)}')}" for path, value in overrides.items())
    page = render_audit(figures, generated_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), command=f"socratune audit {profile.name}{changes}")
    write_atomically(folder / "audit.html", page)
    write_atomically(folder / "audit.json", summary_json(figures))
    return Audited(html=folder / "audit.html", json=folder / "audit.json", figures=figures)


def _recorded(paths: Sequence[Path], wording: Benchmark) -> list[Source]:
    """One source a file, called by its name, with its folder's where two files share it."""
    shared = {name for name, count in Counter(path.stem for path in paths).items() if count > 1}
    parse = partial(wording.parse_teacher_reply, ask=True)  # recorded prose is read whatever the recipe asks for
    sources = []
    for path in paths:
        recorded = read_recordings([path])
        if not recorded:
            raise DataError(f"{path} holds no reply; remove it from recipe.teacher.recordings")
        heard = tuple(hear(qid, words=reply.reasoning, text=reply.text, parse=parse) for (qid, _), reply in recorded.items())
        name = f"{path.parent.name}/{path.stem}" if path.stem in shared else path.stem
        sources.append(Source(name=name, kind="recorded", heard=heard))
    return sources


def _address(
    profile: Profile, source: Path | str | None, recordings: Sequence[Path], taught: TableRef[Taught] | None, curated: TableRef[Curated] | None
) -> Address:
    recipe = profile.recipe
    files = {str(number): content_digest(path) for number, path in enumerate([*([source] if isinstance(source, Path) else []), *recordings])}
    stored = {name: ref.digest for name, ref in (("taught", taught), ("curated", curated)) if ref}
    settings = {"profile": profile.name, "benchmark": recipe.benchmark, "seed": recipe.seed, "sample": recipe.sample, "max_shift": recipe.curate.max_shift}
    return Address(stage="audit", version=1, recipe=settings, inputs={**files, **stored})


def _shown(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)
