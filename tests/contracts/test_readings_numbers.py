"""Which numbers train a track."""

from __future__ import annotations

from tasks.contracts.profiles import PROFILES, load_profile
from tasks.contracts.readings import Track, numbers_of


def test_track_a_and_what_is_like_it_have_numbers_of_their_own_and_track_b_never_depends_on_them() -> None:
    plain = load_profile("demo", folder=PROFILES, overrides={}).recipe.sft
    own = {"epochs": 7, "learning_rate": 1e-4, "verdict_weight": 1.0}
    sft = load_profile("demo", folder=PROFILES, overrides={"recipe.sft.track_a": own}).recipe.sft
    for track in (Track.TRACK_A, Track.TRACK_A_MATCHED, Track.FACTS_ONLY):
        assert numbers_of(sft, track) == plain.model_copy(update=own)
    for track in (Track.TRACK_B, Track.SHUFFLED_RATIONALE):
        assert numbers_of(sft, track) == numbers_of(plain, track) == plain
