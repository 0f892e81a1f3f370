"""A file by which a person judges the same pairs without knowing whose they are, and how it is read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tasks.contracts.failures import DataError
from tasks.logic.judging import WINNERS, Contest

_SIDES = ("1", "2", "tie")


def labelling_lines(pairs: Sequence[Contest], *, seed: int) -> list[str]:
    """JSONL for a person: "set_1" and "set_2" of every contest that is not settled, sides by a seeded hash; "winner" waits for 1, 2 or tie."""
    lines = []
    for pair in pairs:
        if not pair.settled:
            one, two = (pair.old, pair.new) if _swapped(pair.qid, seed) else (pair.new, pair.old)
            lines.append(json.dumps({"qid": pair.qid, "question": pair.question, "set_1": one, "set_2": two, "winner": ""}, ensure_ascii=False))
    return lines


def read_labels(text: str, pairs: Sequence[Contest], *, seed: int, name: str) -> dict[str, str]:
    """A person's winners (new, old or tie) by question; lines with an empty winner are not labelled yet.

    A line may name new or old outright, or 1 or 2 of a labelling file, whose sets must then be those of `pairs`. Raises DataError naming `name` and the
    first line that cannot be used.
    """
    known = {pair.qid: pair for pair in pairs}
    labels: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        qid, winner = _read(line, known, seed=seed, where=f"{name}, line {number}")
        if qid in labels:
            raise DataError(f"{name}, line {number}: question {qid} is labelled twice; keep one line of each question")
        if winner:
            labels[qid] = winner
    return labels


def _read(line: str, known: dict[str, Contest], *, seed: int, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); write one object a line, with qid and winner") from error
    qid, winner = (row.get("qid"), row.get("winner")) if isinstance(row, dict) else (None, None)
    if not isinstance(qid, str) or winner not in ("", *_SIDES, *WINNERS):
        raise DataError(f"{where}: needs a qid and a winner, which is 1, 2 or tie in a labelling file, else new, old or tie")
    if qid not in known:
        raise DataError(f"{where}: question {qid} was not judged in this run; label the file that this run wrote")
    if winner not in ("1", "2"):
        return qid, str(winner)
    pair, swapped = known[qid], _swapped(qid, seed)
    shown = (list(pair.old), list(pair.new)) if swapped else (list(pair.new), list(pair.old))
    if (row.get("set_1"), row.get("set_2")) != shown:
        raise DataError(f"{where}: its sets are not those of question {qid} in this run; label the file that this run wrote")
    return qid, "old" if (winner == "1") == swapped else "new"


def _swapped(qid: str, seed: int) -> bool:
    """Whether the old model's set is shown as the first."""
    return bool(hashlib.sha256(f"label:{seed}:{qid}".encode()).digest()[0] & 1)
