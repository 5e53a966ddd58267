"""Evaluation of a detector on unseen sources: estimates over kinds of generators, and leave-one-collection-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import AuditorError
from auditor.models.detector_card import KnownRate
from auditor.statistics.rates import Proportion
from auditor.statistics.values import bounded_mean

if TYPE_CHECKING:
    from auditor.models.detector import DeepfakeDetector


def over_kinds(rates: Sequence[KnownRate]) -> list[KnownRate]:
    """By metric the mean over kinds of each kind's value, (k,) values in [0, 1], with its interval.

    The interval is of the mean over the kinds that these were drawn from, by
    :class:`~auditor.statistics.values.BoundedMean`: however many files each has, three kinds say next to nothing of
    the next. ``rates``: of a kind each, of kinds left out of training.
    """
    found = []
    for metric in dict.fromkeys(rate.metric for rate in rates):
        own = [rate for rate in rates if rate.metric == metric]
        mean = bounded_mean([rate.value for rate in own], low=0.0, high=1.0)
        low, high = mean.interval(own[0].confidence)
        found.append(
            own[0].model_copy(
                update={
                    "value": mean.value,
                    "low": max(0.0, low),
                    "high": min(1.0, high),
                    "kind": None,
                    "n_real": max(rate.n_real for rate in own),
                    "n_fake": sum(rate.n_fake for rate in own),
                }
            )
        )
    return found


MOST_COLLECTIONS = 10
_CONFIDENCE = 0.95


def rates_by_collection(
    paths: Sequence[Path],
    is_fake: Sequence[bool],
    collections: Sequence[str | None],
    fit: Callable[[Sequence[int]], DeepfakeDetector],
) -> tuple[tuple[KnownRate, ...], tuple[str, ...]]:
    """Answers of whole detectors on collections left out of their training, and the unmeasurable ones.

    For each named collection in turn ``fit`` makes a detector of the files of all others, its calibration included;
    ``false_positive_rate`` is the share of the collection's real files that it calls fake, ``true_positive_rate`` that
    of its synthetic ones, each with Clopper and Pearson's interval: of files of this collection, not of the next.
    """
    named = sorted({name for name in collections if name is not None})
    rates: list[KnownRate] = []
    notes = []
    if len(named) > MOST_COLLECTIONS:
        notes.append(f"Of {len(named):,} collections the first {MOST_COLLECTIONS} were left out in turn.")
    for name in named[:MOST_COLLECTIONS]:
        own = [i for i, found in enumerate(collections) if found == name]
        try:
            detector = fit([i for i, found in enumerate(collections) if found != name])
        except AuditorError as error:
            notes.append(f"The collection {name} could not be left out: {error}")
            continue
        called = {i: _called_fake(detector, paths[i]) for i in own}
        rates += _known_rates(name, [called[i] for i in own if not is_fake[i]], "false_positive_rate", fake=False)
        rates += _known_rates(name, [called[i] for i in own if is_fake[i]], "true_positive_rate", fake=True)
    return tuple(rates), tuple(notes)


def _called_fake(detector: DeepfakeDetector, path: Path) -> bool:
    from auditor.detection.examine_file import Examination

    verdict = Examination(detector=detector, with_provenance=False).examine_file(path).verdict
    return verdict is not None and verdict.answer == "fake"


def _known_rates(collection: str, flags: Sequence[bool], metric: str, *, fake: bool) -> list[KnownRate]:
    if not flags:
        return []
    share = Proportion(successes=sum(flags), n=len(flags))
    low, high = share.interval(_CONFIDENCE)
    return [
        KnownRate(
            metric=metric,
            value=share.value,
            low=low,
            high=high,
            confidence=_CONFIDENCE,
            collection=collection,
            unseen=True,
            n_real=0 if fake else len(flags),
            n_fake=len(flags) if fake else 0,
        )
    ]
