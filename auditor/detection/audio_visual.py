"""Combined verdict of an image detector and a sound detector, with the resulting error rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from auditor.core.errors import UsageError
from auditor.detection.channel_calibration import BatchShift, judged_together
from auditor.detection.detection_record import MOST_NOTES, FileResult, FileVerdict, PartVerdict
from auditor.detection.file_kinds import SOUND_ONLY
from auditor.models.detector_card import TRACELESS, Answer, DetectorCard, answer_of

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
