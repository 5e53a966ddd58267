"""Shared parts of fairlearn's reductions: networks, last layers and estimators that learn from weighted rows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from scipy.special import expit

from auditor.core.errors import ModelError, UsageError
from auditor.core.rows import FloatArray, IntArray, Rows, take_rows
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from mitigations.selection_guide import instead, is_estimator
from mitigations.training.retraining import (
    Labelled,
    TrainingSet,
    check_classifier,
    decide_rows,
    labelled_rows,
    numbered,
    refuse_one_class,
    run,
    trainable,
    training_set,
    untrained,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.torch_model import TorchModel
    from auditor.run.mitigation import Training


Settings = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Refitted:
    """The new model, and notes on its fitting."""

    model: AuditedModel
    notes: tuple[str, ...]


def refit(
    model: AuditedModel,
    rows: Labelled,
    rng: np.random.Generator,
    *,
    weights: FloatArray | None = None,
    places: IntArray | None = None,
    X: Rows | None = None,
    y: IntArray | None = None,
    hyperparameters: Settings | None = None,
    guard: bool = True,
) -> Refitted:
    """An estimator of the same kind fitted on labelled rows.

    weights: (n,) of the rows, by ``sample_weight``. places: those of the rows that are learned from, with repeats; all
    of them once where it is None. X, y: other features and labels of the same rows. hyperparameters: what is to be
    otherwise than it was, as its library names it. guard: whether a model that decides one class for all is refused.

    Raises ModelError for an estimator that cannot be fitted so, and says what can be done with it; UsageError for a
    hyperparameter that it does not have.
    """
    check_classifier(model)
    inputs: Rows = rows.data.X if X is None else X
    labels = rows.y if y is None else y
    if places is not None:
        from auditor.core.rows import take_rows

        inputs, labels = take_rows(inputs, places), labels[places]
        weights = None if weights is None else weights[places]
    try:
        new = model.fitted_anew(inputs, labels, weights, rng, hyperparameters or {})
    except ModelError as error:
        raise ModelError(f"{error} {_otherwise(weights)}", code=error.code) from error
    new.said = model.said
    if guard and X is None:
        refuse_one_class(new, model, rows.data, instead="use threshold_optimizer")
    return Refitted(new, new.provenance.notes)


def only_for_networks(**options: object) -> None:
    """Raise UsageError for network training options given for an estimator, which has none of them."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"{name} is for networks, and this is an estimator, which is fitted with the hyperparameters that it "
                "had: leave it out, or say --with 'hyperparameters={\"max_depth\": 3}' in the words of its library."
            )


def only_for_estimators(model: AuditedModel, hyperparameters: Settings | None) -> None:
    """Raise UsageError if hyperparameters are given for a network, which is trained by its recipe."""
    if hyperparameters is not None and not is_estimator(model):
        raise UsageError("hyperparameters are an estimator's, and this is a network: leave them out.")


class NetworkOrEstimator(BaseMitigation):
    """A mitigation that trains a network in one way, and refits an estimator in another."""

    hyperparameters: Settings | None

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same kind."""
        only_for_estimators(model, self.hyperparameters)
        if is_estimator(model):
            return self._fit_estimator(model, data, rng)
        return self._train_network(model, data, rng, training)

    def _fit_estimator(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Mitigated:
        raise NotImplementedError

    def _train_network(
        self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training
    ) -> Mitigated:
        raise NotImplementedError


def _otherwise(weights: FloatArray | None) -> str:
    """What takes an estimator that cannot be fitted as asked."""
    if weights is None:
        return "Use threshold_optimizer, a post-processing mitigation, which asks for its scores alone."
    return "Use balanced_resampling, which fits it on rows drawn instead, or threshold_optimizer."


Parity = Literal["demographic_parity", "equalized_odds", "true_positive_rate_parity", "false_positive_rate_parity"]


@dataclass
class Trainer:
    """Train the network by its recipe on relabelled and weighted rows, always from the same start.

    ``positive``: the class that the label 1 of a reduction means. ``trained``: how many were trained so far.
    """

    old: TorchModel
    rows: TrainingSet
    recipe: Recipe
    seed: int
    training: Training
    positive: int
    fingerprint: dict[str, object]
    trained: int = 0

    def __call__(self, rows: IntArray, y: IntArray, weights: FloatArray) -> TorchModel:
        """A network for labels y (n,) in {0, 1} and weights (n,) of rows (n,), which are scaled to mean 1."""
        import torch
        from torch.nn.functional import cross_entropy

        from auditor.training.training_loop import PlainStep, optimizer_of

        rng = np.random.default_rng(self.seed)
        new = untrained(self.old, rng, self.training.device, self.recipe)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            x, labels, w = batch
            return (w * cross_entropy(new.logits(x), labels, reduction="none")).mean()

        chosen = self.rows.take(rows)
        labels = torch.from_numpy(np.where(y == 1, self.positive, 1 - self.positive)).to(chosen.y.device)
        w = torch.from_numpy((weights / weights.mean()).astype(np.float32)).to(chosen.y.device)
        step = PlainStep(new.module, optimizer_of(self.recipe, list(new.module.parameters())), loss)
        own = numbered(self.training, self.trained + 1)
        run(step, (chosen.x, labels, w), self.recipe, rng, own, fingerprint=self.fingerprint)
        self.trained += 1
        return new


class NetworkEstimator:
    """The network with scikit-learn's ``fit`` and ``predict``, for a reduction; X (n, 1) are positions of rows.

    Copies of it, which reductions make, share the trainer.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.model: TorchModel | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> NetworkEstimator:
        return NetworkEstimator(self.trainer)

    def fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Train a network."""
        weights = np.asarray(sample_weight, np.float64)
        self.model = self.trainer(places(X), np.asarray(y, np.int64), weights)
        return self

    def predict(self, X: Any) -> IntArray:
        """(n,) decisions, 1 for the favourable class, at the model's own threshold."""
        assert self.model is not None
        rows = replace(self.trainer.rows.take(places(X)), positive=self.trainer.positive)
        chosen: IntArray = (decide_rows(self.model, rows) == self.trainer.positive).astype(np.int64)
        return chosen

    def member(self) -> nn.Module:
        """The network."""
        assert self.model is not None
        return self.model.module


@dataclass(frozen=True, eq=False)
class Reducible:
    """fairlearn's reduction input: ``X`` (n, 1) positions of rows, ``y`` (n,) in {0, 1}, ``groups`` (n,)."""

    trainer: Trainer
    X: IntArray
    y: IntArray
    groups: IntArray
    features: tuple[str, ...]


def reducible(
    model: AuditedModel,
    data: AuditData,
    rng: np.random.Generator,
    training: Training,
    *,
    epochs: int | None,
    fingerprint: dict[str, object],
) -> Reducible:
    """The labelled rows and a trainer for them; several sensitive features count as their combinations.

    Raises ModelError for a model that cannot be trained anew or has not two classes; DataError as training_set does.
    """
    old = trainable(model)
    assert old.recipe is not None
    if old.n_outputs != 2:
        raise ModelError(
            f"fairlearn's reductions are for two classes, and this model has {old.n_outputs}: {instead(old)}."
        )
    rows = training_set(old, data, training.device, groups=True)
    positive = 1 if rows.positive is None else rows.positive
    _, groups = np.unique(rows.s.cpu().numpy(), axis=0, return_inverse=True)
    trainer = Trainer(
        old=old,
        rows=rows,
        recipe=replace(old.recipe, epochs=epochs or old.recipe.epochs),
        seed=int(rng.integers(2**62)),
        training=training,
        positive=positive,
        fingerprint=fingerprint,
    )
    y = (rows.y.cpu().numpy() == positive).astype(np.int64)
    return Reducible(trainer, np.arange(len(rows))[:, None], y, groups.astype(np.int64), rows.features)


@contextmanager
def reducing() -> Iterator[None]:
    """Context for fairlearn that silences pandas warnings about setting values, which users cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def moment(constraint: Parity, difference_bound: float) -> Any:
    """fairlearn's moment of that constraint."""
    from fairlearn import reductions

    kind = {
        "demographic_parity": reductions.DemographicParity,
        "equalized_odds": reductions.EqualizedOdds,
        "true_positive_rate_parity": reductions.TruePositiveRateParity,
        "false_positive_rate_parity": reductions.FalsePositiveRateParity,
    }[constraint]
    return kind(difference_bound=difference_bound)


def places(X: Any) -> IntArray:
    """(n,) positions of rows from fairlearn's argument, a table or an array (n, 1)."""
    found: IntArray = np.asarray(X, np.int64).reshape(-1)
    return found


Learner = Literal["last_layer", "network"]
_STEPS = 30
_ENOUGH = 1e-9


def is_simple(model: TorchModel) -> bool:
    """Whether it is an MLP with two logits, whose last layer can be trained separately."""
    named = model.architecture or {}
    args = named.get("args", {})
    return named.get("name") == "mlp" and args.get("n_outputs") == 2 and model.output_kind == "logits"


class LastLayer:
    """Inputs of the network's last layer for the trainer's rows, computed once: ``hidden`` (n, width) and a 1.

    The trainer counts how many last layers were learned.
    """

    def __init__(self, trainer: Trainer) -> None:
        import torch

        self.trainer = trainer
        self.old = old = trainer.old
        self.positive = trainer.positive
        rows = trainer.rows
        below = _layers(old.module)[:-1]
        with torch.inference_mode(), old.evaluating():
            parts = [below(part).double().cpu().numpy() for part in torch.split(rows.x, old.batch_rows)]
        hidden = np.concatenate(parts)
        self.hidden: FloatArray = np.column_stack([hidden, np.ones(len(hidden))])

    def estimator(self) -> LastLayerEstimator:
        """An untrained estimator."""
        return LastLayerEstimator(self)


class LastLayerEstimator:
    """A last layer with scikit-learn's ``fit`` and ``predict``, for a reduction; X (n, 1): positions of rows."""

    def __init__(self, shared: LastLayer) -> None:
        self.shared = shared
        self.weights: FloatArray | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> LastLayerEstimator:
        return LastLayerEstimator(self.shared)

    def fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Logistic regression of labels in {0, 1} on the hidden layer, weighted."""
        hidden = self.shared.hidden[np.asarray(X, np.int64).reshape(-1)]
        self.weights = weighted_logistic(hidden, np.asarray(y, np.float64), np.asarray(sample_weight, np.float64))
        self.shared.trainer.trained += 1
        return self

    def predict(self, X: Any) -> IntArray:
        """(n,) decisions, 1 for the favourable class, at the model's own threshold."""
        assert self.weights is not None
        scores = expit(self.shared.hidden[np.asarray(X, np.int64).reshape(-1)] @ self.weights)
        chosen: IntArray = (scores >= self.shared.old.threshold).astype(np.int64)
        return chosen

    @property
    def model(self) -> TorchModel:
        """The whole network with this last layer, saved and trained like the old one."""
        return self.shared.old.with_module(self.member())

    def member(self) -> nn.Module:
        """The whole network with this last layer."""
        import torch

        assert self.weights is not None
        module = copy.deepcopy(self.shared.old.module)
        last = _layers(module)[-1]
        # The log-odds of the favourable class, half of it to either logit.
        half = torch.from_numpy(self.weights / 2.0 * (1.0 if self.shared.positive == 1 else -1.0)).to(last.weight)
        with torch.no_grad():
            last.weight.copy_(torch.stack([-half[:-1], half[:-1]]))
            last.bias.copy_(torch.stack([-half[-1], half[-1]]))
        return module


def weighted_logistic(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """(width,) coefficients of logistic regression by damped Newton steps: x (n, width), labels y (n,) in {0, 1}.

    Minimises ``sum w_i log(1 + exp(-s_i x_i b)) + |b|^2 / 2``, s being the labels' signs and w scaled to mean 1; the
    last column, a constant, is penalised by a thousandth of that. (scikit-learn's penalty at C = 1.)
    """
    w = weights / weights.mean()
    ridge = np.ones(x.shape[1])
    ridge[-1] = 1e-3
    b = np.zeros(x.shape[1])

    def loss(coefficients: FloatArray) -> float:
        z = x @ coefficients
        return float(w @ (np.logaddexp(0.0, z) - y * z) + 0.5 * (ridge * coefficients) @ coefficients)

    now = loss(b)
    for _ in range(_STEPS):
        p = expit(x @ b)
        gradient = x.T @ (w * (p - y)) + ridge * b
        hessian = (x * (w * p * (1.0 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (then := loss(b - size * step)) > now and size > 1e-4:
            size /= 2.0
        if then >= now:
            break
        gained, now, b = now - then, then, b - size * step
        if gained <= _ENOUGH * now:
            break
    return b


def _layers(module: Any) -> Any:
    """The layers of an MLP, in their order."""
    return module.layers


@dataclass
class Fitter:
    """A fitter of the estimator on relabelled and weighted rows, with the same random draws every time.

    ``positive``: the class that the label 1 of a reduction means. ``trained``: how many were fitted so far.
    """

    old: AuditedModel
    rows: Labelled
    seed: int
    positive: int
    hyperparameters: Settings | None
    trained: int = 0

    def __call__(self, rows: IntArray, y: IntArray, weights: FloatArray) -> AuditedModel:
        """An estimator for labels y (n,) in {0, 1} and weights (n,) of rows (n,), which are scaled to mean 1."""
        found = refit(
            self.old,
            self.rows,
            np.random.default_rng(self.seed),
            X=take_rows(self.rows.data.X, rows),
            y=np.where(y == 1, self.positive, 1 - self.positive),
            weights=weights / weights.mean(),
            hyperparameters=self.hyperparameters,
        )
        self.trained += 1
        return found.model


class FittedEstimator:
    """The estimator with ``fit`` and ``predict`` for a reduction; X (n, 1) are positions of rows.

    Copies of it, which reductions make, share the fitter.
    """

    def __init__(self, fitter: Fitter) -> None:
        self.fitter = fitter
        self.model: AuditedModel | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> FittedEstimator:
        return FittedEstimator(self.fitter)

    def fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """Fit an estimator."""
        self.model = self.fitter(places(X), np.asarray(y, np.int64), np.asarray(sample_weight, np.float64))
        return self

    def predict(self, X: Any) -> IntArray:
        """(n,) decisions, 1 for the favourable class, at the model's own threshold."""
        assert self.model is not None
        chosen = self.fitter.positive
        rows = take_rows(self.fitter.rows.data.X, places(X))
        decided = self.model.decide(self.model.predict_proba(rows), chosen, rows)
        found: IntArray = (decided == chosen).astype(np.int64)
        return found


@dataclass(frozen=True, eq=False)
class ReducibleEstimator:
    """fairlearn's reduction input: ``X`` (n, 1) positions of rows, ``y`` (n,) in {0, 1}, ``groups`` (n,)."""

    trainer: Fitter
    X: IntArray
    y: IntArray
    groups: IntArray
    features: tuple[str, ...]


def reducible_estimator(
    model: AuditedModel, data: AuditData, rng: np.random.Generator, hyperparameters: Settings | None
) -> ReducibleEstimator:
    """The labelled rows and a fitter for them; several sensitive features count as their combinations.

    Raises ModelError for a model that has not two classes; DataError as labelled_rows does.
    """
    if model.n_outputs != 2:
        raise ModelError(
            f"fairlearn's reductions are for two classes, and this model has {model.n_outputs}: use reweighing."
        )
    rows = labelled_rows(data, groups=True)
    positive = 1 if rows.data.positive is None else rows.data.positive
    _, groups = np.unique(rows.s, axis=0, return_inverse=True)
    fitter = Fitter(
        old=model, rows=rows, seed=int(rng.integers(2**62)), positive=positive, hyperparameters=hyperparameters
    )
    y = (rows.y == positive).astype(np.int64)
    return ReducibleEstimator(fitter, np.arange(len(rows))[:, None], y, groups.astype(np.int64), rows.features)
