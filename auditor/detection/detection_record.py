"""Results of examined files and detectors, as plain data for transfer between processes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auditor.core.files import LEFT_OUT, UNSAID, Closed
from auditor.core.number_types import Count, NonNegative, Share
from auditor.detection.file_kinds import Medium
from auditor.detection.provenance.provenance_record import FileProvenance
from auditor.models.detector_card import Answer, DetectorCard, Facts, Fingerprint, Verdict
from auditor.models.detector_card import Medium as DetectorMedium

MOST_FRAMES = 1_000
DECLARED = "declared synthetic"
MOST_NOTES = 30

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
    share are real. ``low`` and ``high``: of a video, the 95 % interval of the mean probability over its frames. All are
    None where the detector answers nothing: it is for another medium, is calibrated for no channel or another, or
    nothing shows that it tells.
    """

    answer: Answer
    reason: Line
    probability: Share | None = None
    p_real: Share | None = None
    p_fake: Share | None = None
    q_value: Annotated[Share | None, UNSAID] = None
    low: Share | None = None
    high: Share | None = None
    frames: Annotated[tuple[FrameScore, ...], Field(max_length=MOST_FRAMES)] = ()


def recorded(verdict: Verdict) -> FileVerdict:
    """A verdict as it is reported."""
    return FileVerdict(
        answer=verdict.answer,
        reason=verdict.reason,
        probability=verdict.probability,
        p_real=verdict.p_real,
        p_fake=verdict.p_fake,
    )


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
