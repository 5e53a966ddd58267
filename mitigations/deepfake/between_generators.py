"""Estimates over kinds of generators: kinds are the sampling units; their files only estimate each kind."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.models.detector_card import KnownRate
from auditor.statistics.values import bounded_mean


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
