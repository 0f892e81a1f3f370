"""What a call costs, from the price table that `genai-prices` carries. Never downloads."""

from __future__ import annotations

from decimal import Decimal

from genai_prices import Usage, calc_price


def usd(*, model: str, tokens_in: int, tokens_out: int) -> float | None:
    """Dollars for one call to an OpenAI model; None when the table does not know the model."""
    try:
        price: Decimal = calc_price(Usage(input_tokens=tokens_in, output_tokens=tokens_out), model_ref=model, provider_id="openai").total_price
    except LookupError:
        return None
    return float(price)
