"""Regression models with the common model interface: one predicted number per row."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray, Rows, take_rows
from auditor.data.audit_data import LARGEST_TARGET, AuditData
from auditor.data.preprocessing import Preprocessing
from auditor.models.audited_model import BATCH_ROWS, AuditedModel, Provenance
from auditor.models.torch_model import TorchNetwork

_ASKED_TWICE = 16


class AuditedRegressor(AuditedModel):
    """A regression model to be audited: rows in, one number a row out, in the unit of the target.

    ``features``: raw columns it takes, or None where any table will do. It has no classes and no threshold: what asks
    for probabilities or decisions raises ModelError.
    """

    kind = "regressor"

    def __init__(
        self,
        predict: Callable[[Rows], npt.ArrayLike],
        *,
        features: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        batch_rows: int = BATCH_ROWS,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(
            predict,
            classes=(),
            features=features,
            preprocessing=preprocessing,
            batch_rows=batch_rows,
            provenance=provenance,
        )
        self._numbers: weakref.WeakKeyDictionary[AuditData, FloatArray] = weakref.WeakKeyDictionary()

    @classmethod
    def from_callable(  # type: ignore[override]  # a number has no classes to name
        cls, function: Callable[[Any], npt.ArrayLike], *, features: Sequence[str] | None = None
    ) -> AuditedRegressor:
        """Wrap any function of rows that returns one number per row, (n,) or (n, 1)."""
        return AuditedRegressor(function, features=features)

    @property
    def n_outputs(self) -> int:
        """The number of outputs: one per row."""
        return 1

    def predict(self, X: Rows) -> FloatArray:
        """(n,) predictions, computed in batches; ModelError where the model returns anything but finite numbers."""
        parts = [
            _as_numbers(self._predict(take_rows(X, slice(i, i + self.batch_rows))), min(self.batch_rows, len(X) - i))
            for i in range(0, len(X), self.batch_rows)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def predictions(self, data: AuditData) -> FloatArray:
        """(n,) predictions of a data set, computed once and shared by all probes."""
        if data not in self._numbers:
            predicted = self.predict(data.X)
            self.check_repeatable(data.X, predicted)
            self._numbers[data] = predicted
        return self._numbers[data]

    def has_answers(self, data: AuditData) -> bool:
        """Whether the predictions on a data set are already cached."""
        return data in self._numbers

    def check_repeatable(self, X: Rows, probabilities: FloatArray) -> None:
        """Query a few rows again in a smaller batch. ModelError if an answer changes by more than a thousandth of the
        predictions' range, beyond rounding in single precision.

        An answer that is drawn at random, or that depends on the other rows of its batch, is no property of its row.
        """
        n = min(len(probabilities), _ASKED_TWICE)
        if not n:
            return
        again = self.predict(take_rows(X, slice(n)))
        moved = float(np.abs(again - probabilities[:n]).max())
        if moved > 1e-3 * float(np.ptp(probabilities)) + 1e-5 * float(np.abs(probabilities).max()):
            raise ModelError(
                f"The model answers the same {n} rows differently when asked again in a smaller batch (by up to "
                f"{moved:.3g}): take away its randomness, or its dependence on other rows."
            )

    def predict_proba(self, X: Rows) -> FloatArray:
        """Raise ModelError: a regression has no probabilities."""
        raise ModelError("This is a regression model: it predicts a number for each row, and no classes.")


def _as_numbers(raw: npt.ArrayLike, n: int) -> FloatArray:
    values = np.asarray(raw)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (n,):
        raise ModelError(
            f"The model returned an array of shape {values.shape} for {n} rows; a regression of one target gives one "
            f"number a row, ({n},)."
        )
    if values.dtype.kind not in "iuf":
        raise ModelError(
            f"The model returned {str(values[0])[:40]!r}, which is no number: a regression gives one number a row. If "
            "it is a label, this is a classifier: leave --task out."
        )
    values = values.astype(np.float64)
    wrong = ~(np.abs(values) <= LARGEST_TARGET)
    if wrong.any():
        raise ModelError(
            f"The model returned NaN, infinity or a number beyond {LARGEST_TARGET:g} for {int(wrong.sum()):,} of "
            f"{n:,} rows."
        )
    return values


class TorchRegressor(TorchNetwork, AuditedRegressor):
    """A torch module whose single output is the predicted number, batched, without gradients, on CPU or GPU.

    The arguments are those of :class:`~auditor.models.torch_model.TorchNetwork`. ``token_name`` reads a token id of an
    ``encoder`` for text.
    """

    def __init__(
        self, module: nn.Module, *, token_name: Callable[[int], str | None] | None = None, **of_network: Any
    ) -> None:
        super().__init__(module, **of_network)
        self.token_name = token_name

    def value(self, inputs: Tensor) -> Tensor:
        """(n,) predicted numbers of encoded inputs; differentiable where the inputs are floating point."""
        raw = self._returned(inputs, "numbers (n,) or (n, 1)")
        if raw.ndim == 2 and raw.shape[1] == 1:
            raw = raw[:, 0]
        if raw.ndim != 1:
            raise ModelError(
                f"The module returned shape {tuple(raw.shape)}; a regression of one target returns (n,) or (n, 1)."
            )
        return raw

    def answer(self, inputs: Tensor) -> Tensor:
        """(n,) predicted numbers of encoded inputs."""
        return self.value(inputs).double()
