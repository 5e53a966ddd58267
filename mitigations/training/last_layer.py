"""The cheap learner of a reduction: the last layer relearned from weighted rows; all other layers are fixed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from scipy.special import expit

from auditor.core.rows import FloatArray, IntArray

if TYPE_CHECKING:
    from torch import nn

    from auditor.models.torch_model import TorchModel
    from mitigations.training.network_reduction import Trainer

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
