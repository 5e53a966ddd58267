"""Judges whose faults are known by construction, by their verdicts on texts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import Recorded
from auditor.models.recorded_model import RecordedClassifier

COLUMNS = {"item": "item", "position": "position", "length": "words", "author": "writer", "own": "judge-1"}
OPTIONS = {key: column for key, column in COLUMNS.items()}


def judge() -> RecordedClassifier:
    """A judge of whom nothing but the verdicts is known."""
    return RecordedClassifier(classes=("0", "1"), features=("item", "position", "words", "writer"))


def verdicts(
    n: int = 600,
    *,
    first: float = 0.0,
    per_100_words: float = 0.0,
    less_sensitive: float = 0.0,
    own: float = 0.0,
    sensitivity: float = 0.97,
    false_alarms: float = 0.05,
    retest: bool = False,
    seed: int = 0,
) -> AuditData:
    """Verdicts on ``n`` texts at two places each: ``first`` of them are good at the first place and bad at the other.

    ``per_100_words``: how much more the score of a text of 100 words more is; ``less_sensitive``: for the
    group b; ``own``: for the judge's own texts. ``retest``: each text is judged twice at the first place.
    """
    rng = np.random.default_rng(seed)
    good, words = rng.random(n) < 0.6, rng.integers(50, 351, n)
    group, mine = rng.integers(0, 2, n), rng.random(n) < 0.3
    chance = np.where(good, sensitivity - less_sensitive * group, false_alarms)
    chance = np.clip(chance + own * mine, 0.0, 1.0)
    by_place = rng.random(n) < first
    places = ["first", "second", *(["first"] if retest else [])]
    said = np.concatenate([np.where(by_place, place == "first", rng.random(n) < chance) for place in places])
    # Scores of what is called good lie above a half and reach no limit, so that a slope is cut off nowhere.
    score = np.where(said, 0.7, 0.3) + 0.1 * rng.uniform(-1, 1, said.size)
    score += per_100_words * np.tile(words - 200, len(places)) / 100
    table = pd.DataFrame({
        "item": np.tile(np.arange(n), len(places)),
        "position": np.repeat(places, n),
        "words": np.tile(words, len(places)).astype(float),
        "writer": np.tile(np.where(mine, "judge-1", "others"), len(places)),
    })  # fmt: skip
    return AuditData(
        X=table,
        y_true=np.tile(good, len(places)).astype(np.int64),
        classes=("0", "1"),
        positive=1,
        sensitive_features=pd.DataFrame({"group": np.tile(np.where(group == 1, "b", "a"), len(places))}),
        recorded=Recorded(decisions=said.astype(np.int64), scores=np.stack([1.0 - score, score], axis=1)),
    )
