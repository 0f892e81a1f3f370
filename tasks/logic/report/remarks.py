"""Models that are not what their name says, and what little some of it stands on: said beside the results wherever they are shown."""

from __future__ import annotations

from tasks.logic.report.facts import RunFacts

FEW_PAIRS = 50


def same_as(facts: RunFacts) -> dict[str, str]:
    """Which models of the run are another one under a second name."""
    paths = {made.name: made.path for made in facts.artifacts}
    found = {}
    if "finetune track_a" in paths and paths["finetune track_a"] == paths.get("finetune track_a_matched"):
        found["track_a_matched"] = "track_a"
    if not facts.accepted and (not facts.was_aligned or facts.named("align").summary["kept_epoch"] == 0):
        found["aligned"] = "track_b"
    return found


def remarks(facts: RunFacts) -> list[str]:
    """What a reader of the result table should know, in sentences."""
    same, told = same_as(facts), []
    if "track_a_matched" in same:
        told.append("Track A took as many steps as Track B, so it is its own twin of equal length: read, summed and tested once.")
    if not facts.was_aligned:
        told.append(
            "There was no preference pair to train on (no wrong sample that could be paired, in both classes), so the aligned model is Track B itself: "
            "raise recipe.pair.samples or recipe.curate.pair_share."
        )
        return told
    if "aligned" in same:
        told.append("No epoch of preference training answered more dev questions right than Track B, so the aligned model is Track B itself.")
    pairs = int(facts.named("align").summary.get("pairs", FEW_PAIRS))
    if pairs < FEW_PAIRS:
        told.append(f"Preference training had only {pairs} pair{'s' * (pairs != 1)} to learn from.")
    return told
