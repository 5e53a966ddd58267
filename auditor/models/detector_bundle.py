"""A detector bundle around any classifier: contains the classifier's own files, byte for byte.

The files stand among the weights, as bytes. The loader that reads them alone reads them here; nothing in them runs. A
function of the user's is named, and whoever loads the bundle must name it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from auditor.core.errors import ModelError
from auditor.core.files import Closed
from auditor.data.media_classes import Meaning
from auditor.models.classifier_detector import ClassifierDetector
from auditor.models.postprocessed_folder import files_of_folder

ENCLOSED = "enclosed"
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
ONNX_FILE = "model.onnx"
MOST_BYTES = 900_000_000
Form = Literal["Hugging Face folder", "ONNX model", "callable"]


class Enclosed(Closed):
    """The enclosed model: its format, its digest, its flags, and the meanings of its classes.

    ``function``: the user's own that answers. ``classes``, ``outputs``: what its files do not say.
    """

    form: Form
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    function: Annotated[str, Field(max_length=400)] | None = None
    classes: Annotated[tuple[str, ...], Field(max_length=1_000)] | None = None
    outputs: Literal["logits", "probabilities"] | None = None
    meanings: Annotated[tuple[Meaning, ...], Field(min_length=2, max_length=1_000)]


def enclosed_bundle(detector: ClassifierDetector, form: str) -> dict[str, Any]:
    """The bundle of a detector with a classifier in one of these formats.

    Raises ModelError for another form, and for files that are no longer there.
    """
    card = {"detector": detector.card.model_dump(mode="json")}
    if detector.enclosed is not None:
        return detector.enclosed | card
    base = detector.base
    known, said = base.provenance, base.said
    function = None if said is None else said.predict
    if form not in ("Hugging Face folder", "ONNX model") and function is None:
        raise ModelError(
            "A detector is written where its classifier came as a model bundle, a Hugging Face folder, an ONNX file or "
            f"a function, not as {form}: load it from one of these."
        )
    record = Enclosed(
        form="callable" if function is not None else "ONNX model" if form == "ONNX model" else "Hugging Face folder",
        sha256=known.sha256,
        function=function,
        classes=None if said is None else said.classes,
        outputs=None if said is None else said.outputs,
        meanings=detector.meanings,
    )
    files = {} if function is not None or known.path is None else _files(Path(known.path), record.form)
    if sum(file.stat().st_size for file in files.values()) > MOST_BYTES:
        raise ModelError(f"The model's files have more than {MOST_BYTES:,} bytes, the most that a detector encloses.")
    try:
        content = {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:
        raise ModelError(f"The model's files can no longer be read: {error.strerror}.") from None
    return {
        "architecture": {"name": ENCLOSED, "args": {}},
        "state_dict": {
            name: torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for name, data in content.items() if data
        },
        "classes": list(base.classes),
        ENCLOSED: record.model_dump(mode="json"),
        **card,
    }


def _files(path: Path, form: Form) -> dict[str, Path]:
    """The files that the model is read from, by the name that each has in the bundle."""
    if form == "Hugging Face folder":
        return {file.name: file for file in files_of_folder(path)}
    beside = {name: path.parent / name for name in (CONFIG, PREPROCESSOR)}
    return {ONNX_FILE: path, **{name: file for name, file in beside.items() if file.is_file()}}
