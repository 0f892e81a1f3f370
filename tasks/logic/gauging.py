"""Texts by which a round's student is held against the one it started from and against Track B: whose they are, and who reads which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tasks.contracts.rounds import Gauged, Likelihood, Spoken
from tasks.contracts.rows import Completion, Pair, Request
from tasks.logic.round_pairs import fresh_pairs

CHOSEN, SOURCE, OWN = "chosen", "source", "own"
READERS: Mapping[str, tuple[str, ...]] = {  # which roles each student reads
    "candidate": (OWN, CHOSEN),
    "accepted": (CHOSEN,),
    "track_b": (OWN, CHOSEN, SOURCE),
}


def gauged_texts(pairs: Sequence[Pair], first: Sequence[Pair], requests: Sequence[Request], completions: Sequence[Completion]) -> list[Spoken]:
    """The chosen texts of a round's fresh pairs, those of the first alignment, and what the round's student drew when asked `requests`."""
    chosen = [Spoken(qid=pair.qid, role=CHOSEN, prompt=pair.prompt, completion=pair.chosen) for pair in fresh_pairs(pairs, first)]
    source = [Spoken(qid=pair.qid, role=SOURCE, prompt=pair.prompt, completion=pair.chosen) for pair in first]
    drawn = zip(requests, completions, strict=True)
    return [*chosen, *source, *(Spoken(qid=asked.qid, role=OWN, prompt=asked.prompt, completion=reply.text) for asked, reply in drawn)]


def read_by(texts: Sequence[Spoken], reader: str) -> list[Spoken]:
    """The texts that a student reads, in order."""
    return [text for text in texts if text.role in READERS[reader]]


def gauged(texts: Sequence[Spoken], found: Mapping[str, Sequence[Likelihood]]) -> list[Gauged]:
    """Texts in order under every student; `found` holds what each said of `read_by` its name. What one did not read is nan."""
    said = {reader: iter(rows) for reader, rows in found.items()}
    made = []
    for text in texts:
        nats, tokens = dict.fromkeys(READERS, math.nan), 0
        for reader in READERS:
            if text.role in READERS[reader]:
                row = next(said[reader])
                nats[reader], tokens = row.nats, row.tokens
        made.append(Gauged(qid=text.qid, role=text.role, text=text.completion, tokens=tokens, **nats))
    return made
