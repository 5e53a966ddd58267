"""The samples of the log of an evaluation, with their scores and what the log reports of them."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from auditor.core.errors import UsageError, did_you_mean
from auditor.loading.rows.sample_clusters import SampleKeys

_MOST_NAMES = 200
_WORDS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
SCORED, ERRORED, UNSCORED = 0, 1, 2
Json = Any


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a log reports of its own samples, or of a ``part`` of them such as a task.

    ``metric`` and ``value``: a mean score, None where it is none that samples can contradict. ``n``: how many samples
    there are, each once. ``scored``: how many scores there are, repeats counted. ``decimals``: as far as the value is
    written, None for all of a double.
    """

    part: str = ""
    metric: str = ""
    value: float | None = None
    n: int | None = None
    scored: int | None = None
    decimals: int | None = None


@dataclass(kw_only=True)
class LoggedSamples:
    """The scores of a log, one entry for each sample and repeat, and what the log reports.

    ``score``: the one that is read, None for the only one. ``columns``: the metadata that are kept. ``values``: (n,)
    NaN where there is none; ``states``: (n,) SCORED, ERRORED or UNSCORED; ``parts``: (n,) places in ``part_names``.
    ``expected``: the ids that the log says it has. ``epochs_set``: repeats of each sample, as the log says.
    ``contradictions``: found while reading, each by its kind and a sentence. ``judge``: the model that gave the score.
    ``of_all_samples``: the scores that are made of all samples, and that no sample has. ``keys``: what samples may have
    in common, None where nobody asks. ``repeats``: by part, how many answers an entry
    holds that is all repeats of its sample.
    """

    score: str | None
    columns: dict[str, list[Json]]
    kind: str = ""
    model: str = ""
    ids: list[str] = field(default_factory=list)
    epochs: array[int] = field(default_factory=lambda: array("i"))
    values: array[float] = field(default_factory=lambda: array("d"))
    states: bytearray = field(default_factory=bytearray)
    parts: array[int] = field(default_factory=lambda: array("i"))
    part_names: dict[str, int] = field(default_factory=dict)
    score_names: Counter[str] = field(default_factory=Counter)
    metadata_names: dict[str, None] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    claims: list[Claim] = field(default_factory=list)
    expected: set[str] | None = None
    epochs_set: int | None = None
    contradictions: list[tuple[str, str]] = field(default_factory=list)
    judge: str = ""
    of_all_samples: set[str] = field(default_factory=set)
    keys: SampleKeys | None = None
    repeats: dict[str, set[int]] = field(default_factory=dict)
    _uids: set[str] = field(default_factory=set)
    _texts: dict[Json, Json] = field(default_factory=dict)

    def add(
        self,
        name: object,
        scores: Mapping[str, Json],
        *,
        epoch: object = 1,
        errored: bool = False,
        metadata: Mapping[str, Json] | None = None,
        model: object = None,
        part: str = "",
        uid: object = None,
        text: object = None,
    ) -> None:
        """One sample; ``uid``: what no other entry of the log may have; ``text``: its input."""
        for known in scores:
            if known in self.score_names or len(self.score_names) < _MOST_NAMES:
                self.score_names[known] += 1
        own = self.score if self.score is not None else next(iter(scores), None)
        value = math.nan if errored or own is None else number_of(scores.get(own))
        self.ids.append(f"{part}/{name}" if part else str(name))
        self.epochs.append(count_of(epoch) or 1)
        self.values.append(value)
        self.states.append(ERRORED if errored else UNSCORED if math.isnan(value) else SCORED)
        self.parts.append(self.part_names.setdefault(part, len(self.part_names)))
        known_metadata = {} if metadata is None else metadata
        if self.keys is not None:
            self.keys.add(len(self.ids) - 1, known_metadata, text, part)
        for key in known_metadata:
            if len(self.metadata_names) < _MOST_NAMES:
                self.metadata_names[key] = None
        for key, column in self.columns.items():
            found = part if key == "task" and part and key not in known_metadata else known_metadata.get(key)
            found = found if found is None or isinstance(found, str | int | float) else json.dumps(found)
            column.append(self._texts.setdefault(found, found))
        if isinstance(model, str) and model and (model in self.models or len(self.models) < _MOST_NAMES):
            self.models[model] += 1
        if isinstance(uid, str):
            if uid in self._uids and len(self.contradictions) < _MOST_NAMES:
                self.contradictions.append(("repeated_epochs", f"sample {name} is a copy of another entry ({uid})"))
            self._uids.add(uid)

    def states_of(self, part: str) -> Counter[int]:
        """How many entries of a part are in each state."""
        code = self.part_names.get(part, -1)
        return Counter(state for own, state in zip(self.parts, self.states, strict=True) if own == code)

    def check(self, name: str) -> None:
        """Raise UsageError where it is not clear which score is meant, or a column is not there."""
        names = sorted(self.score_names)
        if self.score is None and len(names) > 1:
            raise UsageError(f"{name} has several scores: add --score with one of {', '.join(names[:12])}.")
        if self.score is not None and names and self.score not in names:
            near = did_you_mean(self.score, names) or "."
            raise UsageError(f"{name} has no score {self.score!r}{near} It has: {', '.join(names[:12])}.")
        known = {*self.metadata_names, *(["task"] if any(self.part_names) else [])}
        for column in self.columns:
            if self.ids and column not in known:
                near = did_you_mean(column, known) or "."
                raise UsageError(
                    f"The samples of {name} have no metadata {column!r}{near} They have: "
                    f"{', '.join(sorted(known)[:12]) or 'none'}."
                )


def number_of(value: Json) -> float:
    """A score as a number: C, P and I as 1, 0.5 and 0, words of yes and no likewise; NaN for what is none."""
    if isinstance(value, bool | int | float):
        found = float(value) if abs(value) < 1e300 else math.nan
        return found if math.isfinite(found) else math.nan
    if not isinstance(value, str):
        return math.nan
    if (word := value.strip()) in _WORDS or word.lower() in _WORDS:
        return _WORDS.get(word, _WORDS.get(word.lower(), math.nan))
    try:
        found = float(word)
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def count_of(value: Json) -> int | None:
    """A whole number of things, None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**8 else None
