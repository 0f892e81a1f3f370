"""What an endpoint's final no is about: the account or the model, a parameter, or this one request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.contracts.rows import Outcome

PASSING = frozenset({408, 409, 425, 429})  # and every 5xx
LIMITS = ("max_tokens", "max_completion_tokens")
_OPTIONAL = ("temperature", "response_format", "seed")
_ADVICE = {
    400: "check recipe.teacher (model, temperature, max_tokens)",
    401: "set OPENAI_API_KEY to a valid key",
    402: "add credit with the provider",
    403: "use a key that may call this model, set in OPENAI_API_KEY",
    404: "check recipe.teacher.model and OPENAI_BASE_URL",
}
_ACCOUNT_CODES = frozenset({
    "invalid_api_key", "account_deactivated", "billing_not_active", "billing_hard_limit_reached", "insufficient_quota", "insufficient_credits",
    "model_not_found", "model_not_available", "invalid_model", "unknown_model", "deploymentnotfound", "permission_denied",
    "unsupported_country_region_territory",
})  # fmt: skip
_ACCOUNT = re.compile(
    r"credit balance|insufficient (?:credit|balance|quota|fund)|out of credit|billing|api[ _-]?key|model .{0,80}(?:not exist|not found)", re.IGNORECASE
)
_POLICY = re.compile(
    r"moderat|flagged|polic(?:y|ies)|safety|invalid_prompt|content_filter|usage check|data_inspection|sensitive|inappropriate|cyber", re.IGNORECASE
)
_NOT_TAKEN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|not permitted|not allowed|extra inputs|unexpected|deprecated|invalid parameter|instead", re.IGNORECASE
)
Subject = Literal["quota", "account", "parameter", "request", "passing"]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An endpoint's error: its HTTP status, and what its body says, of any shape."""

    status: int
    code: str = ""
    param: str = ""
    message: str = ""
    more: str = ""  # the rest of what the body says

    @property
    def subject(self) -> Subject:
        """What is refused."""
        code = self.code.casefold()
        if code == "insufficient_quota":
            return "quota"
        if self.status in PASSING or self.status >= 500:
            return "passing"
        if self.status in (401, 402, 404, 405, 407) or code in _ACCOUNT_CODES or self.param == "model":
            return "account"
        if self.outcome is Outcome.REFUSED:
            return "request"
        if self.status == 403 or _ACCOUNT.search(self.message):
            return "account"
        return "parameter" if self.parameter else "request"

    @property
    def outcome(self) -> Outcome:
        """Of the question, where it is this request that is refused: by a policy, or because it cannot be done."""
        return Outcome.REFUSED if _POLICY.search(f"{self.code} {self.message} {self.more}") else Outcome.FAILED

    @property
    def parameter(self) -> str:
        """The parameter of ours that the endpoint does not take, by name; "" where it names none."""
        if not (_NOT_TAKEN.search(f"{self.code} {self.message}")):
            return ""
        if self.param in (*LIMITS, *_OPTIONAL):
            return self.param
        places = {name: found.start() for name in (*LIMITS, *_OPTIONAL) if (found := re.search(rf"\b{name}\b", self.message))}
        return min(places, key=places.__getitem__, default="")  # the first: another that is to be used instead comes after it

    @property
    def alike(self) -> str:
        """What it has in common with the same refusal of another request: everything but numbers."""
        return f"{self.status} {self.code} {re.sub(r'[0-9a-f]*[0-9][0-9a-f-]*', '#', self.message)}"

    @property
    def advice(self) -> str:
        """What to do about one that ends the run."""
        return _ADVICE.get(self.status, "check recipe.teacher and OPENAI_BASE_URL")


def refusal_of(status: int, error: Any) -> Refusal:
    """An endpoint's error of any shape: OpenAI's object, a text, or another server's `detail`."""
    if not isinstance(error, Mapping):
        return Refusal(status=status, message=str(error or ""))
    inner = error.get("error")
    if isinstance(inner, Mapping):
        error = inner
    message = error.get("message") or error.get("detail") or error.get("msg") or (inner if isinstance(inner, str) else "")
    rest = {name: value for name, value in error.items() if name not in ("message", "code", "param")}
    return Refusal(status=status, code=str(error.get("code") or ""), param=str(error.get("param") or ""), message=str(message), more=str(rest)[:2000])


@dataclass
class Dialect:
    """Which parameters an endpoint has refused by name. What it takes is learned from what it says; a model's name is only what is tried first."""

    refused: frozenset[str] = frozenset()

    def learn(self, parameter: str) -> bool:
        """Note a refused parameter; returns whether a body without it says the same: a limit must be said by one name or the other."""
        if not parameter or parameter in self.refused or (parameter in LIMITS and any(name in self.refused for name in LIMITS)):
            return False
        self.refused |= {parameter}
        return True
