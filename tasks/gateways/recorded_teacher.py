"""A teacher that replays recordings, JSONL files or ledger exports: no key, no network, no cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tasks.contracts.asks import Ask
from tasks.contracts.failures import DataError, NotRecorded
from tasks.gateways.ledger_files import read_export
from tasks.gateways.limits import Limiter
from tasks.gateways.prices import FREE, Price
from tasks.gateways.teacher import Charge, Reply, Request, Settings, first_request, uncharged
from tasks.logic.texts import clean

_ANSWERS: dict[object, str] = {True: "Yes", False: "No", "yes": "Yes", "no": "No", None: ""}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recorded reply: what was said, the verdict that the file adds to it ("Yes", "No", or "" for none), and the SHA-256 of the file."""

    reasoning: str
    verdict: str
    digest: str

    @property
    def text(self) -> str:
        """The reply as the pipeline sees it: the file's verdict is its last line."""
        return f"{self.reasoning}\nFinal answer: {self.verdict}" if self.verdict else self.reasoning


def read_recordings(paths: Sequence[Path]) -> dict[tuple[str, int], Recording]:
    """Recordings by (qid, sample). A line without `sample` belongs to the sample that is its file's place in `paths`.

    Lines hold qid, reasoning, answer ("yes", "no", true, false or null) and optionally question and sample.
    Raises DataError naming file and line for anything else, and for a (qid, sample) that occurs twice.
    """
    found: dict[tuple[str, int], Recording] = {}
    for place, path in enumerate(paths):
        try:
            content = path.read_bytes()
            lines = content.decode("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as a recording: {error}; check recipe.teacher.recordings") from error
        digest = hashlib.sha256(content).hexdigest()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            key, reasoning, verdict = _parse(line, where=where, place=place)
            if key in found:
                raise DataError(f"{where}: qid {key[0]!r} was recorded before as sample {key[1]}; remove one, or give the lines different `sample` numbers")
            found[key] = Recording(reasoning=reasoning, verdict=verdict, digest=digest)
    return found


def _parse(line: str, *, where: str, place: int) -> tuple[tuple[str, int], str, str]:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); every line must be one object with qid, question, reasoning, answer") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be an object with qid, question, reasoning, answer")
    qid, reasoning, answer, sample = row.get("qid"), row.get("reasoning"), row.get("answer"), row.get("sample", place)
    if not isinstance(qid, str) or not qid:
        raise DataError(f"{where}: needs `qid`, a text")
    if not isinstance(reasoning, str):
        raise DataError(f"{where}: needs `reasoning`, a text")
    if not (isinstance(answer, (str, bool)) or answer is None) or answer not in _ANSWERS:
        raise DataError(f'{where}: `answer` must be "yes", "no", true, false or null, not {answer!r}')
    if not isinstance(sample, int) or isinstance(sample, bool) or sample < 0:
        raise DataError(f"{where}: `sample` must be a whole number from 0, not {sample!r}")
    return (qid, sample), clean(reasoning), _ANSWERS[answer]


class RecordedTeacher:
    """Replies from recordings; what they lack raises NotRecorded.

    JSONL files are matched by (digest of the file, qid, sample) and know no hints or re-asks. A ledger export (Parquet) is matched by the key of
    the request, as the ledger it came from was: it answers exactly what was asked then, hints and re-asks included.
    """

    def __init__(self, recordings: Sequence[Path], *, settings: Settings) -> None:
        """Read all files; raises DataError as `read_recordings` does, ArtifactError for a Parquet file that is no export."""
        exports = [path for path in recordings if path.suffix == ".parquet"]
        self._recordings = read_recordings([path for path in recordings if path.suffix != ".parquet"])
        self._settings = settings
        self._exported: dict[str, Reply] = {}
        sources = set()
        for entry in (entry for path in exports for entry in read_export(path)):
            self._exported[entry.key] = entry.reply
            sources.add(entry.source)
        self._sources = sorted(sources)

    @property
    def can_take_hints(self) -> bool:
        """Whether hinted asks were recorded."""
        return bool(self._exported)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        return None

    def source(self, ask: Ask) -> str:
        """File digest and qid (the prompt did not produce this reply, so it alone cannot name it), or the exported ledger's own source."""
        recording = self._recordings.get((ask.qid, ask.sample))
        if recording is not None:
            return f"recorded:{recording.digest}:{ask.qid}"
        known = (source for source in self._sources if first_request(ask, self._settings).key(source) in self._exported)
        return next(known, f"recorded::{ask.qid}")

    def price(self, model: str) -> Price:
        """Nothing."""
        return FREE

    async def reply(self, request: Request, *, limiter: Limiter, charge: Charge = uncharged) -> Reply:
        """The recorded reply."""
        ask = request.ask
        exported = self._exported.get(request.key(self.source(ask)))
        if exported is not None:
            return exported
        recording = self._recordings.get((ask.qid, ask.sample))
        if recording is None or ask.hinted or request.reask:
            raise NotRecorded
        return Reply(text=recording.text, finish_reason="stop", model=self._settings.model, tokens_in=0, tokens_out=0, request_id="")
