"""Image or sound classifiers as detectors that are not calibrated yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import ModelError, UsageError
from auditor.data.media_classes import Meaning, meanings
from auditor.loading.job_specs import ModelSpec

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel
    from auditor.models.classifier_detector import ClassifierDetector


def load_classifier(spec: ModelSpec) -> AuditedModel:
    """A model as :func:`auditor.loading.formats.load_model` loads it, and an ONNX file of media; a function's card too.

    Raises what loading raises.
    """
    from auditor.loading.formats import load_model, open_file
    from auditor.loading.model_bundle import load_bundle
    from auditor.loading.onnx_media import load_onnx_media
    from auditor.models.files.model_bytes import read_source

    if spec.path is None or Path(spec.path).is_dir():
        return load_model(spec)
    opened = open_file(read_source(spec.path))
    if opened.format == "ONNX":
        return load_onnx_media(spec.path, spec)
    if opened.format == "model bundle":
        return load_bundle(opened.source, opened.records, opened.record, spec)
    return load_model(replace(spec, predict=None), model_file=opened)


def as_detector(
    model: AuditedModel, user_meanings: Mapping[str, Meaning], folders: Sequence[str] = ()
) -> ClassifierDetector:
    """The classifier with the meanings of its classes, and unknown error rates.

    ``folders``: names in ``user_meanings`` that may be no classes of it. Raises ModelError for what is no classifier of
    media, UsageError where what a class means is not clear.
    """
    from auditor.models.classifier_detector import ClassifierDetector, medium_of
    from auditor.models.detector_card import DetectorCard

    if model.kind != "classifier":
        raise ModelError("A detector is a classifier, and this model gives no classes.")
    unknown = next((name for name in user_meanings if name not in model.classes and name not in folders), None)
    if unknown is not None:
        listed = ", ".join(map(repr, model.classes[:8]))
        raise UsageError(f"--class-is names {unknown[:60]!r}, which is none of the detector's classes ({listed}).")
    card = DetectorCard(medium=medium_of(model), fake=1, real_scores=(), fake_scores=())
    return ClassifierDetector(model, meanings(model.classes, user_meanings), card)
