"""A media classifier as a detector: classes mapped to real and synthetic, and a card of its performance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray, Rows
from auditor.data.media_classes import Meaning
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.models.audited_model import AuditedModel
from auditor.models.detector import MOST_ROWS, Detector, DetectorCard
from auditor.models.detector_card import Medium


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
