"""The simulated endpoint's rate limits: requests and tokens in any 60 seconds, told in OpenAI's headers."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

WINDOW = 60.0


@dataclass
class Window:
    """What was admitted within the last minute, and the most there ever was. Calls that were turned away do not count."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    most_requests: int = 0
    most_tokens: int = 0
    first: float | None = None  # when the first and the last call came, whether admitted or not
    last: float = 0.0
    total_requests: int = 0
    total_tokens: int = 0
    per_second: list[list[int]] = field(default_factory=list)  # [calls, tokens] of each second since the first
    _admitted: deque[tuple[float, int]] = field(default_factory=deque)
    _tokens: int = 0

    def admit(self, tokens: int, *, now: float) -> float:
        """Let a call in and return 0, or turn it away and return the seconds after which it would fit."""
        if self.first is None:
            self.first = now
        self.last = now
        self._forget(now)
        wait = self._wait(tokens, now)
        if wait > 0:
            return wait
        self._admitted.append((now, tokens))
        self._tokens += tokens
        self._note(tokens, second=int(now - self.first))
        return 0.0

    def _forget(self, now: float) -> None:
        while self._admitted and self._admitted[0][0] <= now - WINDOW:
            self._tokens -= self._admitted.popleft()[1]

    def _wait(self, tokens: int, now: float) -> float:
        excess = self._tokens + tokens - self.tokens_per_minute if self.tokens_per_minute is not None else 0
        full = self.requests_per_minute is not None and len(self._admitted) >= self.requests_per_minute
        if not full and excess <= 0:
            return 0.0
        leaves = now
        for admitted_at, freed in self._admitted:
            leaves = admitted_at + WINDOW
            excess -= freed
            if excess <= 0:
                break
        return max(leaves - now, 0.001)

    def _note(self, tokens: int, *, second: int) -> None:
        self.total_requests += 1
        self.total_tokens += tokens
        self.most_requests = max(self.most_requests, len(self._admitted))
        self.most_tokens = max(self.most_tokens, self._tokens)
        while len(self.per_second) <= second:
            self.per_second.append([0, 0])
        self.per_second[second][0] += 1
        self.per_second[second][1] += tokens

    def headers(self, *, now: float) -> dict[str, str]:
        """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` for each limit that there is."""
        reset = duration(self._admitted[-1][0] + WINDOW - now if self._admitted else 0.0)
        found: dict[str, str] = {}
        for name, limit, used in (("requests", self.requests_per_minute, len(self._admitted)), ("tokens", self.tokens_per_minute, self._tokens)):
            if limit is not None:
                left = max(limit - used, 0)
                found |= {f"x-ratelimit-limit-{name}": str(limit), f"x-ratelimit-remaining-{name}": str(left), f"x-ratelimit-reset-{name}": reset}
        return found


def retry_headers(seconds: float) -> dict[str, str]:
    """`retry-after-ms` and, in whole seconds, `retry-after`."""
    return {"retry-after-ms": str(math.ceil(seconds * 1000)), "retry-after": str(math.ceil(seconds))}


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: 120ms, 8.64s, 1m0s."""
    if seconds < 1:
        return f"{max(math.ceil(seconds * 1000), 0)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.0f}s" if minutes else f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
