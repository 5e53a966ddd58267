"""A detector of synthetic media: a classifier that knows its training data and can abstain."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray, Rows, take_rows
from auditor.data.media_classes import fake_class as fake_class
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.models.audited_model import AuditedModel
from auditor.models.detector_card import MOST_KINDS as MOST_KINDS
from auditor.models.detector_card import MOST_SCORES as MOST_SCORES
from auditor.models.detector_card import Answer as Answer
from auditor.models.detector_card import DetectorCard as DetectorCard
from auditor.models.detector_card import KnownRate as KnownRate
from auditor.models.detector_card import Medium as Medium
from auditor.models.detector_card import answer_of
from auditor.models.gradients import without_gradients
from auditor.models.torch_model import TorchModel

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData

# Files encoded at once: a recording or a picture takes a thousand times the memory of a row of a table.
MOST_ROWS = 256
_ROWS_OF = {"image": ImagePreprocessing, "speech": AudioPreprocessing}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A detector's verdict on one file.

    ``probability``: calibrated, of being synthetic. p_real, p_fake: see :meth:`DetectorCard.p_values`. ``novelty``
    is how unlike the training files it is; None where the detector has no rule for it. ``reason``: why this answer, in
    a sentence.
    """

    answer: Answer
    probability: float
    p_real: float
    p_fake: float
    novelty: float | None
    reason: str


class Detector(AuditedModel):
    """Common interface of all detectors: a card, and verdicts based on it."""

    card: DetectorCard

    def with_card(self, card: DetectorCard) -> Detector:
        """The same detector with another card."""
        raise NotImplementedError

    @property
    def _measures_novelty(self) -> bool:
        """Whether it says how unlike its training files a row is."""
        return False

    def novelty(self, X: Rows) -> FloatArray:
        """(n,) the novelty of each row against the training files; ModelError for a detector without a rule."""
        raise ModelError("This detector has no rule for files unlike its training files.")

    def verdicts(self, X: Rows, probabilities: FloatArray | None = None) -> list[Verdict]:
        """(n,) answers for rows; ``probabilities`` (n, 2), if already computed."""
        known = self.predict_proba(X) if probabilities is None else probabilities
        scores = known[:, self.card.fake]
        novelty = self.novelty(X).tolist() if self._measures_novelty else [None] * len(X)
        return [judge_file(self.card, float(s), n) for s, n in zip(scores, novelty, strict=True)]


class DeepfakeDetector(TorchModel, Detector):
    """A binary classifier of media with a :class:`DetectorCard`; audited like any other classifier.

    Its module has a method ``novelty(inputs) -> (n,)`` where ``card.novelties`` are set: how unlike its training
    files an encoded input is, whatever their class. Raises ModelError where it has none, for other than two classes,
    and for a card that contradicts the names of the classes or the medium of the rows.
    """

    def __init__(self, module: nn.Module, *, card: DetectorCard, **options: Any) -> None:
        super().__init__(module, **options)
        if self.n_outputs != 2:
            raise ModelError(f"A detector tells two classes apart, and this model has {self.n_outputs}.")
        if card.novelties and not callable(getattr(module, "novelty", None)):
            raise ModelError("The detector's card has novelties, and its network measures no novelty.")
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

    @property
    def _measures_novelty(self) -> bool:
        """Whether novelty is needed: for what is unlike the training files, or for what a batch on a channel shows."""
        on_channel = self.card.channel is not None and callable(getattr(self.module, "novelty", None))
        return bool(self.card.novelties) or on_channel

    def novelty(self, X: Rows) -> FloatArray:
        if not self._measures_novelty:
            raise ModelError("This detector has no rule for files unlike its training files.")
        measure = cast(Any, self.module).novelty
        parts = []
        with without_gradients(), self.evaluating():
            for start in range(0, len(X), self.batch_rows):
                found: Tensor = measure(self.encode(take_rows(X, slice(start, start + self.batch_rows))))
                parts.append(found.double().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty(0)

    def verdicts(self, X: Rows, probabilities: FloatArray | None = None) -> list[Verdict]:
        """(n,) answers for rows; ``probabilities`` (n, 2), if already computed."""
        found: list[Verdict] = []
        # A head on features looks at a file once for its answer and its novelty.
        keeping = getattr(self.module, "features_kept", nullcontext)
        with keeping():
            for start in range(0, len(X), self.batch_rows):
                rows = take_rows(X, slice(start, start + self.batch_rows))
                known = self.predict_part(rows) if probabilities is None else probabilities[start : start + len(rows)]
                novelty = self.novelty(rows).tolist() if self._measures_novelty else [None] * len(rows)
                scores = known[:, self.card.fake].tolist()
                found += [judge_file(self.card, score, n) for score, n in zip(scores, novelty, strict=True)]
        if probabilities is None:
            self.check_outputs()
        return found

    def saved_parts(self) -> tuple[AuditedModel, dict[str, Any]]:
        """The model itself, and its card."""
        return self, {"detector": self.card.model_dump(mode="json")}


def judge_file(card: DetectorCard, probability: float, novelty: float | None) -> Verdict:
    """The answer for one file: see :func:`answer_of`.

    A class is ruled out where its p-value is at most ``card.error_rate``. Conformal coverage does not hold for files
    that no calibration file is like, so a novelty beyond theirs ends in ``cannot say`` whatever the p-values are.
    """
    p_real, p_fake = card.p_values(probability)
    answer, reason = answer_of(card, p_real, p_fake, novelty)
    return Verdict(answer=answer, probability=probability, p_real=p_real, p_fake=p_fake, novelty=novelty, reason=reason)


def detector_of(model: AuditedModel) -> Detector | None:
    """The model as a detector with a card, or None."""
    return model if isinstance(model, Detector) else None


def synthetic(model: AuditedModel, data: AuditData) -> int | None:
    """Index of the synthetic class, for a model of media; None for any other model.

    Of a model that is known by its answers alone, the rows need not be the media.
    """
    if data.modality not in ("image", "audio") and model.can_be_asked:
        return None
    if isinstance(model, Detector):
        return int(model.card.fake)
    return fake_class(model.classes)
