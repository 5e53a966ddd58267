"""A detector bundle that encloses a classifier's own files, each read by the usual loader of its format."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from auditor.core.errors import DamagedError, ModelError, UsageError
from auditor.loading.huggingface_folders import load_folder
from auditor.loading.job_specs import ModelSpec
from auditor.loading.onnx_models import load_onnx_media
from auditor.loading.user_functions import load_function
from auditor.models.audited_model import AuditedModel
from auditor.models.detector import ENCLOSED, ONNX_FILE, ClassifierDetector, Enclosed
from auditor.models.detector_card import DetectorCard
from auditor.models.files.model_bytes import Source, printable

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


def load_enclosed(
    files: Mapping[str, Tensor], record: Enclosed, card: DetectorCard, source: Source, spec: ModelSpec
) -> ClassifierDetector:
    """The detector. Raises DamagedError where the files are not those it was calibrated with, UsageError for a function
    that is not named again."""
    below = replace(spec, path=None, predict=None, classes=record.classes, outputs=record.outputs)
    if record.form == "callable":
        base = _function(record, replace(below, predict=spec.predict), source.name)
    else:
        base = _of_files(files, record, below, source.name)
    if record.form != "callable" and base.provenance.sha256 != record.sha256:
        raise DamagedError(f"The model in {source.name!r} is not the one that its card was made for.")
    base.provenance = replace(base.provenance, path=source.path, sha256=source.sha256, size_bytes=len(source.data))
    try:
        made = ClassifierDetector(base, record.meanings, card)
    except ModelError as error:
        raise DamagedError(f"{source.name!r} cannot be used: {error}") from None
    made.enclosed = {
        "architecture": {"name": ENCLOSED, "args": {}},
        "state_dict": dict(files),
        "classes": list(base.classes),
        ENCLOSED: record.model_dump(mode="json"),
    }
    return made


def _function(record: Enclosed, spec: ModelSpec, name: str) -> AuditedModel:
    if record.function is None or spec.predict != record.function:
        raise UsageError(
            f"{name!r} holds a card of a function of yours, and of no other: add --predict "
            f"{printable(record.function, 200)}, or calibrate another with auditor detect calibrate."
        )
    base = load_function(spec)
    if base.said is not None and base.said.code_sha256 != record.sha256:
        raise UsageError(
            f"The code of {printable(record.function, 200)} is not what it was when {name!r} was calibrated, and what "
            "was measured then says nothing of it: calibrate it anew with auditor detect calibrate."
        )
    return base


def _of_files(files: Mapping[str, Tensor], record: Enclosed, spec: ModelSpec, name: str) -> AuditedModel:
    with tempfile.TemporaryDirectory(prefix="enclosed.") as folder:
        for file, content in files.items():
            if not _NAME.fullmatch(file) or content.dtype != torch.uint8 or content.ndim != 1:
                raise DamagedError(f"{name!r} encloses {printable(file, 60)!r}, which is no file of a model.")
            (Path(folder) / file).write_bytes(content.numpy().tobytes())
        if record.form == "ONNX model":
            return load_onnx_media(str(Path(folder) / ONNX_FILE), spec)
        loaded = load_folder(folder, spec)
        return loaded
