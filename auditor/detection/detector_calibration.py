"""Calibration of detectors on real files of the user's own channel, and the combined verdict on image and sound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.files import Closed
from auditor.core.number_types import Count, PositiveCount, Share
from auditor.core.rows import FloatArray
from auditor.detection.detection_record import MOST_NOTES, FileResult, FileVerdict, PartVerdict
from auditor.detection.file_kinds import SOUND_ONLY
from auditor.detection.fingerprints import MOST_NEAR, match_fingerprints, repeated
from auditor.models.detector_card import (
    CONFIDENCE,
    LOOKS_AT,
    MOST_SCORES,
    TRACELESS,
    Answer,
    ChannelCalibration,
    DetectorCard,
    answer_of,
    area_of,
)
from auditor.statistics.rates import Proportion

_CHANCE = _LIKELIER = 0.5
# Of files named as real, the share that scores like known fakes and is still a sign of something else than a weak one.
_FEW = 0.2


class Selection(Closed):
    """Conformal selection among files asked together: ``n_selected`` of ``n`` have q-values up to ``level``.

    On average at most ``level`` of the selected are real, however many of the files are (Benjamini-Hochberg on
    conformal p-values; Bates et al., Testing for outliers with conformal p-values, Annals of Statistics 51, 2023).
    ``n_fake``: answered fake, each by itself: the selected have p-values as small as theirs.
    """

    n: PositiveCount
    n_fake: Count
    n_selected: Count
    level: Share


def on_channel(
    card: DetectorCard,
    real: Sequence[FileResult],
    fake: Sequence[FileResult],
    *,
    error_rate: float | None = None,
    trim: float = 0.0,
) -> DetectorCard:
    """The card recalibrated on known real files, and on known fakes if there are any.

    The p-value of real holds whatever the detector is, for a file exchangeable with the files known to be real: it asks
    only how many of those score as high. Without known fakes nothing is answered. A classifier that had no calibration
    has one then. The share found is of the known fakes for which real is ruled out. Copies count once; files that the
    detector was trained on not at all, since their scores say nothing of new ones; nor fakes that came another way,
    which are not answered (:func:`unlike_channel`). ``trim``: the share of the files named as real that may be fake; as
    many of the highest scores are left out. Raises DataError for fewer real files than can ever rule out real, and for
    a file known to be both; ModelError where every file has the same score.
    """
    card = card if error_rate is None else card.model_copy(update={"error_rate": error_rate})
    unit = unit_of(card, real)
    reals = _scored(card, real, unit)
    facts = tuple(found.facts for found in reals.values())
    channel = ChannelCalibration(unit=unit, facts=facts if any(facts) else ())
    fakes = _scored(card, fake, unit)
    if both := set(reals) & set(fakes):
        raise DataError(f"{len(both):,} files are known to be real and known to be fake: each can be only one of them.")
    fakes = {digest: found for digest, found in fakes.items() if channel.p_value(found.facts) > card.error_rate}
    n_trimmed = math.floor(trim * len(reals) + 1e-9)
    if len(reals) - n_trimmed < card.fewest:
        raise DataError(
            f"{len(reals):,} different files known to be real could be scored"
            + (f", of which {n_trimmed:,} are trimmed" if n_trimmed else "")
            + f", and at an error rate of {card.error_rate:g} it takes at least {card.fewest}: add more of them"
            f"{_but_new(card, real)}."
        )
    scores, fake_scores = (sorted(_score(found) for found in known.values()) for known in (reals, fakes))
    if fakes and len({*scores, *fake_scores}) == 1:
        raise ModelError(
            f"The detector gives all {len(reals) + len(fakes):,} known files the same score, {scores[0]:.4g}: it "
            "tells nothing apart."
        )
    if max(len(reals), len(fakes)) > MOST_SCORES:
        raise DataError(f"More than {MOST_SCORES:,} known files cannot be kept: name fewer.")
    kept = scores[: len(scores) - n_trimmed]
    new = card.model_copy(update={"real_scores": tuple(kept), "fake_scores": tuple(fake_scores), "channel": None})
    promised = bool(card.real_scores) and (card.channel is None or card.channel.promised)
    before = [
        answer_of(card, *card.p_values(_score(found)))[0] == "fake" if promised else _score(found) >= _LIKELIER
        for found in reals.values()
    ]
    measured = {
        "fake_before": sum(before),
        "promised": promised,
        "n_fake": len(fakes),
        "n_found": sum(new.p_values(score)[0] <= card.error_rate for score in fake_scores),
        "n_trimmed": n_trimmed,
    }
    return new.model_copy(update={"channel": channel.model_copy(update=measured)})


def unit_of(card: DetectorCard, real: Sequence[FileResult]) -> Literal["file", "video"]:
    """What is calibrated by these files: videos where a detector of pictures scored nothing else."""
    scored = [result.verdict for result in real if result.verdict and result.verdict.probability is not None]
    return "video" if card.medium == "image" and scored and all(verdict.frames for verdict in scored) else "file"


def unlike_channel(card: DetectorCard, result: FileResult) -> bool:
    """Whether a file came another way than the files known to be real, by its container."""
    return card.channel is not None and card.channel.p_value(result.facts) <= card.error_rate


def judged_together(
    card: DetectorCard | None, results: Sequence[FileResult]
) -> tuple[list[FileResult], Selection | None]:
    """The results with their q-values, and what is selected; None where nothing has a score.

    What is answered of a file depends on that file alone: company adds q-values and takes nothing away.
    """
    values = [None if r.verdict is None or r.verdict.probability is None else r.verdict.p_real for r in results]
    known = [value for value in values if value is not None]
    if card is None or card.channel is None or not known:
        return list(results), None
    q = iter(q_values(known).tolist())
    found = [
        result
        if result.verdict is None or value is None
        else result.model_copy(update={"verdict": result.verdict.model_copy(update={"q_value": next(q)})})
        for result, value in zip(results, values, strict=True)
    ]
    verdicts = [result.verdict for result in found if result.verdict is not None]
    selected = sum(v.q_value is not None and v.q_value <= card.error_rate for v in verdicts)
    n_fake = sum(v.answer == "fake" for v in verdicts)
    return found, Selection(n=len(known), n_fake=n_fake, n_selected=selected, level=card.error_rate)


def q_values(p_values: Sequence[float]) -> FloatArray:
    """(n,) ``min over k >= rank of n p_(k) / k``, at most 1 (Benjamini and Hochberg, JRSS B 57, 1995)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(-p, kind="stable")
    n = len(p)
    found = np.empty(n)
    found[order] = np.minimum.accumulate(p[order] * n / np.arange(n, 0, -1))
    return np.minimum(found, 1.0)


def channel_lines(card: DetectorCard) -> Iterator[str]:
    """Sentences on the quality of the calibration on a channel; none without calibration."""
    channel = card.channel
    if channel is None:
        return
    n, k, level = len(card.real_scores), channel.n_trimmed, card.error_rate
    trimmed = f", of which {k:,} with the highest scores are left out since they may be fake" if k else ""
    what = "videos" if channel.unit == "video" else "files"
    yield (
        f"on {n + k:,} {what} known to be real{trimmed}: of real ones that come the same way, {_alarm_rate(card):.1%} "
        f"are called fake on average{' at most' if k else ''}, and with these {n + k:,} at most "
        f"{_alarm_quantile(card, CONFIDENCE):.1%} (95 %)"
    )
    if channel.promised:
        was = _proportion_text(channel.fake_before, n + k)
        yield f"as it came, the detector called {was} of them fake, and promised {level:.0%}"
    else:
        yield (
            f"as it came, the classifier held {_proportion_text(channel.fake_before, n + k)} of them to be likelier "
            "fake than not, and promised nothing; its score is its own, and no calibrated probability"
        )
    if not channel.facts:
        yield "whether a file came the same way is not looked at, since no containers are known: calibrate anew"
    yield from _told_apart(card)
    if channel.n_fake:
        yield f"of {channel.n_fake:,} known fakes it finds {_proportion_text(channel.n_found, channel.n_fake)}"
        alike = len(card.real_scores) - int(np.searchsorted(card.real_scores, np.median(card.fake_scores)))
        if 0 < alike <= _FEW * n:
            yield (
                f"{alike:,} of the files known to be real score like the upper half of the known fakes: look at them, "
                "or leave out as many with --trim, since fakes among them hide others"
            )
    else:
        yield "how many fakes it finds is not known, and nothing is answered: name some with --known-fake"


class PredictiveValue(Closed):
    """Share of right answers among those of ``fake``, where ``prevalence`` of the files are synthetic.

    ``value``: at the detection rate on the known fakes and the mean false-alarm rate; ``low`` and ``high``: 95 %, the
    two rates each at 97.5 %, exactly.
    """

    prevalence: Share
    value: Share
    low: Share
    high: Share


def predictive_value(card: DetectorCard, prevalence: float) -> PredictiveValue | None:
    """By Bayes' rule ``f d / (f d + (1 - f) a)``; None without known fakes of a channel, or where none is found."""
    channel = card.channel
    if channel is None or card.unproven or not channel.n_found:
        return None
    half = (1.0 - CONFIDENCE) / 2.0
    found = Proportion(successes=channel.n_found, n=channel.n_fake)
    low, high = found.interval(1.0 - half)

    def share(power: float, alarms: float) -> float:
        return prevalence * power / (prevalence * power + (1.0 - prevalence) * alarms)

    ends = share(low, _alarm_quantile(card, 1.0 - half / 2.0)), share(high, _alarm_quantile(card, half / 2.0))
    return PredictiveValue(
        prevalence=prevalence, value=share(found.value, _alarm_rate(card)), low=ends[0], high=ends[1]
    )


def _alarm_rate(card: DetectorCard) -> float:
    """The mean rate at which real files are called fake; with ``k`` trimmed an upper bound, none of them being fake."""
    n, k = len(card.real_scores), card.channel.n_trimmed if card.channel else 0
    return (math.floor(card.error_rate * (n + 1) + 1e-9) + k) / (n + 1)


def _alarm_quantile(card: DetectorCard, level: float) -> float:
    """The quantile of the rate over calibrations: Beta(rank, n + 1 - rank) (Vovk, 2012); with trimming a bound."""
    from scipy.stats import beta

    n, k = len(card.real_scores), card.channel.n_trimmed if card.channel else 0
    rank = math.floor(card.error_rate * (n + 1) + 1e-9) + k
    return float(beta.ppf(level, rank, max(n + 1 - rank, 1)))


def learnt_of(card: DetectorCard, results: Sequence[FileResult]) -> list[Literal["same", "alike", ""]]:
    """(n,) whether each file is a training file of the detector, or similar to one, by its card."""
    like = match_fingerprints([result.fingerprints for result in results], card.fingerprints, card.medium)
    return [
        "same" if card.learnt(result.sha256) else "alike" if near else ""
        for result, near in zip(results, like, strict=True)
    ]


def few_in_truth(card: DetectorCard, real: Sequence[FileResult]) -> str:
    """A sentence stating that known real files are near copies of each other; "" for at most one in twenty."""
    prints = {result.sha256: result.fingerprints for result in real if result.sha256}
    near = repeated(list(prints.values()), card.medium)
    if near <= MOST_NEAR * len(prints):
        return ""
    return (
        f"{near:,} of {len(prints):,} files known to be real are near copies of another, or share one layout, so that "
        "they say little new and the error rate may hold less well than is stated: leave one of each, and take others"
    )


def contradicted(card: DetectorCard) -> str:
    """Evidence of the known files against the detector if real ones score certainly higher; "" otherwise."""
    area = area_of(card.fake_scores, card.real_scores)
    if area is None or area[2] >= _CHANCE:
        return ""
    return (
        f"real files score higher than fakes ({_area(area)}): what its classes mean, or which known files are real, is "
        "the wrong way round"
    )


def _but_new(card: DetectorCard, results: Sequence[FileResult]) -> str:
    learnt = sum(map(bool, learnt_of(card, results)))
    return f", none of which it was trained on as it was on {learnt:,} of these" if learnt else ""


def _told_apart(card: DetectorCard) -> Iterator[str]:
    area = area_of(card.fake_scores, card.real_scores)
    if area is None:
        return
    if said := contradicted(card):
        yield f"CONTRADICTED by the known files: {said}"
    elif card.unproven:
        yield f"nothing shows that it tells the fakes from the real ones, so it answers nothing: {_area(area)}"
    else:
        yield f"it tells the fakes from the real ones: {_area(area)}"


def _area(area: tuple[float, float, float]) -> str:
    return f"AUC {area[0]:.2f}, 95 % interval [{area[1]:.2f}, {area[2]:.2f}]"


def _proportion_text(k: int, n: int) -> str:
    low, high = Proportion(successes=k, n=n).interval(CONFIDENCE)
    return f"{k:,} of {n:,} ({k / n:.0%}, 95 % interval [{low:.0%}, {high:.0%}])"


def _scored(card: DetectorCard, results: Sequence[FileResult], unit: str) -> dict[str, FileResult]:
    """Each new file of this unit that has a score, by its digest."""
    return {
        result.sha256: result
        for result, learnt in zip(results, learnt_of(card, results), strict=True)
        if result.sha256 and result.verdict and result.verdict.probability is not None
        if bool(result.verdict.frames) == (unit == "video") and not learnt
    }


def _score(result: FileResult) -> float:
    assert result.verdict is not None and result.verdict.probability is not None
    return result.verdict.probability


def check_media(cards: Sequence[DetectorCard]) -> None:
    """Raise UsageError for two detectors of one medium, whose verdicts could conflict."""
    media = [card.medium for card in cards]
    if len(set(media)) < len(media):
        raise UsageError(
            f"Both detectors are for {LOOKS_AT[media[0]]}: name one of pictures and one of sound, or ask them in two "
            "calls, each at an error rate of its own."
        )


def judged_by_all(
    cards: Sequence[DetectorCard], by_detector: Sequence[Sequence[FileResult]]
) -> tuple[list[FileResult], list[Selection | None]]:
    """The results for files examined by every detector, and each detector's selection.

    A file of one medium is judged by the detector for it, at its own error rate. A video is judged by all, each at its
    error rate over their number (Bonferroni): it is ``fake`` where any says so, ``no known trace`` where all do. So a
    real one is called fake at most as often as the mean of the rates, however pictures and sound depend on each other.
    """
    if len(cards) < 2:
        found, batch = judged_together(cards[0] if cards else None, by_detector[0])
        return found, [batch]
    judged, batches = [], []
    for card, results in zip(cards, by_detector, strict=True):
        own, batch = judged_together(card, [_at_its_share(card, result, len(cards)) for result in results])
        judged.append(own)
        batches.append(batch)
    return [_combine_results(cards, list(each)) for each in zip(*judged, strict=True)], batches


def _at_its_share(card: DetectorCard, result: FileResult, n: int) -> FileResult:
    verdict = result.verdict
    if result.medium != "video" or verdict is None or verdict.p_real is None or verdict.p_fake is None:
        return result
    shared = card.model_copy(update={"error_rate": card.error_rate / n})
    answer, reason = answer_of(shared, verdict.p_real, verdict.p_fake)
    if answer == "cannot say" and len(card.real_scores) < shared.fewest:
        reason = (
            f"At an error rate of {shared.error_rate:g}, its share, nothing is called fake with fewer than "
            f"{shared.fewest} calibration files of real ones, and there are {len(card.real_scores)}."
        )
    return result.model_copy(update={"verdict": verdict.model_copy(update={"answer": answer, "reason": reason})})


def _combine_results(cards: Sequence[DetectorCard], results: list[FileResult]) -> FileResult:
    """What is said of one file; ``results``: of each detector."""
    if results[0].medium != "video":
        takes = "image" if results[0].medium == "image" else "speech"
        return next(result for card, result in zip(cards, results, strict=True) if card.medium == takes)
    parts = tuple(
        PartVerdict(
            medium=card.medium,
            verdict=result.verdict or FileVerdict(answer="cannot say", reason=result.error or "It was not looked at."),
        )
        for card, result in zip(cards, results, strict=True)
    )
    if all(result.error for result in results):
        return results[0]
    answers = [part.verdict.answer for part in parts]
    answer: Answer = "fake" if "fake" in answers else TRACELESS if set(answers) == {TRACELESS} else "cannot say"
    said = ", ".join(f"{LOOKS_AT[part.medium]}: {part.verdict.answer}" for part in parts)
    rates = [card.error_rate for card in cards]
    reason = (
        f"By {said}. The error rate is shared out ({' and '.join(f'{rate / len(cards):g}' for rate in rates)}), so "
        f"that a real video is called fake at a rate of at most {sum(rates) / len(cards):g}."
    )
    said_by_all = [note for result in results for note in result.notes if note != SOUND_ONLY]
    notes = tuple(dict.fromkeys(said_by_all))[:MOST_NOTES]
    verdict = FileVerdict(answer=answer, reason=reason)
    return results[0].model_copy(update={"verdict": verdict, "parts": parts, "notes": notes, "error": ""})
