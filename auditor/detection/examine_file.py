"""Examination of one file, which may be hostile, by a detector or a plain classifier, in the sandboxed process."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import AuditorError, DataError, ModelError, UsageError
from auditor.core.files import read_regular
from auditor.data.media_classes import Meaning, meanings
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.detection.detection_record import MOST_NOTES, FileResult, FileVerdict, recorded
from auditor.detection.file_kinds import IN_WORDS, SOUND_ONLY, FileKind, Medium, container_facts, kind_of
from auditor.detection.fingerprints import fingerprints_of, match_fingerprints
from auditor.detection.provenance.read_provenance import read_provenance
from auditor.detection.video_verdict import fit_notes
from auditor.loading.job_specs import ModelSpec

if TYPE_CHECKING:
    from auditor.data.audio import Samples
    from auditor.models.audited_model import AuditedModel
    from auditor.models.detector import ClassifierDetector, Detector
    from auditor.models.detector_card import DetectorCard


def load_classifier(spec: ModelSpec) -> AuditedModel:
    """A model as :func:`auditor.loading.formats.load_model` loads it, and an ONNX file of media; a function's card too.

    Raises what loading raises.
    """
    from auditor.loading.formats import FORMATS, Bundle, Onnx, load_model, open_file
    from auditor.loading.onnx_models import load_onnx_media
    from auditor.models.files.model_bytes import read_source

    if spec.path is None or Path(spec.path).is_dir():
        return load_model(spec)
    opened = open_file(read_source(spec.path))
    if opened.format == Onnx.name:
        return load_onnx_media(spec.path, spec)
    if opened.format == Bundle.name:
        return FORMATS[opened.format].load(opened, spec)
    return load_model(replace(spec, predict=None), model_file=opened)


def as_detector(
    model: AuditedModel, user_meanings: Mapping[str, Meaning], folders: Sequence[str] = ()
) -> ClassifierDetector:
    """The classifier with the meanings of its classes, and unknown error rates.

    ``folders``: names in ``user_meanings`` that may be no classes of it. Raises ModelError for what is no classifier of
    media, UsageError where what a class means is not clear.
    """
    from auditor.models.detector import ClassifierDetector, medium_of
    from auditor.models.detector_card import DetectorCard

    if model.kind != "classifier":
        raise ModelError("A detector is a classifier, and this model gives no classes.")
    unknown = next((name for name in user_meanings if name not in model.classes and name not in folders), None)
    if unknown is not None:
        listed = ", ".join(map(repr, model.classes[:8]))
        raise UsageError(f"--class-is names {unknown[:60]!r}, which is none of the detector's classes ({listed}).")
    card = DetectorCard(medium=medium_of(model), fake=1, real_scores=(), fake_scores=())
    return ClassifierDetector(model, meanings(model.classes, user_meanings), card)


_HALF_A_SECOND = 0.5
# A difference in length, in seconds, that is not worth a note.
_UNNOTICED = 0.05
_ORIENTATION = 0x0112
_LEARNT = "The detector was trained on this very file: what it says of it promises nothing."
_ALIKE = "It looks or sounds like a file that the detector was trained on: what it says of it may promise nothing."
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "RGB;16B", "RGBA;16B", "LA;16B", "L;16B")


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Settings of an examination: the detector, the trusted authorities, and additional outputs.

    ``scores_only``: whether every file gets its score, whatever its detector may say of it, and nothing is read of its
    making but its fingerprints. ``changes``: gives a file's changed versions by name, which are scored too, of its
    content, name and medium and ``seed``.
    """

    detector: Detector | None
    trust_anchors: str | None = None
    scores_only: bool = False
    changes: Callable[[bytes, str, Medium, int], Mapping[str, bytes]] | None = None
    seed: int = 0

    def examine_file(self, path: Path) -> FileResult:
        """The results for one file; unreadable content is reported in ``error``, without an exception."""
        content, found = b"", FileResult()
        try:
            content = read_regular(Path(os.path.realpath(path)), "The file")
            found = FileResult(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            if not content:
                raise DataError("It is an empty file.")
            kind = kind_of(content)
            found = found.model_copy(update={"medium": kind.medium, "form": kind.form})
            if kind.medium is None:
                of = f"a file of {kind.form}, and " if kind.form else ""
                raise DataError(f"It is {of}no image, sound or video of a kind that can be read.")
            if not self.scores_only:
                provenance = read_provenance(content, kind, self.trust_anchors)
                found = found.model_copy(update={"provenance": provenance})
            notes = [f"It is named {path.suffix} and is {kind.form}."] if kind.misnamed(path.name) else []
            found = found.model_copy(update={"notes": tuple(notes)})
            if self.detector is None:
                return found
            verdict, more = _judge_content(self.detector, content, path.name, kind)
            card, facts = self.detector.card, container_facts(content, kind)
            found = found.model_copy(update={"facts": facts})
            if verdict.probability is not None and not self.scores_only:
                verdict = silenced(verdict, card, facts)
            asked = self.scores_only or card.fingerprints
            prints = fingerprints_of(content, path.name, card.medium) if asked else ()
            learnt = [_LEARNT] if card.learnt(found.sha256) else []
            if not learnt and match_fingerprints([prints], card.fingerprints, card.medium)[0]:
                learnt = [_ALIKE]
            notes = [*notes, *learnt, *more][:MOST_NOTES]
            changed = self._changed_scores(self.detector, content, path.name, kind.medium)
            found = found.model_copy(update={"fingerprints": prints if self.scores_only else (), "changed": changed})
            return found.model_copy(update={"verdict": verdict, "notes": tuple(notes)})
        except AuditorError as error:
            return found.model_copy(update={"error": str(error)[:2_000]})

    def _changed_scores(self, detector: Detector, content: bytes, name: str, medium: Medium) -> dict[str, float]:
        versions = {} if self.changes is None else self.changes(content, name, medium, self.seed)
        judged = {words: _judge_content(detector, own, name, kind_of(own))[0] for words, own in versions.items()}
        return {words: v.probability for words, v in judged.items() if v.probability is not None}


def _judge_content(detector: Detector, content: bytes, name: str, kind: FileKind) -> tuple[FileVerdict, list[str]]:
    """The detector's verdict on a file's content, before it is known whether it may answer, and notes."""
    if detector.card.medium == "image" and kind.medium == "image":
        from auditor.loading.rows.media_files import decode_image

        image = decode_image(content, name, detector)
        assert isinstance(detector.preprocessing, ImagePreprocessing)
        return recorded(detector.verdicts(image[None])[0]), _image_notes(content, detector.preprocessing)
    if detector.card.medium == "speech" and kind.medium in ("audio", "video"):
        sound, notes = _sound(detector, content, name)
        return recorded(detector.verdicts(sound[None])[0]), [SOUND_ONLY, *notes] if kind.medium == "video" else notes
    if detector.card.medium == "image" and kind.medium == "video":
        from auditor.detection.video_verdict import judged_video

        return judged_video(detector, content, name)
    return FileVerdict(answer="cannot say", reason=unsupported(detector.card, kind.medium)), []


def unsupported(card: DetectorCard, medium: Medium | None) -> str:
    """That a detector is not for files of a medium, in a sentence."""
    is_for = "images and video" if card.medium == "image" else "speech"
    is_a = "unreadable" if medium is None else IN_WORDS[medium]
    return f"Unsupported: the detector is for {is_for}, and this is {is_a}."


def loaded_detector(
    spec: ModelSpec, meanings: Mapping[str, Meaning] | None = None, folders: Sequence[str] = ()
) -> Detector:
    """The detector of a file.

    ``meanings``: what classes mean by their names; where it is given, any classifier of media becomes a detector, whose
    card has no calibration yet. ``folders``: those of the names that may be no classes of it. Raises ModelError for a
    model that carries no card where it is not, UsageError where what a class means is not clear, and what loading any
    model raises.
    """
    from auditor.models.detector import Detector

    model = load_classifier(spec)
    if isinstance(model, Detector):
        if set(meanings or ()) - set(folders):
            raise UsageError("This detector says itself what its classes mean: leave --class-is out.")
        return model
    if meanings is not None:
        return as_detector(model, meanings, folders)
    raise ModelError(
        "This model is no detector: it carries no record of when it cannot say. Make one of it with auditor "
        "detect calibrate, or a new one with auditor detect train; a classifier of media can still be audited with "
        "auditor scan."
    )


def silenced(verdict: FileVerdict, card: DetectorCard, facts: Sequence[str]) -> FileVerdict:
    """The verdict, or none of its scores where the detector may answer nothing about a file with these facts."""
    why = card.silence(facts, video=bool(verdict.frames))
    return FileVerdict(answer="cannot say", reason=why) if why else verdict


def _sound(detector: Detector, content: bytes, name: str) -> tuple[Samples, list[str]]:
    from auditor.data.audio import decode, fit_recording

    wanted = detector.preprocessing
    assert isinstance(wanted, AudioPreprocessing)
    taken = wanted.samples / wanted.sampling_rate
    sound = decode(content, name, seconds=taken + _HALF_A_SECOND)
    length = len(sound.samples) / sound.sampling_rate
    notes = []
    if length > taken + _UNNOTICED:
        notes.append(f"Only its first {taken:.1f} s were judged: that is what the detector takes.")
    elif length < taken - _UNNOTICED:
        notes.append(f"Its {length:.1f} s were repeated up to the {taken:.1f} s that the detector takes.")
    return fit_recording(sound, wanted), notes


def _image_notes(content: bytes, preprocessing: ImagePreprocessing) -> list[str]:
    """What was done to an image on its way to the detector that a reader would not expect."""
    from auditor.data.images_and_video import open_image

    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(content) as picture:
            with_alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
            if with_alpha and len(preprocessing.mean) < 4:
                notes.append("Its transparency (alpha) was dropped: its colours were judged as if it were opaque.")
            if getattr(picture, "is_animated", False):
                notes.append("It is an animation or has several pages, of which only the first was judged.")
            if picture.mode == "CMYK":
                notes.append("Its four colours for print (CMYK) were converted to RGB without a colour profile.")
            raw = picture.tile[0].args if picture.tile else ""
            raw = raw[0] if isinstance(raw, tuple) else raw
            if raw in _SIXTEEN_BIT:
                notes.append("Its 16 bits a channel were reduced to 8.")
            # Last, since a PNG is decoded for it. Orientations 5 to 8 lie on their side.
            turned = picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            size = picture.size[::-1] if turned else picture.size
    return [*fit_notes([size], preprocessing, "Of it"), *notes]
