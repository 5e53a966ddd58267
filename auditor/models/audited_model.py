"""AuditedModel: the common interface of all predictors, with additional capabilities that some probes need."""

from __future__ import annotations

import re
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import scipy

from auditor.core.errors import ModelError
from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows, take_rows
from auditor.data.preprocessing import Preprocessing, label_name

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.output_kind import Outputs


Kind = Literal["classifier", "regressor", "language_model", "other"]
Modality = Literal["tabular", "text", "image"]
BATCH_ROWS = 4096
_ASKED_TWICE = 16
# Nearer to each other than this, probabilities do not say what a library decides.
_IN_DOUBT = 1e-6
_SAME_ANSWER = 1e-3
# The threshold of a last class of two that is decided for where it is the likelier, and not where both are equal.
MORE_THAN_HALF = float(np.nextafter(0.5, 1.0))


@dataclass(frozen=True)
class Provenance:
    """The origin of a model and the loading method of each of its bytes, for the report.

    ``stated_name``: what the log of an evaluation calls the model.
    """

    path: str | None = None
    sha256: str | None = None
    format: str = "in memory"
    loaded_by: str = "the caller"
    size_bytes: int | None = None
    notes: tuple[str, ...] = ()
    stated_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Said:
    """Facts stated when a model's file was loaded: its columns, its classes, its outputs, and the function that
    replaces it, with the digest of its code.

    None is what nobody said.
    """

    features: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    outputs: Outputs | None = None
    threshold: float | None = None
    predict: str | None = None
    code_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class SeenInTraining:
    """Observations of a private training, named as in :class:`auditor.privacy.run_record.RunRecord`.

    Every field is public: it was measured of rows that are drawn at random, or released with noise of its own.
    """

    clipped_share: float
    step_sensitivity: float
    draws: int
    steps_taken: int
    moved_outside_steps: int
    noise_draws: int | None = None
    repeated_draws: int = 0
    not_moving: tuple[str, ...] = ()
    wrong_gradient: tuple[str, ...] = ()
    wrong_batch: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SpentOnEncoding:
    """The budget spent on learning the encoding from training rows: ``looks`` sequential Gaussian mechanisms.

    ``noise_multiplier``: of each, the standard deviation of its noise over its sensitivity. ``delta``: the chance, at
    most, that a level that one row alone holds is released.
    """

    noise_multiplier: float
    looks: int
    delta: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The training recipe of a model, for training another one in the same way.

    ``weight``: the column that weighed each row's loss. ``group_column``: the one of which no value stands both among
    the rows trained on and among those held back. Those from ``epsilon`` on say of a private training what
    :class:`auditor.privacy.run_record.RunRecord` says under those names, ``seen`` what it saw of itself.
    ``learning_rate_from``: ``default``, one that was chosen on other data, or ``given``, by whoever began the training.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 50
    batch_size: int = 128
    seed: int = 0
    weight: str | None = None
    group_column: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    max_grad_norm: float | None = None
    n_rows: int | None = None
    sampler: str | None = None
    accountant: str | None = None
    preprocessing_from: str | None = None
    noise_seed_known: bool | None = None
    n_trials: int | None = None
    seen: SeenInTraining | None = None
    encoding: SpentOnEncoding | None = None
    added_epsilon: float | None = None
    learning_rate_from: str | None = None


class AuditedModel:
    """A classifier to be audited: rows in, class probabilities out.

    ``classes``: names in the order of the outputs. ``threshold``: of two classes, ``threshold_class`` is decided for
    where its probability is at least this; None is the favourable one. ``features``: raw columns it takes, or None
    where any table will do. ``preprocessing``: how raw rows become its input, where that is known.
    """

    kind: Kind = "classifier"
    # Whether it can be asked about rows that it has not been asked about yet.
    can_be_asked: bool = True
    rows_alone: bool = False
    # Columns whose groups the model itself reads: text, whatever they look like.
    group_columns: tuple[str, ...] = ()
    # Whether all its other features are numbers, so that the type of each column is known before it is read.
    others_are_numbers: bool = False
    # Those by which it decides: a text model is told its rows' groups by the table of sensitive features.
    decides_by: tuple[str, ...] = ()
    # How the names of files end that it is written to.
    endings: tuple[str, ...] = (".pt",)
    # Why a language model lacks what others can be asked for, by the names of auditor.models.capabilities.
    why_not: Mapping[str, str] = MappingProxyType({})
    # What flags said of it when it was loaded, which its file does not say.
    said: Said | None = None
    # How many columns of a table it takes, where that is known and not which.
    n_columns: int | None = None
    # Rows that went in so far, by type and shape of one, or tokens of a language model; None where nobody counts them.
    forwarded: Counter[tuple[Any, ...]] | None = None
    # Whether its file may write _ for a sign in a column's name, as converters do: see as_converted.
    renamed: bool = False
    # Whether it can be fitted on other rows with its own hyperparameters, by ``fitted_anew``.
    fits_anew: bool = False
    # Whether it decides as its own library does, because nobody set a threshold.
    decides_itself: bool = False

    def __init__(
        self,
        predict: Callable[[Rows], npt.ArrayLike],
        *,
        classes: Sequence[object],
        features: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        threshold: float = 0.5,
        threshold_class: int | None = None,
        batch_rows: int = BATCH_ROWS,
        provenance: Provenance | None = None,
    ) -> None:
        self._predict = predict
        self.classes = tuple(label_name(c) for c in classes)
        self.features = None if features is None else tuple(features)
        self.preprocessing = preprocessing
        self.threshold = threshold
        self.threshold_class = threshold_class
        self.batch_rows = batch_rows
        self.provenance = provenance or Provenance()
        # How the answers about batches come to be, given where each begins; the ranks of a job share them out.
        self.over_batches: Callable[[Callable[[int], FloatArray], Sequence[int]], list[FloatArray]] = in_turn
        AuditedModel.forget(self)

    @classmethod
    def from_callable(
        cls,
        function: Callable[[Any], npt.ArrayLike],
        *,
        classes: Sequence[object],
        features: Sequence[str] | None = None,
        outputs: Outputs = "probabilities",
        threshold: float = 0.5,
    ) -> AuditedModel:
        """Wrap any function of rows that returns probabilities (n, n_classes), P(last class) (n,), or labels (n,).

        ``outputs="logits"``: it returns logits (n, n_classes), or that of the last class (n,).
        """
        predict = function if outputs == "probabilities" else of_logits(function)
        return cls(predict, classes=classes, features=features, threshold=threshold)

    @property
    def n_outputs(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def predict_proba(self, X: Rows) -> FloatArray:
        """(n, n_classes) probabilities, computed in batches; ModelError if the model returns anything else,
        OutputsError if its output kind was not stated."""
        probabilities = self.predict_part(X)
        self.check_outputs()
        return probabilities

    def predict_part(self, X: Rows) -> FloatArray:
        """:meth:`predict_proba` of rows that are a part of more: :meth:`check_outputs` is called after the last."""

        answers = self._answers_about(X)

        def batch(start: int) -> FloatArray:
            n = min(self.batch_rows, len(X) - start)
            return _as_probabilities(answers(start, n), self.classes, n)

        parts = self.over_batches(batch, range(0, len(X), self.batch_rows))
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)) if parts else np.empty((0, self.n_outputs))

    def _answers_about(self, X: Rows) -> Callable[[int, int], npt.ArrayLike]:
        """What the model returns of the n rows from a start on, as a function of both."""
        return lambda start, n: self._predict(X if n == len(X) else take_rows(X, slice(start, start + n)))

    def check_outputs(self) -> None:
        """Raise OutputsError if the rows so far leave the output kind undecided, or contradict the stated one.

        Only a network's can be in question; everything else returns probabilities or labels by definition.
        """

    @property
    def in_question(self) -> bool:
        """Whether the output kind is still undecided."""
        return False

    def outputs(self, data: AuditData) -> FloatArray:
        """(n, n_classes) probabilities of a data set, computed once and shared by all probes."""
        if data not in self._outputs:
            probabilities = self.predict_proba(data.X)
            self.check_repeatable(data.X, probabilities)
            self._outputs[data] = probabilities
        return self._outputs[data]

    def scores(self, data: AuditData) -> FloatArray:
        """(n, n_classes) by which rows are ranked and calibration is measured."""
        return self.scores_of(data.X, self.outputs(data))

    def scores_of(self, X: Rows, probabilities: FloatArray) -> FloatArray:
        """(n, n_classes) scores of rows with these probabilities: where a rule decides on scores, those before it."""
        return probabilities

    def has_answers(self, data: AuditData) -> bool:
        """Whether the answers on a data set are already cached."""
        return data in self._outputs

    def forget(self) -> None:
        """Discard cached outputs, after the weights have changed."""
        self._outputs: weakref.WeakKeyDictionary[AuditData, FloatArray] = weakref.WeakKeyDictionary()
        self._decisions: weakref.WeakKeyDictionary[AuditData, IntArray] = weakref.WeakKeyDictionary()

    def check_repeatable(self, X: Rows, probabilities: FloatArray) -> None:
        """Query a few rows again in a smaller batch; ModelError if the answers differ by more than 0.001.

        An answer that is drawn at random, or that depends on the other rows of its batch, is no property of its row.
        """
        n = min(len(probabilities), _ASKED_TWICE)
        if not n:
            return
        again = self.predict_part(take_rows(X, slice(n)))
        difference = float(np.abs(again - probabilities[:n]).max())
        if difference > _SAME_ANSWER:
            raise ModelError(
                f"The model answers the same {n} rows differently when asked again in a smaller batch (by up to "
                f"{difference:.3g} in probability): take away its randomness, or its dependence on other rows."
            )

    def threshold_of(self, positive: int) -> float:
        """The smallest probability at which one of two classes is chosen.

        Raises ModelError where decisions do not follow from probabilities.
        """
        if self.threshold_class in (None, positive):
            return self.threshold
        return float(np.nextafter(1.0 - self.threshold, np.inf))

    @property
    def decision_rule(self) -> str:
        """How a row is decided, as a sentence; "" for a kind of model that does not say it."""
        ways = (type(self).decide, type(self).decide_rows, type(self).decisions)
        own = (AuditedModel.decide, AuditedModel.decide_rows, AuditedModel.decisions)
        return self._rule_of_probabilities() if ways == own else ""

    def _rule_of_probabilities(self) -> str:
        if self.kind != "classifier" or self.n_outputs < 2:
            return ""
        if self.n_outputs > 2:
            return "Decides for the label of the largest probability, of equal ones for the first."
        if self.threshold_class is None:
            return f"Decides for the favourable label where its probability is at least {self.threshold:.4g}."
        one, other = self.classes[self.threshold_class], self.classes[1 - self.threshold_class]
        if self.threshold == MORE_THAN_HALF:
            return f"Decides for the likelier label, and where both are equally likely for {other!r}."
        return f"Decides for {one!r} where its probability is at least {self.threshold:.4g}, else for {other!r}."

    def in_doubt(self, probabilities: FloatArray) -> BoolArray:
        """(n,) whether probabilities are so near to the threshold, or to each other, that rounding may decide."""
        if self.n_outputs == 2 and self.threshold_class is not None:
            return np.asarray(np.abs(probabilities[:, self.threshold_class] - self.threshold) < _IN_DOUBT, np.bool_)
        largest = np.partition(probabilities, -2, axis=1)
        return np.asarray(largest[:, -1] - largest[:, -2] < _IN_DOUBT, np.bool_)

    def decide(self, probabilities: FloatArray, positive: int | None, X: Rows | None = None) -> IntArray:
        """(n,) class indices: the threshold on its class of two, else the largest probability.

        ``X``: the rows with these probabilities, which a model is asked about that does not decide by them alone.
        """
        held = positive if self.threshold_class is None else self.threshold_class
        if self.n_outputs == 2 and held is not None:
            chosen = probabilities[:, held] >= self.threshold
            return np.where(chosen, held, 1 - held).astype(np.int64)
        return np.asarray(probabilities.argmax(axis=1), np.int64)

    def decide_rows(self, X: Rows, probabilities: FloatArray, positive: int | None) -> IntArray:
        """(n,) class indices of rows with these probabilities, drawn at random if the model randomises decisions."""
        return self.decide(probabilities, positive, X)

    def decisions(self, data: AuditData) -> IntArray:
        """(n,) class indices decided on a data set, computed once and shared by all probes."""
        if data not in self._decisions:
            self._decisions[data] = self.decide_rows(data.X, self.outputs(data), data.positive)
        return self._decisions[data]

    def native_file(self, ending: str) -> bytes | None:
        """The model's file in its own library's format, one of several if its ``endings`` are several; None if it is
        saved as a bundle or has no file."""
        return None

    @property
    def category_codes(self) -> Mapping[str, Mapping[str, int]]:
        """Of each column of names that :meth:`onnx_graph` takes as numbers, the number of each."""
        return {}

    def onnx_graph(self) -> tuple[bytes, tuple[str, ...]] | None:
        """The scores as an ONNX graph, and its numeric columns; None for a model that has none.

        Raises UnsupportedError where it is not converted, MissingExtraError without a converter.
        """
        return None

    def fitted_anew(
        self,
        X: Rows,
        y: IntArray,
        weights: FloatArray | None,
        rng: np.random.Generator,
        hyperparameters: Mapping[str, Any],
    ) -> AuditedModel:
        """A model of the same kind and hyperparameters, but for those given, fitted on other rows and class indices.

        ``weights``: (n,) of the rows. What is new is said by its provenance's notes. Raises ModelError where it cannot
        be fitted so, UsageError for a hyperparameter that it does not have.
        """
        raise ModelError("Only an estimator of scikit-learn or boosted trees is fitted anew.")

    def saved_parts(self) -> tuple[AuditedModel, dict[str, Any]]:
        """The model stored in a bundle, and additional data of the bundle."""
        return self, {}


def in_turn(one: Callable[[int], FloatArray], starts: Sequence[int]) -> list[FloatArray]:
    """The answers on batches, one batch after the other."""
    return [one(start) for start in starts]


def of_logits(function: Callable[[Any], npt.ArrayLike]) -> Callable[[Any], npt.ArrayLike]:
    """The function of probabilities that a function of logits is."""

    def predict(X: Rows) -> npt.ArrayLike:
        values = np.asarray(function(X))
        if values.dtype.kind not in "iuf":
            raise ModelError(
                f"The model returned {str(values.ravel()[:1])[:40]}, which are no logits: leave --outputs out."
            )
        if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
            z = values.reshape(-1).astype(np.float64)
            values = np.column_stack([np.zeros_like(z), z])
        found: FloatArray = scipy.special.softmax(values.astype(np.float64), axis=-1)
        return found

    return predict


def _as_probabilities(raw: npt.ArrayLike, classes: tuple[str, ...], n: int) -> FloatArray:
    values = np.asarray(raw)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape not in ((n,), (n, len(classes))):
        raise ModelError(
            f"The model returned an array of shape {values.shape} for {n} rows; expected ({n}, {len(classes)}) "
            f"probabilities of {', '.join(classes[:6])}, or ({n},). Name its classes with --classes."
        )
    if values.ndim == 1 and (values.dtype.kind != "f" or _are_numbers(classes)):
        return _from_labels(values, classes)
    values = values.astype(np.float64)
    if values.ndim == 2 and values.size and values.min() >= -1e-6:
        sums = values.sum(axis=1)
        if sums.max() <= 1.001 and sums.min() >= 0.999:
            return values
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values.reshape(n, -1))).any(axis=1).sum())
        raise ModelError(f"The model returned NaN or infinity for {bad:,} of {n:,} rows.", code="AUD-LOAD-ANSWERS")
    if values.ndim == 1 and not ((values >= 0) & (values <= 1)).all():
        return _from_labels(values, classes)
    if values.ndim == 1:
        if len(classes) != 2:
            raise ModelError(f"One number a row decides between 2 classes, and this model has {len(classes)}.")
        return np.column_stack([1.0 - values, values])
    if (values < -1e-6).any() or (np.abs(values.sum(axis=1) - 1.0) > 1e-3).any():
        raise ModelError("The model's outputs are not probabilities: say --outputs logits if they are logits.")
    return values


def _are_numbers(classes: tuple[str, ...]) -> bool:
    """Whether the classes are numbers other than 0 and 1, so that a number for a row can only be its label."""
    return set(classes) != {"0", "1"} and all(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in classes)


def _from_labels(values: npt.NDArray[Any], classes: tuple[str, ...]) -> FloatArray:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ModelError(f"The model returned NaN or infinity for {bad:,} rows.", code="AUD-LOAD-ANSWERS")
    names, codes = np.unique(values.astype(str), return_inverse=True)
    place = {c: i for i, c in enumerate(classes)}
    index = [place.get(label_name(name), -1) for name in names]
    if -1 in index:
        raise ModelError(
            f"The model returned {str(names[index.index(-1)])[:40]!r}, which is neither a probability nor one of the "
            f"labels {', '.join(classes[:8])}."
        )
    return np.eye(len(classes))[np.asarray(index, np.int64)[codes]]
