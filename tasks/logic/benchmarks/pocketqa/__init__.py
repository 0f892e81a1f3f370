"""pocketqa: yes/no questions whose answer takes two facts and a comparison, made from a table of real-world facts.

Its claim is "unseen pairs of seen entities": splits are disjoint by unordered pair, and `entity_disjoint` alone asks about entities that no other
split contains. Yes and no are balanced inside each kind, and each comparison is asked in both polarities, so that neither wording nor order gives
the answer away.
"""

from tasks.logic.benchmarks.pocketqa.generator import SPLITS, lookup, rationale, sample
from tasks.logic.benchmarks.pocketqa.prior import entity_prior

__all__ = ["SPLITS", "entity_prior", "lookup", "rationale", "sample"]
