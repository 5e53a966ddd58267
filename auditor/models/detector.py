"""Detectors of synthetic media: a network that can abstain, or a media classifier, and the bundle of its files.

The files stand among the weights, as bytes. The loader that reads them alone reads them here; nothing in them runs. A
function of the user's is named, and whoever loads the bundle must name it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from auditor.core.errors import ModelError
from auditor.core.files import Closed
from auditor.core.rows import FloatArray, Rows
from auditor.data.media_classes import Meaning, fake_class
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.models.audited_model import AuditedModel
from auditor.models.detector_card import DetectorCard, Medium, Verdict, judge_file
from auditor.models.format_names import FORMAT, ONNX_FORMAT
from auditor.models.postprocessed_folder import files_of_folder
from auditor.models.torch_model import TorchModel

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData

# Files encoded at once: a recording or a picture takes a thousand times the memory of a row of a table.
MOST_ROWS = 256
_ROWS_OF = {"image": ImagePreprocessing, "speech": AudioPreprocessing}


class Detector(AuditedModel):
    """Common interface of all detectors: a card, and verdicts based on it."""

    card: DetectorCard

    def with_card(self, card: DetectorCard) -> Detector:
        """The same detector with another card."""
        raise NotImplementedError

    def verdicts(self, X: Rows, probabilities: FloatArray | None = None) -> list[Verdict]:
        """(n,) answers for rows; ``probabilities`` (n, 2), if already computed."""
        known = self.predict_proba(X) if probabilities is None else probabilities
        return [judge_file(self.card, score) for score in known[:, self.card.fake].tolist()]


class DeepfakeDetector(TorchModel, Detector):
    """A binary classifier of media with a :class:`DetectorCard`; audited like any other classifier.

    Raises ModelError for other than two classes, and for a card that contradicts the names of the classes or the medium
    of the rows.
    """

    def __init__(self, module: nn.Module, *, card: DetectorCard, **options: Any) -> None:
        super().__init__(module, **options)
        if self.n_outputs != 2:
            raise ModelError(f"A detector tells two classes apart, and this model has {self.n_outputs}.")
        named = fake_class(self.classes)
        if named is not None and named != card.fake:
            raise ModelError(
                f"The detector's card says that {self.classes[card.fake]!r} is the synthetic class, and by their names "
                f"it is {self.classes[named]!r}: one of the two is the wrong way round."
            )
        if self.preprocessing is not None and not isinstance(self.preprocessing, _ROWS_OF[card.medium]):
            raise ModelError(
                f"The detector's card says that it is for {card.medium}, and its network takes "
                f"{self.preprocessing.kind} rows."
            )
        self.card = card

    @classmethod
    def around(cls, model: TorchModel, card: DetectorCard) -> DeepfakeDetector:
        """The same network, encoding and classes, with a card."""
        return cls(
            model.module,
            card=card,
            classes=model.classes,
            preprocessing=model.preprocessing,
            features=model.features,
            outputs=model.outputs_said,
            threshold=model.threshold,
            device=model.device,
            architecture=model.architecture,
            recipe=model.recipe,
            batch_rows=min(model.batch_rows, MOST_ROWS),
            provenance=model.provenance,
        )

    def with_card(self, card: DetectorCard) -> DeepfakeDetector:
        return DeepfakeDetector.around(self, card)

    def saved_parts(self) -> tuple[AuditedModel, dict[str, Any]]:
        """The model itself, and its card."""
        return self, {"detector": self.card.model_dump(mode="json")}


def synthetic(model: AuditedModel, data: AuditData) -> int | None:
    """Index of the synthetic class, for a model of media; None for any other model.

    Of a model that is known by its answers alone, the rows need not be the media.
    """
    if data.modality not in ("image", "audio") and model.can_be_asked:
        return None
    if isinstance(model, Detector):
        return int(model.card.fake)
    return fake_class(model.classes)


class ClassifierDetector(Detector):
    """A classifier with classes for real, fake or neither: its score is the total probability of fake classes.

    ``meanings``: of each class of ``base``; what a class that means neither takes away is taken from the score.
    ``enclosed``: of one that came in a bundle, what of the bundle is the classifier. Raises ModelError for a model that
    takes neither pictures nor sound, for a card of the other medium, and where no class means fake, or none real.
    """

    def __init__(self, base: AuditedModel, meanings: Sequence[Meaning], card: DetectorCard) -> None:
        if medium_of(base) != card.medium:
            raise ModelError(f"The detector's card says that it is for {card.medium}, and its model is not.")
        if len(meanings) != base.n_outputs or not {"fake", "real"} <= set(meanings) or card.fake != 1:
            raise ModelError(
                "The detector's card does not say of each class of its model whether it means real or fake."
            )
        words = ", ".join(f"{name!r} means {meant}" for name, meant in zip(base.classes, meanings, strict=True))
        super().__init__(
            self._answers,
            classes=("real", "fake"),
            preprocessing=base.preprocessing,
            batch_rows=min(base.batch_rows, MOST_ROWS),
            provenance=replace(base.provenance, notes=(*base.provenance.notes, f"As a detector: {words}.")),
        )
        self.base = base
        self.meanings = tuple(meanings)
        self.card = card
        self.enclosed: dict[str, Any] | None = None

    def with_card(self, card: DetectorCard) -> ClassifierDetector:
        made = ClassifierDetector(self.base, self.meanings, card)
        made.provenance, made.said, made.enclosed = self.provenance, self.said, self.enclosed
        return made

    def saved_parts(self) -> tuple[AuditedModel, dict[str, Any]]:
        """The classifier, and the data that make it a detector."""
        return self.base, {"detector": self.card.model_dump(mode="json"), "meanings": list(self.meanings)}

    def check_outputs(self) -> None:
        """Raise the errors of the classifier's own check."""
        self.base.check_outputs()

    @property
    def in_question(self) -> bool:
        """Whether the classifier's output kind is still undecided."""
        return self.base.in_question

    def _answers(self, X: Rows) -> FloatArray:
        chosen = np.asarray([meant == "fake" for meant in self.meanings])
        fake = np.clip(self.base.predict_part(X)[:, chosen].sum(axis=1), 0.0, 1.0)
        return np.column_stack([1.0 - fake, fake])


def medium_of(model: AuditedModel) -> Medium:
    """The medium of a classifier's input.

    Raises ModelError for one that takes neither pictures nor sound.
    """
    if isinstance(model.preprocessing, ImagePreprocessing):
        return "image"
    if isinstance(model.preprocessing, AudioPreprocessing):
        return "speech"
    raise ModelError(
        "A detector takes pictures or sound, and this model takes neither: name a classifier of media, or a function "
        "with an attribute `size` (height, width) for pictures, or `samples` and `sampling_rate` for sound."
    )


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
    if form not in (FORMAT, ONNX_FORMAT) and function is None:
        raise ModelError(
            "A detector is written where its classifier came as a model bundle, a Hugging Face folder, an ONNX file or "
            f"a function, not as {form}: load it from one of these."
        )
    record = Enclosed(
        form="callable" if function is not None else ONNX_FORMAT if form == ONNX_FORMAT else FORMAT,
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
    if form == FORMAT:
        return {file.name: file for file in files_of_folder(path)}
    beside = {name: path.parent / name for name in (CONFIG, PREPROCESSOR)}
    return {ONNX_FILE: path, **{name: file for name, file in beside.items() if file.is_file()}}
