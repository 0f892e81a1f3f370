"""What rate headers say: `x-ratelimit-limit-*` is a number of calls or tokens, over a time that only `x-ratelimit-reset-*` tells."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_SECOND, _MINUTE, _HOUR, _DAY = 1.0, 60.0, 3600.0, 86_400.0
_UNITS = {"ms": 0.001, "s": _SECOND, "m": _MINUTE, "h": _HOUR, "d": _DAY}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_TICK = 0.001  # seconds; resets are rounded to it
_NEAR = 1.25  # a window within this factor of a minute is one


def reported_limits(headers: Mapping[str, str]) -> dict[str, float | None]:
    """Calls and tokens per minute that the headers allow; None where they say nothing that makes sense."""
    return {f"{name}_per_minute": _per_minute(headers, name) for name in ("requests", "tokens")}


def _per_minute(headers: Mapping[str, str], name: str) -> float | None:
    limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
    if not limit:
        return None
    remaining, reset = _number(headers.get(f"x-ratelimit-remaining-{name}")), duration(headers.get(f"x-ratelimit-reset-{name}"))
    return limit * _MINUTE / _window(limit, used=limit - remaining if remaining is not None else 1.0, reset=reset)


def _window(limit: float, *, used: float, reset: float | None) -> float:
    """The seconds that a limit is for, a minute where nothing else is said.

    A window that is as long as a reset or longer is a second, a minute, an hour or a day. Only resets below a second are doubtful: a bucket of a
    minute's calls that refills all the time is full again as soon after a few calls. It is one where the calls used come back at a minute's rate.
    """
    if not reset or reset > _DAY:
        return _MINUTE
    if reset > _SECOND:
        return next(window for window in (_MINUTE, _HOUR, _DAY) if reset <= window)
    shortest, longest = (max(reset + error, 0.0) * limit / max(used, 1.0) for error in (-_TICK, _TICK))
    return _MINUTE if shortest <= _MINUTE * _NEAR and longest >= _MINUTE / _NEAR else _SECOND


def duration(text: str | None) -> float | None:
    """Seconds of 1m30s, 20ms, 6m0s, 1h2m3.5s or a plain number of seconds; None for anything else, such as a date."""
    said = (text or "").strip().lower()
    parts = _PART.findall(said)
    if parts and "".join(number + unit for number, unit in parts) == said:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    return _number(said)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
