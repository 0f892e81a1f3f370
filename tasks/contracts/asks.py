"""What passes between the teach stage and a teacher: asks out, answers and their cost back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question to a teacher. `messages` are chat-completion messages; `hinted` says that the gold facts stand in them."""

    qid: str
    sample: int
    messages: tuple[dict[str, str], ...]
    hinted: bool
    schema: Mapping[str, object] | None = None  # JSON schema that the reply must follow; None = the text format of the prompt


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one ask ended. `text` is the reply as it came, "" where there is none; `note` says why a row has no usable reply."""

    ask: Ask
    outcome: str
    text: str
    model: str
    attempts: int
    note: str
    status: int = 0  # HTTP status of the last call; 0 where no call got an answer
    request_id: str = ""
    final: bool = True  # asking again later cannot mend it


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What asking cost. `cached` answers came from the ledger and cost nothing; `reasks` are calls for a reply that was cut, refused or unreadable."""

    calls: int = 0
    cached: int = 0
    retries: int = 0
    reasks: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What asking would take: calls, tokens, US dollars, and minutes at the profile's limits."""

    calls: int
    tokens_in: int
    tokens_out: int
    usd: float
    minutes: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the teach stage would cost before it begins. `owned` replies are in the ledger already; `notes` say what the figures rest on."""

    asks: int
    owned: int
    low: Cost
    expected: Cost
    high: Cost
    disk_bytes: int
    notes: tuple[str, ...]
