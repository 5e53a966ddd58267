"""Calibration of detectors on real files of the user's own channel, and the combined verdict on image and sound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.files import Closed
from auditor.core.number_types import PositiveCount, Share
from auditor.detection.detection_record import MOST_NOTES, FileResult, FileVerdict, PartVerdict
from auditor.detection.file_kinds import SOUND_ONLY
from auditor.detection.fingerprints import MOST_NEAR, match_fingerprints, repeated
from auditor.models.detector_card import MOST_SCORES, TRACELESS, Answer, ChannelCalibration, DetectorCard, answer_of
from auditor.statistics.rank_estimates import AreaUnderCurve, area_under_curve
from auditor.statistics.rates import Proportion

# Of an alarm where nothing has moved.
ALARM_LEVEL = 0.01
_CONFIDENCE = 0.95
_CHANCE = _LIKELIER = 0.5


class BatchShift(Closed):
    """Test result: whether a batch of files came through the same channel as the known real files.

    ``p_value``: of their exchangeability, by the two-sample Kolmogorov-Smirnov test of the scores and, where the
    detector measures it, of the novelties; twice the smaller of two. ``alarm``: whether it is at most ``level``.
    ``visible``: whether any batch of so many files could raise it. Many fakes raise it as well as another channel does.
    """

    n: PositiveCount
    p_value: Share
    level: Share = ALARM_LEVEL
    alarm: bool
    visible: bool


def on_channel(card: DetectorCard, real: Sequence[FileResult], fake: Sequence[FileResult]) -> DetectorCard:
    """The card recalibrated on known real files, and on known fakes if there are any.

    The p-value of real holds whatever the detector is, for a file exchangeable with the files known to be real: it asks
    only how many of those score as high. So the training's novelties are dropped. Without known fakes nothing rules
    out fake, since synthetic files of another channel say nothing of this one. A classifier that had no calibration has
    one then. The share found is of the known fakes for which real is ruled out. Copies count once, and files that the
    detector was trained on not at all, since their scores say nothing of new ones. Raises DataError for fewer real
    files than can ever rule out real, and for a file known to be both; ModelError where every file has the same score.
    """
    reals, fakes = _scored(card, real), _scored(card, fake)
    if both := set(reals) & set(fakes):
        raise DataError(f"{len(both):,} files are known to be real and known to be fake: each can be only one of them.")
    if len(reals) < card.fewest:
        raise DataError(
            f"{len(reals):,} different files known to be real could be scored, and at an error rate of "
            f"{card.error_rate:g} it takes at least {card.fewest}: add more of them{_but_new(card, real)}."
        )
    every = {score for known in (reals, fakes) for score, _ in known.values()}
    if fakes and len(every) == 1:
        raise ModelError(
            f"The detector gives all {len(reals) + len(fakes):,} known files the same score, {every.pop():.4g}: it "
            "tells nothing apart."
        )
    if max(len(reals), len(fakes)) > MOST_SCORES:
        raise DataError(f"More than {MOST_SCORES:,} known files cannot be kept: name fewer.")
    scores = sorted(score for score, _ in reals.values())
    new = card.model_copy(
        update={
            "real_scores": tuple(scores),
            "fake_scores": tuple(sorted(score for score, _ in fakes.values())),
            "novelties": (),
        }
    )
    novelties = [novelty for _, novelty in reals.values() if novelty is not None]
    promised = bool(card.real_scores) and (card.channel is None or card.channel.promised)
    before = [
        answer_of(card, *card.p_values(score), novelty)[0] == "fake" if promised else score >= _LIKELIER
        for score, novelty in reals.values()
    ]
    channel = ChannelCalibration(
        novelties=tuple(sorted(novelties)) if len(novelties) == len(reals) else (),
        moved=_ks_p_value(card.real_scores, scores) if card.real_scores and card.channel is None else None,
        fake_before=sum(before),
        promised=promised,
        n_fake=len(fakes),
        n_found=sum(new.p_values(score)[0] <= card.error_rate for score, _ in fakes.values()),
    )
    return new.model_copy(update={"channel": channel})


def judged_together(
    card: DetectorCard | None, results: Sequence[FileResult]
) -> tuple[list[FileResult], BatchShift | None]:
    """The results without ``fake`` verdicts if the batch test is positive, and the batch; None without a channel.

    What a promise about files of a channel says of files that came another way is nothing.
    """
    if card is None or card.channel is None:
        return list(results), None
    found = [r.verdict for r in results if r.verdict is not None and r.verdict.probability is not None]
    if not found:
        return list(results), None
    shift = _shift(card, card.channel, found)
    return [_held_back(result, shift) for result in results] if shift.alarm else list(results), shift


def channel_lines(card: DetectorCard) -> Iterator[str]:
    """Sentences on the quality of the calibration on a channel; none without calibration."""
    channel = card.channel
    if channel is None:
        return
    n, level = len(card.real_scores), card.error_rate
    rank = math.floor(level * (n + 1) + 1e-9)
    yield (
        f"on {n:,} files known to be real: of real files that come the same way, {rank / (n + 1):.1%} are called fake "
        f"on average, and with these {n:,} at most {_worst(rank, n):.1%} (95 %)"
    )
    if channel.promised:
        was = _proportion_text(channel.fake_before, n)
        yield f"as it came, the detector called {was} of them fake, and promised {level:.0%}"
    else:
        yield (
            f"as it came, the classifier held {_proportion_text(channel.fake_before, n)} of them to be likelier fake "
            f"than not, "
            "and promised nothing; its score is its own, and no calibrated probability"
        )
    if channel.moved is not None and channel.moved <= ALARM_LEVEL:
        yield (
            f"they are not like the real files that the detector was made with (p = {channel.moved:.2g}): what was "
            "measured when it was made says nothing of them"
        )
    yield from _told_apart(card)
    if channel.n_fake:
        yield f"of {channel.n_fake:,} known fakes it finds {_proportion_text(channel.n_found, channel.n_fake)}"
    else:
        yield "how many fakes it finds is not known: name some with --known-fake"


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
    area = area_under_curve(positives=card.fake_scores, negatives=card.real_scores)
    if not isinstance(area, AreaUnderCurve) or area.interval(_CONFIDENCE)[1] >= _CHANCE:
        return ""
    return (
        f"real files score higher than fakes ({_area(area)}): what its classes mean, or which known files are real, is "
        "the wrong way round"
    )


def _but_new(card: DetectorCard, results: Sequence[FileResult]) -> str:
    learnt = sum(map(bool, learnt_of(card, results)))
    return f", none of which it was trained on as it was on {learnt:,} of these" if learnt else ""


def _told_apart(card: DetectorCard) -> Iterator[str]:
    area = area_under_curve(positives=card.fake_scores, negatives=card.real_scores)
    if not isinstance(area, AreaUnderCurve):
        return
    if said := contradicted(card):
        yield f"CONTRADICTED by the known files: {said}"
    elif area.interval(_CONFIDENCE)[0] <= _CHANCE:
        yield f"nothing shows that it tells the fakes from the real ones: {_area(area)}"
    else:
        yield f"it tells the fakes from the real ones: {_area(area)}"


def _area(area: AreaUnderCurve) -> str:
    low, high = area.interval(_CONFIDENCE)
    return f"AUC {area.value:.2f}, 95 % interval [{low:.2f}, {high:.2f}]"


def _worst(rank: int, n: int) -> float:
    """The 95 % quantile of the rate of one calibration: Beta(rank, n + 1 - rank) over calibrations (Vovk, 2012)."""
    from scipy.stats import beta

    return float(beta.ppf(_CONFIDENCE, rank, n + 1 - rank))


def _proportion_text(k: int, n: int) -> str:
    low, high = Proportion(successes=k, n=n).interval(_CONFIDENCE)
    return f"{k:,} of {n:,} ({k / n:.0%}, 95 % interval [{low:.0%}, {high:.0%}])"


def _scored(card: DetectorCard, results: Sequence[FileResult]) -> dict[str, tuple[float, float | None]]:
    """Score and novelty of each new file by its digest; of a video the frames are scored, which is another thing."""
    return {
        result.sha256: (result.verdict.probability, result.verdict.novelty)
        for result, learnt in zip(results, learnt_of(card, results), strict=True)
        if result.sha256 and result.verdict and result.verdict.probability is not None and not result.verdict.frames
        if not learnt
    }


def _shift(card: DetectorCard, channel: ChannelCalibration, verdicts: Sequence[FileVerdict]) -> BatchShift:
    values = [_ks_p_value(card.real_scores, [v.probability for v in verdicts if v.probability is not None])]
    novelties = [v.novelty for v in verdicts if v.novelty is not None]
    if channel.novelties and novelties:
        values.append(_ks_p_value(channel.novelties, novelties))
    p_value = min(1.0, len(values) * min(values))
    n, known = len(verdicts), len(card.real_scores)
    # The two samples apart from each other, which is as far as they can lie: one of so many orders, or the reverse.
    least = 2.0 * len(values) / math.comb(n + known, min(n, known))
    return BatchShift(n=n, p_value=p_value, alarm=p_value <= ALARM_LEVEL, visible=least <= ALARM_LEVEL)


def _ks_p_value(a: Sequence[float], b: Sequence[float]) -> float:
    """The p-value of the two-sample Kolmogorov-Smirnov test; with ties it is too large rather than too small."""
    from scipy.stats import ks_2samp

    return float(np.clip(ks_2samp(a, b).pvalue, 0.0, 1.0))


def _held_back(result: FileResult, shift: BatchShift) -> FileResult:
    if result.verdict is None or result.verdict.answer != "fake":
        return result
    reason = (
        f"Asked by itself it would be answered fake. The {shift.n:,} files asked together are not like the files known "
        f"to be real (p = {shift.p_value:.2g}): they came another way, and the error rate does not hold, or many of "
        "them are fake."
    )
    verdict = result.verdict.model_copy(update={"answer": "cannot say", "reason": reason})
    return result.model_copy(update={"verdict": verdict})


_IN_WORDS = {"image": "pictures", "speech": "sound"}


def check_media(cards: Sequence[DetectorCard]) -> None:
    """Raise UsageError for two detectors of one medium, whose verdicts could conflict."""
    media = [card.medium for card in cards]
    if len(set(media)) < len(media):
        raise UsageError(
            f"Both detectors are for {_IN_WORDS[media[0]]}: name one of pictures and one of sound, or ask them in two "
            "calls, each at an error rate of its own."
        )


def judged_by_all(
    cards: Sequence[DetectorCard], by_detector: Sequence[Sequence[FileResult]]
) -> tuple[list[FileResult], list[BatchShift | None]]:
    """The results for files examined by every detector, and each detector's batch test.

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
    answer, reason = answer_of(shared, verdict.p_real, verdict.p_fake, verdict.novelty)
    # Of frames the p-value is twice a mean, and no smaller than twice the smallest of one.
    fewest = math.ceil((2 if verdict.frames else 1) / shared.error_rate - 1.0)
    if answer == "cannot say" and len(card.real_scores) < fewest:
        reason = (
            f"At an error rate of {shared.error_rate:g}, its share, nothing is called fake with fewer than {fewest} "
            f"calibration files of real ones, and there are {len(card.real_scores)}."
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
    said = ", ".join(f"{_IN_WORDS[part.medium]}: {part.verdict.answer}" for part in parts)
    rates = [card.error_rate for card in cards]
    reason = (
        f"By {said}. The error rate is shared out ({' and '.join(f'{rate / len(cards):g}' for rate in rates)}), so "
        f"that a real video is called fake at a rate of at most {sum(rates) / len(cards):g}."
    )
    said_by_all = [note for result in results for note in result.notes if note != SOUND_ONLY]
    notes = tuple(dict.fromkeys(said_by_all))[:MOST_NOTES]
    heat_map = next((result.heat_map for result in results if result.heat_map is not None), None)
    verdict = FileVerdict(answer=answer, reason=reason)
    return results[0].model_copy(
        update={"verdict": verdict, "parts": parts, "notes": notes, "heat_map": heat_map, "error": ""}
    )
