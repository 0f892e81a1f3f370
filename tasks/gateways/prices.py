"""What a call costs, from the price table that `genai-prices` carries or from the profile. Never downloads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version

from tasks.contracts.execution import TokenPrice

BATCH_SHARE = 0.5  # OpenAI's Batch API bills half of every token price (platform.openai.com/docs/guides/batch, as of 2026-11)
_PROBE = 1000  # tokens: inside the first tier of models whose price rises with the prompt's length


@dataclass(frozen=True, kw_only=True)
class Price:
    """Dollars per million tokens; `origin` says where the figures are from."""

    input: float
    cached_input: float
    output: float
    origin: str

    def usd(self, *, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> float:
        """Dollars for one call. `tokens_cached` is the part of `tokens_in` that came from the endpoint's prompt cache."""
        cached = min(tokens_cached, tokens_in)
        return ((tokens_in - cached) * self.input + cached * self.cached_input + tokens_out * self.output) / 1e6

    def in_batch(self) -> Price:
        """The price of the same tokens through the Batch API."""
        share = {name: getattr(self, name) * BATCH_SHARE for name in ("input", "cached_input", "output")}
        return replace(self, **share, origin=f"{self.origin}, batch")


FREE = Price(input=0.0, cached_input=0.0, output=0.0, origin="free")


def published_price(model: str) -> Price | None:
    """The list price of an OpenAI model; None when the table does not know it."""
    try:
        cost_in = _cost(model)
        cost_cached = _cost(model, cache_read_tokens=_PROBE)
        cost_out = _cost(model, output_tokens=_PROBE) - cost_in
    except LookupError:
        return None
    return Price(input=cost_in, cached_input=min(cost_cached or cost_in, cost_in), output=cost_out, origin=f"genai-prices {version('genai-prices')}")


def given_price(given: TokenPrice) -> Price:
    """The profile's own price."""
    cached = given.input if given.cached_input is None else given.cached_input
    return Price(input=given.input, cached_input=cached, output=given.output, origin="execution.teacher.price")


def _cost(model: str, **further: int) -> float:
    """Dollars per million tokens of one kind: of the prompt alone, or with `further` tokens."""
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=_PROBE, **further)
    return float(calc_price(usage, model_ref=model, provider_id="openai").total_price) * 1e6 / _PROBE
