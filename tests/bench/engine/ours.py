"""Our engine: the side that the bars are about. `job` says what to do; see `work.Job` for its data and `shapes.random_student` for the student.

The harness holds the allocator to 7.41 GiB before these are called where `job.capped`, and reads the peaks of the whole process after.
"""

from tests.bench.engine.measure import Generated, Trained
from tests.bench.engine.work import Job


def sft_seconds(job: Job) -> Trained:
    """Seconds of each measured optimiser step over `job.batch` rows of `job.rows(steps)`; `measure.timed_steps` takes them."""
    raise NotImplementedError(f"sft_seconds for {job.reading}")


def dpo_seconds(job: Job) -> Trained:
    """The same over `job.batch` pairs of `job.pairs(steps)`, with the reference pass's seconds a pair in `reference`."""
    raise NotImplementedError(f"dpo_seconds for {job.reading}")


def generate_seconds(job: Job) -> Generated:
    """Seconds to continue all of `job.prompts()` at once by `job.new_tokens` tokens each, greedily, an adapter applied, no early end."""
    raise NotImplementedError(f"generate_seconds for {job.reading}")
