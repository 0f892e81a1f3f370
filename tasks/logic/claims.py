"""Families of comparisons that were fixed before a test split is read: each corrected as a whole, over one run or over several together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.contracts.rows import Prediction
from tasks.logic.scores import Comparison, compare, compare_mean, compare_pooled, holm

Readings = Sequence[Sequence[Prediction]]  # of one side: several where it counts by their mean, as shuffles do
Sides = Mapping[str, Readings]  # by the names that claims use


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A comparison fixed in advance; only the old side may have several readings. `claim`: 0 = better at all; negative = not worse by that much."""

    new: str
    old: str
    claim: float

    @property
    def name(self) -> str:
        """The comparison's name in the summary."""
        return f"{self.new}_vs_{self.old}"


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """One comparison over several runs: each run's own figures, and all of them together."""

    runs: tuple[Comparison, ...]
    together: Comparison


def compare_family(claims: Sequence[Claim], sides: Sides, *, resamples: int, seed: int) -> list[Comparison]:
    """Every claim whose sides were read, on the questions that both were read on; Holm over these."""
    compared = []
    for claim in _answerable(claims, [sides]):
        new, olds = _shared(sides[claim.new][0], sides[claim.old])
        if len(olds) == 1:
            compared.append(compare(claim.name, new, olds[0], resamples=resamples, seed=seed, claim=claim.claim))
        else:
            compared.append(compare_mean(claim.name, new, olds, resamples=resamples, seed=seed, claim=claim.claim))
    return holm(compared)


def pool_family(claims: Sequence[Claim], runs: Sequence[Sides], *, resamples: int, seed: int) -> list[Pooled]:
    """Every claim that all runs can answer, by run and together; Holm over the family each time."""
    claims = _answerable(claims, runs)
    single = [compare_family(claims, sides, resamples=resamples, seed=seed) for sides in runs]
    shared = {claim.name: [_shared(sides[claim.new][0], sides[claim.old]) for sides in runs] for claim in claims}
    together = holm([compare_pooled(claim.name, shared[claim.name], resamples=resamples, seed=seed, claim=claim.claim) for claim in claims])
    return [Pooled(runs=tuple(each), together=whole) for *each, whole in zip(*single, together, strict=True)]


def pooled_table(pooled: Sequence[Pooled]) -> str:
    """Markdown: a line for each run, and one in bold for all runs together."""
    lines = ["| comparison | run | n | difference, pp | 95 % interval | p (Holm) | verdict |", "|---|---|---|---|---|---|---|"]
    for each in pooled:
        lines += [_pooled_line(run, str(number)) for number, run in enumerate(each.runs, start=1)]
        lines.append(_pooled_line(each.together, "**all**"))
    return "\n".join(lines)


def _answerable(claims: Sequence[Claim], runs: Sequence[Sides]) -> list[Claim]:
    return [claim for claim in claims if all(claim.new in sides and claim.old in sides for sides in runs)]


def _shared(new: Sequence[Prediction], olds: Readings) -> tuple[list[Prediction], list[list[Prediction]]]:
    """All readings on the questions that each of them has: some may have read only the first ones."""
    shared = set.intersection(*({row.qid for row in rows} for rows in (new, *olds)))
    first, *others = ([row for row in rows if row.qid in shared] for rows in (new, *olds))
    return first, others


def _pooled_line(each: Comparison, run: str) -> str:
    interval = f"{100 * each.ci_low:+.1f} to {100 * each.ci_high:+.1f}"
    return f"| {each.name} | {run} | {each.n} | {100 * each.difference:+.1f} | {interval} | {each.p_holm:.2g} | {each.verdict} |"
