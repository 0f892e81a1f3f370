"""bespokelabs-curator, run by its own environment: its OpenAI backend with the same limits, its own retries (10) and its own defaults otherwise.

Its rich display and telemetry are off. Its cache is off too, except where a reading asks what a second run pays.
"""

from typing import Any

from bespokelabs import curator
from datasets import Dataset
from meter import measure, messages_for

SPEC: dict[str, Any] = {}


class Teacher(curator.LLM):
    def prompt(self, row):
        return messages_for(SPEC, row["number"])

    def parse(self, row, response):
        return {"number": row["number"], "response": response}


def ask(spec: dict[str, Any]) -> dict[str, Any]:
    SPEC.update(spec)
    limits = {"max_requests_per_minute": spec["rpm"] or 10**9, "max_tokens_per_minute": spec["tpm"] or 10**9, "max_concurrent_requests": spec["in_flight"]}
    backend = {"base_url": spec["base_url"], "request_timeout": int(spec["timeout"]), "require_all_responses": False, **limits}
    teacher = Teacher(
        model_name=spec["model"], backend="openai", backend_params=backend, generation_params={"temperature": 0.0, "max_tokens": spec["max_tokens"], "seed": 0}
    )
    rows = teacher(Dataset.from_list([{"number": number} for number in range(spec["count"])])).dataset
    return {"lost": spec["count"] - sum(bool(response) for response in rows["response"])}


if __name__ == "__main__":
    measure(ask)
