"""Results of examined files and detectors, as plain data for transfer between processes."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated

from pydantic import Field

from auditor.core.files import LEFT_OUT, UNSAID, Closed
from auditor.core.number_types import Count, NonNegative, Share
from auditor.detection.file_kinds import Medium
from auditor.detection.provenance.provenance_record import FileProvenance
from auditor.judging.png import Pixels, decode
from auditor.models.detector_card import Answer, DetectorCard, Facts, Fingerprint, Verdict
from auditor.models.detector_card import Medium as DetectorMedium

MOST_FRAMES = 1_000
DECLARED = "declared synthetic"
MOST_NOTES = 30
LARGEST_PICTURE = 2_048

Line = Annotated[str, Field(max_length=2_000)]
Notes = Annotated[tuple[Line, ...], Field(max_length=MOST_NOTES)]


class DetectorRecord(Closed):
    """The detector that answered: the digest of its file, its classes, and its card.

    The card is without the calibration scores but where they were asked for, or are of a channel.

    ``n_real`` and ``n_fake``: calibration files of either class.
    """

    sha256: Annotated[str, Field(max_length=64)] | None = None
    classes: Annotated[tuple[Line, ...], Field(max_length=2)]
    n_real: Count
    n_fake: Count
    card: DetectorCard

    @property
    def medium(self) -> DetectorMedium:
        """The medium of the detector."""
        return self.card.medium

    @classmethod
    def from_card(
        cls,
        classes: tuple[str, ...],
        card: DetectorCard,
        sha256: str | None,
        *,
        with_calibration: bool = False,
        with_training: bool = False,
    ) -> DetectorRecord:
        """The record of a detector with this card; its training data are included only on request."""
        # A batch is held against the files of a channel by whoever has all its answers.
        whole = with_calibration or card.channel is not None
        kept = card if whole else card.model_copy(update={"real_scores": (), "fake_scores": ()})
        kept = kept if with_training else kept.model_copy(update={"trained_on": (), "fingerprints": ()})
        return cls(
            sha256=sha256, classes=classes, n_real=len(card.real_scores), n_fake=len(card.fake_scores), card=kept
        )


class FrameScore(Closed):
    """The calibrated probability that one frame of a video is synthetic; ``seconds`` from its beginning."""

    seconds: NonNegative
    probability: Share


class FileVerdict(Closed):
    """A detector's verdict on a file, with reasons; an estimate, independent of the file's own statements.

    ``probability``: calibrated, of being synthetic. ``p_real``, ``p_fake``: conformal p-values. ``q_value``: of
    ``p_real`` among the files asked together (Benjamini-Hochberg): of those with at most it, on average at most that
    share are real. ``low`` and ``high``: of a video, the 95 % interval of the mean probability over its frames. All but
    ``novelty`` are None where the detector answers nothing: it is for another medium, knows nothing like the file, is
    calibrated for no channel or another, or nothing shows that it tells.
    """

    answer: Answer
    reason: Line
    probability: Share | None = None
    p_real: Share | None = None
    p_fake: Share | None = None
    q_value: Annotated[Share | None, UNSAID] = None
    novelty: float | None = None
    low: Share | None = None
    high: Share | None = None
    frames: Annotated[tuple[FrameScore, ...], Field(max_length=MOST_FRAMES)] = ()


def recorded(verdict: Verdict, card: DetectorCard) -> FileVerdict:
    """A verdict as it is reported. What is of no kind the detector knows is unsupported: its score means nothing."""
    novelty = verdict.novelty
    shown = () if card.is_unlike(novelty) else ("probability", "p_real", "p_fake")
    scores = {name: getattr(verdict, name) for name in shown}
    known = novelty if novelty is not None and math.isfinite(novelty) else None
    return FileVerdict(answer=verdict.answer, reason=verdict.reason, novelty=known, **scores)


class HeatMap(Closed):
    """The map of a detector's score in a file, as an image, and whether it passed the tests for display.

    ``png``: base64 of a PNG as :func:`auditor.judging.png.encode` writes it. ``drop_marked``: how far the log-odds move
    away from the detector's own side where the quarter of the parts that speaks most for it is hidden; ``drop_random``:
    the furthest that they moved in 10 draws of as much at random. ``earned``: whether the first is larger, and the
    detector supports the file.
    """

    png: Annotated[str, Field(max_length=24 << 20)]
    drop_marked: float
    drop_random: float
    earned: bool

    def picture(self) -> Pixels:
        """The pixels of the image; ValueError if it is not in this tool's format."""
        try:
            return decode(base64.b64decode(self.png, validate=True), LARGEST_PICTURE)
        except binascii.Error:
            raise ValueError("a picture must be base64") from None


class PartVerdict(Closed):
    """The verdict of one medium's detector on a video examined by several detectors."""

    medium: DetectorMedium
    verdict: FileVerdict


class FileResult(Closed):
    """The results for one file.

    ``error``: why it could not be read, "" where it could.

    ``form``: the format by content, such as ``JPEG``. ``verdict``: None without a detector, or with an error.
    ``parts``: of a video that several detectors judged, what each says. ``fingerprints``: what it shows, where that is
    held against others. ``facts``: what its container says of how it came, where a detector was asked. ``changed``: the
    detector's probability after each change that was asked for, by the change's name.
    """

    medium: Medium | None = None
    form: Annotated[str, Field(max_length=20)] = ""
    size_bytes: Count | None = None
    sha256: Annotated[str, Field(max_length=64)] | None = None
    fingerprints: Annotated[tuple[Fingerprint, ...], Field(max_length=2)] = ()
    facts: Annotated[Facts, LEFT_OUT] = ()
    changed: Annotated[dict[Line, Share], LEFT_OUT] = {}
    provenance: FileProvenance = FileProvenance()
    verdict: FileVerdict | None = None
    parts: Annotated[tuple[PartVerdict, ...], Field(max_length=2)] = ()
    heat_map: HeatMap | None = None
    notes: Notes = ()
    error: Line = ""

    @property
    def answer(self) -> str:
        """What is said of the file, first by its provenance: "" where nothing was asked, ``unread`` with an error.

        ``declared synthetic``: a trusted signature declares that a trained model made all of it.
        """
        signed = self.provenance.credentials
        if signed is not None and signed.standing == "trusted":
            if any(action.origin == "synthetic" for action in signed.actions):
                return DECLARED
        return "unread" if self.error else "" if self.verdict is None else self.verdict.answer

    @property
    def is_conclusive(self) -> bool:
        """Whether the file is found fake or declared synthetic: "no known trace" is no finding."""
        return self.answer in ("fake", DECLARED)
