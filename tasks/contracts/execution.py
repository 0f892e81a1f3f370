"""The half of a profile that says how a run goes, never what it computes: changing anything here recomputes nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.contracts.sections import Positive, Rate, Section, Share


class TokenPrice(Section):
    """Dollars per million tokens, for a model that the price table does not know. Null `cached_input` = as `input`."""

    input: Annotated[float, Field(ge=0.0)]
    cached_input: Annotated[float, Field(ge=0.0)] | None
    output: Annotated[float, Field(ge=0.0)]


class TeacherExecution(Section):
    """How fast and how far the teacher may be asked."""

    mode: Literal["online", "batch"]  # batch: OpenAI's Batch API, half the price, up to a day
    requests_per_minute: Positive
    tokens_per_minute: Positive
    max_in_flight: Positive
    timeout_seconds: Rate
    tries: Positive  # HTTP calls for one reply, with growing waits between them, before the question counts as failed
    budget_usd: Rate | None  # spending cap of the whole ledger; null = none
    price: TokenPrice | None  # null = the published price; a paid model without one is refused
    max_failed_share: Share  # more questions than this without any reply fail the run; those are asked again by the next one
    shard: Positive  # questions a Prefect task
    poll_seconds: Rate  # between two looks at a running batch


class TrainExecution(Section):
    """How training and generation use this machine."""

    device: Literal["auto", "cpu", "cuda"]
    processes: Positive  # training processes, one a GPU; the effective batch stays the same
    batch_tokens: Positive | None  # tokens computed at once; null = as many as fit
    gpu_memory_gib: Rate | None  # use no more than this of a GPU; null = all of it
    recompute: Literal["auto", "always", "never"]  # whole layers again in the backward; auto = only where a row would not fit otherwise
    compile: Literal["auto", "always", "never"]  # fused kernels on a GPU; auto = when the run is long enough to repay half a minute
    generate_batch: Positive
    report_to: tuple[Literal["trackio", "mlflow", "wandb"], ...]  # experiment trackers that training also tells its figures; install them yourself


class LoopExecution(Section):
    """What a self-guided loop may use."""

    round_minutes: Rate | None  # a round that takes longer is given up and counts as reverted; null = no limit
    total_minutes: Rate | None  # of all its rounds together; then the loop stops; null = no limit
    usd_per_hour: Annotated[float, Field(ge=0.0)]  # what an hour of this machine costs, for the history; 0 = nothing


class Execution(Section):
    """Everything that decides how a run goes, never what it computes."""

    root: str  # folder that holds data/ and models/
    ledger: str  # SQLite file of teacher replies, relative to root
    teacher: TeacherExecution
    train: TrainExecution
    loop: LoopExecution
