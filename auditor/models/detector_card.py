"""The detector card as data: calibration, limits and known error rates of a detector of synthetic media."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from auditor.core.errors import UsageError
from auditor.core.files import Closed
from auditor.core.number_types import Count, Share

Medium = Literal["image", "speech"]
Answer = Literal["fake", "no known trace", "cannot say"]
TRACELESS: Answer = "no known trace"
# What a detector is for, and what it looks at of a file.
IS_FOR: dict[Medium, str] = {"image": "images", "speech": "speech"}
LOOKS_AT: dict[Medium, str] = {"image": "pictures", "speech": "sound"}
# The metric of each answer's share; the second is what it was called before no answer said that a file is real.
METRIC_OF: dict[Answer, str] = {
    "fake": "answered_fake",
    TRACELESS: "answered_real",
    "cannot say": "answered_cannot_say",
}
MOST_SCORES = 10_000
MOST_KINDS = 1_000
# Training files whose digests a card holds, and the hexadecimal digits of each: two files meet once in 2 ** 64.
MOST_TRAINED, DIGITS = 50_000, 16
# A promise that takes more calibration files than a card holds can never be kept, nor one by which both classes go.
LEAST_ERROR_RATE, LARGEST_ERROR_RATE = 1e-4, 0.5
_ROUNDING = 1e-9
CONFIDENCE = 0.95

Name = Annotated[str, Field(min_length=1, max_length=200)]
Fingerprint = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# What a container says of how a file came: its encoding, its dimensions, which metadata it has.
Facts = Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=4)]


def _of_this_version(fields: Any) -> Any:
    """Earlier versions measured how unlike its training files a file is, and rates on collections left out."""
    if not isinstance(fields, dict):
        return fields
    kept = {name: value for name, value in fields.items() if name not in ("novelties", "novelty_rate")}
    if isinstance(rates := kept.get("known_rates"), list):
        kept["known_rates"] = [r for r in rates if not isinstance(r, dict) or r.get("collection") is None]
    return kept


class KnownRate(Closed):
    """A measured error rate of a new detector, on files outside its training data.

    ``kind``: the generator of the synthetic files, or None over all of them. ``unseen``: whether that generator's files
    were left out of the training that was measured. ``metric``: as the probe ``detector_performance`` names it.
    ``value`` in [0, 1]. ``low`` and ``high``: the interval at ``confidence``, around the value; None where it has none.
    n_real, n_fake: files measured.
    """

    metric: Name
    value: Share
    low: Share | None = None
    high: Share | None = None
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    kind: Name | None = None
    unseen: bool = False
    n_real: Count
    n_fake: Count

    @model_validator(mode="before")
    @classmethod
    def _over_all_collections(cls, fields: Any) -> Any:
        return {k: v for k, v in fields.items() if k != "collection"} if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _interval_holds_the_value(self) -> Self:
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        if not low <= self.value + _ROUNDING or not self.value <= high + _ROUNDING:
            raise ValueError("an interval holds its value: low <= value <= high")
        return self


class ChannelCalibration(Closed):
    """Calibration of a detector on its user's own channel, with the scores of that channel's files.

    ``unit``: what each score is of. ``facts``: of the containers of the files known to be real; none where an earlier
    version calibrated. ``fake_before``: how many of them the calibration before called fake.
    ``promised``: whether it promised anything; of a classifier that had none ``fake_before`` counts scores of 0.5 and
    more. ``n_fake``: known fakes, and for ``n_found`` of them real is ruled out. ``n_trimmed``: of the files named as
    real, those with the highest scores that were left out, since some may be fake.
    """

    unit: Literal["file", "video"] = "file"
    facts: Annotated[tuple[Facts, ...], Field(max_length=MOST_SCORES)] = ()
    fake_before: Count = 0
    promised: bool = True
    n_fake: Count = 0
    n_found: Count = 0
    n_trimmed: Count = 0

    _of_earlier_versions = model_validator(mode="before")(_of_this_version)

    def p_value(self, facts: Sequence[str]) -> float:
        """The conformal p-value that a file with these facts came as the files known to be real did; 1 without facts.

        ``(1 + #{j: s_j <= s}) / (n + 1)`` with ``s`` the sum over facts of the logarithm of how many of all n + 1 files
        share the file's own: at most e with probability at most e for a file exchangeable with the known ones (Vovk,
        Gammerman and Shafer, 2005). One encoding among all of them tells a file of another; where each has dimensions
        of its own, dimensions tell nothing.
        """
        return _channel_p_value(self.facts, tuple(facts)) if self.facts else 1.0

    @model_validator(mode="after")
    def _no_more_found_than_there_are(self) -> Self:
        if self.n_found > self.n_fake:
            raise ValueError("no more fakes are found than there are")
        return self


class DetectorCard(Closed):
    """A detector's description beside its weights: its calibration, its limits, and its known error rates.

    ``fake``: index of the synthetic class. ``real_scores`` and ``fake_scores``: ascending probabilities of the
    synthetic class that calibration files of either class had from training rounds that had not seen them, and, where
    kinds are known, had not seen their kind either. ``error_rate``: the share of each class's files, exchangeable with
    the calibration files, for which that class may be ruled out, in [0.0001, 0.5]. ``kinds``: the generators it was
    trained on. ``channel``: what is known on the files of its user, where the calibration scores are of those.
    ``trained_on``: of every file trained on the first digits of its SHA-256;
    ``fingerprints``: what those show or sound like, by :mod:`auditor.detection.fingerprints`.
    """

    medium: Medium
    fake: Literal[0, 1]
    real_scores: Annotated[tuple[Share, ...], Field(max_length=MOST_SCORES)]
    fake_scores: Annotated[tuple[Share, ...], Field(max_length=MOST_SCORES)]
    error_rate: Annotated[float, Field(ge=LEAST_ERROR_RATE, le=LARGEST_ERROR_RATE)] = 0.05
    kinds: Annotated[tuple[Name, ...], Field(max_length=MOST_KINDS)] = ()
    known_rates: Annotated[tuple[KnownRate, ...], Field(max_length=10 * MOST_KINDS)] = ()
    notes: Annotated[tuple[Annotated[str, Field(max_length=2_000)], ...], Field(max_length=100)] = ()
    channel: ChannelCalibration | None = None
    trained_on: Annotated[
        tuple[Annotated[str, Field(pattern=f"^[0-9a-f]{{{DIGITS}}}$")], ...], Field(max_length=MOST_TRAINED)
    ] = ()
    fingerprints: Annotated[tuple[Fingerprint, ...], Field(max_length=MOST_TRAINED)] = ()

    _of_earlier_versions = model_validator(mode="before")(_of_this_version)

    @model_validator(mode="after")
    def _channel_holds(self) -> Self:
        """What is known on a channel follows from the calibration scores, which are of it."""
        channel = self.channel
        if channel is None:
            return self
        real = np.asarray(self.real_scores)
        at_least = len(real) - np.searchsorted(real, np.asarray(self.fake_scores), side="left")
        found = int(((1 + at_least) / (len(real) + 1) <= self.error_rate).sum())
        if len(self.real_scores) < self.fewest or channel.fake_before > len(self.real_scores) + channel.n_trimmed:
            raise ValueError("a channel is known by more real files than were called fake, and by enough of them")
        if (channel.n_fake, channel.n_found) != (len(self.fake_scores), found):
            raise ValueError("the fakes found on a channel are those of its scores for which real is ruled out")
        return self

    @model_validator(mode="after")
    def _scores_ascend(self) -> Self:
        for scores in (self.real_scores, self.fake_scores):
            if any(a > b for a, b in zip(scores, scores[1:], strict=False)):
                raise ValueError("calibration scores must ascend")
        return self

    @property
    def fewest(self) -> int:
        """Calibration files of a class without which it can never be ruled out: ``1 / error_rate - 1``, rounded up."""
        return math.ceil(1.0 / self.error_rate - 1.0)

    @property
    def unproven(self) -> str:
        """Why the detector may answer nothing, in a sentence; "" where known files of a channel show that it tells.

        They do where the lower end of the 95 % interval of the AUC on them exceeds 0.5.
        """
        if self.channel is None:
            return (
                "The detector is not calibrated on files that came the same way: give --known-real and --known-fake, "
                "or calibrate it with auditor detect calibrate."
            )
        area = area_of(self.fake_scores, self.real_scores)
        if area is None:
            return "No known fakes show that the detector tells anything on this channel: give some with --known-fake."
        value, low, high = area
        if low > 0.5:
            return ""
        return (
            f"Nothing shows that the detector tells fakes from real files on this channel: AUC {value:.2f}, 95 % "
            f"interval [{low:.2f}, {high:.2f}]."
        )

    def silence(self, facts: Sequence[str], *, video: bool) -> str:
        """Why the detector answers nothing about a file whose container says this, in a sentence, or ""."""
        if self.unproven or self.channel is None:
            return self.unproven
        if video != (self.channel.unit == "video") and self.medium == "image":
            return f"The detector is calibrated on {'pictures' if video else 'videos'}, and its error rate is of those."
        p = self.channel.p_value(facts)
        if p > self.error_rate:
            return ""
        return (
            f"It did not come the way of the files known to be real (p = {p:.2g}, by its container: "
            f"{', '.join(facts)}), and the error rate does not hold for it."
        )

    def at_error_rate(self, error_rate: float) -> DetectorCard:
        """The same card at another error rate; UsageError where it has too few files of its channel."""
        changes: dict[str, Any] = {"error_rate": error_rate}
        if self.channel is not None:
            fewest = self.model_copy(update=changes).fewest
            if len(self.real_scores) < fewest:
                raise UsageError(
                    f"At an error rate of {error_rate:g} it takes at least {fewest} files known to be real, and the "
                    f"detector is calibrated on {len(self.real_scores)}: calibrate it on more."
                )
            p_values = np.asarray([self.p_values(score)[0] for score in self.fake_scores])
            changes["channel"] = self.channel.model_copy(update={"n_found": int((p_values <= error_rate).sum())})
        return DetectorCard.model_validate(self.model_dump() | changes)

    def learnt(self, sha256: str | None) -> bool:
        """Whether the detector was trained on the file with this digest, by its card."""
        return sha256 is not None and sha256[:DIGITS] in self.trained_on

    @property
    def never_ruled_out(self) -> tuple[Literal["real", "fake"], ...]:
        """The hypotheses that no score can reject, for lack of calibration files or of more extreme scores."""
        p_real, p_fake = self.p_values(1.0)[0], self.p_values(0.0)[1]
        found: list[Literal["real", "fake"]] = []
        found += ["real"] if p_real > self.error_rate else []
        found += ["fake"] if p_fake > self.error_rate else []
        return tuple(found)

    def p_values(self, score: float) -> tuple[float, float]:
        """Conformal p-values of the hypotheses that a file with this probability of being synthetic is real, is fake.

        ``p(real) = (1 + #{real calibration scores >= score}) / (n_real + 1)``, and ``p(fake)`` with ``<=`` among the
        fake ones; each in (0, 1]. Over files exchangeable with the calibration files of its class, a p-value is at most
        e with probability at most e, for every e. Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random
        World, 2005 (label-conditional conformal prediction).
        """
        real = np.asarray(self.real_scores)
        fake = np.asarray(self.fake_scores)
        at_least = len(real) - int(np.searchsorted(real, score, side="left"))
        at_most = int(np.searchsorted(fake, score, side="right"))
        return (1 + at_least) / (len(real) + 1), (1 + at_most) / (len(fake) + 1)


def answer_of(card: DetectorCard, p_real: float, p_fake: float) -> tuple[Answer, str]:
    """``fake`` if real is rejected, ``no known trace`` if fake is, else ``cannot say``; with the reason.

    No score says that a file is real: that nothing of the kinds known was found is all that ruling out fake comes to.
    """
    level = card.error_rate
    real, fake = p_real > level, p_fake > level
    if real and fake and card.channel is not None and len(card.fake_scores) < card.fewest:
        return "cannot say", "Files known to be real score as high, and there are too few known fakes to say more."
    few = [n for n, scores in (("real", card.real_scores), ("fake", card.fake_scores)) if len(scores) < card.fewest]
    if real and fake and few:
        return "cannot say", (
            f"The detector has too few calibration files ({' and '.join(few)}; it takes {card.fewest} of each) "
            f"to rule anything out at an error rate of {level:g}."
        )
    if real and fake:
        return "cannot say", f"Neither class can be ruled out at an error rate of {level:g}."
    if not real and not fake:
        return "cannot say", f"It fits neither class at an error rate of {level:g}."
    if fake and card.channel is not None:
        return "fake", "Among the files known to be real, fewer than the stated error rate score as high."
    if fake:
        return "fake", "Real files like it are rarer than the stated error rate."
    return TRACELESS, (
        "Synthetic files like it, of the kinds the detector knows, are rarer than the stated error rate. That is no "
        "evidence that it is real: other kinds leave other traces, or none."
    )


@lru_cache(maxsize=64)
def area_of(fake_scores: tuple[float, ...], real_scores: tuple[float, ...]) -> tuple[float, float, float] | None:
    """AUC of known fakes against known real files with its 95 % interval; None without files of either class."""
    from auditor.statistics.rank_estimates import AreaUnderCurve, area_under_curve

    area = area_under_curve(positives=fake_scores, negatives=real_scores)
    return (area.value, *area.interval(CONFIDENCE)) if isinstance(area, AreaUnderCurve) else None


@lru_cache(maxsize=4096)
def _channel_p_value(known_facts: tuple[tuple[str, ...], ...], facts: tuple[str, ...]) -> float:
    every = [*known_facts, facts]
    total = np.zeros(len(every))
    for i in range(max(map(len, every))):
        values = [each[i] if i < len(each) else "" for each in every]
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        total += np.log(counts[place])
    return float((1 + (total[:-1] <= total[-1] + _ROUNDING).sum()) / len(every))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A detector's verdict on one file.

    ``probability``: calibrated, of being synthetic. p_real, p_fake: see :meth:`DetectorCard.p_values`. ``reason``: why
    this answer, in a sentence.
    """

    answer: Answer
    probability: float
    p_real: float
    p_fake: float
    reason: str


def judge_file(card: DetectorCard, probability: float) -> Verdict:
    """The answer for one file: ``cannot say`` from a detector that is not shown to tell, else of :func:`answer_of`."""
    p_real, p_fake = card.p_values(probability)
    answer, reason = answer_of(card, p_real, p_fake)
    if why := card.unproven:
        answer, reason = "cannot say", why
    return Verdict(answer=answer, probability=probability, p_real=p_real, p_fake=p_fake, reason=reason)
