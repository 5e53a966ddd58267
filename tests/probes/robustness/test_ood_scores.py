"""Scores of strangeness against their formulas computed the slow way, and against another library where it is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.models.networks.architectures import MLP, SmallCNN
from auditor.models.torch_model import TorchModel
from probes.robustness.out_of_distribution import Mahalanobis, Nearest, energy, msp
from probes.robustness.out_of_distribution_inputs import internals_of
from tests.quantifiers import none_of
from tests.toys import models as toys

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 3, 120)
KNOWN = RNG.standard_normal((120, 5)) @ RNG.standard_normal((5, 5)) + 2.0 * LABELS[:, None]
ASKED = 3.0 * RNG.standard_normal((40, 5))


def test_confidence_and_energy_of_logits() -> None:
    z = RNG.standard_normal((20, 4))
    e = np.exp(z)
    assert np.allclose(msp(e / e.sum(axis=1, keepdims=True)), [max(row) / sum(row) for row in e])
    assert np.allclose(energy(z), [np.log(sum(row)) for row in e])
    assert np.allclose(energy(z + 2_000.0), energy(z) + 2_000.0)


def test_mahalanobis_is_half_the_squared_distance_from_the_nearest_mean() -> None:
    means = [KNOWN[LABELS == c].mean(axis=0) for c in range(3)]
    scatter = sum(np.outer(x - means[c], x - means[c]) for x, c in zip(KNOWN, LABELS, strict=True))
    inverse = np.linalg.inv(scatter + 1e-6 * np.eye(5))
    slow = [-min(0.5 * (x - m) @ inverse @ (x - m) for m in means) for x in ASKED]
    assert np.allclose(Mahalanobis.from_features(KNOWN, LABELS).score(ASKED), slow, rtol=1e-8)


def test_a_feature_that_never_moves_makes_its_moving_strange() -> None:
    still = np.c_[KNOWN, np.zeros(len(KNOWN))]
    fitted = Mahalanobis.from_features(still, LABELS)
    moved = still[:5].copy()
    moved[:, 5] = 1.0
    assert fitted.score(moved).max() < 1_000.0 * fitted.score(still).min()


def test_the_nearest_neighbours_are_those_of_a_loop() -> None:
    known, asked = KNOWN.copy(), ASKED.copy()
    known[7], asked[3] = 0.0, 0.0
    unit = [x / max(float(np.linalg.norm(x)), 1e-12) for x in known]
    for k in (1, 6, 120, 500):
        slow = []
        for x in asked:
            own = x / max(float(np.linalg.norm(x)), 1e-12)
            slow.append(-sorted(float(np.linalg.norm(own - u)) for u in unit)[min(k, 120) - 1])
        assert np.allclose(Nearest.from_features(known, k).score(asked), slow, atol=1e-7)


@pytest.mark.slow
def test_scores_are_those_of_pytorch_ood() -> None:
    detector = pytest.importorskip("pytorch_ood.detector")
    before = torch.get_default_dtype()
    # It keeps its means and covariance in the default type.
    torch.set_default_dtype(torch.float64)
    try:
        z, asked = torch.from_numpy(KNOWN), torch.from_numpy(ASKED)
        known = torch.from_numpy(LABELS)
        theirs = {
            "msp": detector.MaxSoftmax.score(asked),
            "energy": detector.EnergyBased.score(asked, t=1.0),
            "mahalanobis": detector.Mahalanobis(None).fit_features(z, known).predict_features(asked),
            "knn": detector.KNN(None, k=7).fit_features(z, known).predict_features(asked),
        }
    finally:
        torch.set_default_dtype(before)
    ours = {
        "msp": msp(torch.softmax(asked, dim=1).numpy()),
        "energy": energy(ASKED),
        "mahalanobis": Mahalanobis.from_features(KNOWN, LABELS).score(ASKED),
        "knn": Nearest.from_features(KNOWN, 7).score(ASKED),
    }
    for name, scores in ours.items():
        assert np.allclose(scores, -theirs[name].numpy(), rtol=1e-6, atol=1e-6), name


# ---- what a network's last layer reads ------------------------------------------------------------------------------


def table() -> Any:
    return toys.rows(30).X


def test_features_are_what_the_last_layer_takes() -> None:
    X = table()
    preprocessing = fit_tabular(X)
    module = MLP(preprocessing.width, [8, 6], 2)
    model = TorchModel(module, classes=["0", "1"], preprocessing=preprocessing, batch_rows=7)
    module.train()
    inner = internals_of(model, X, "tabular")
    module.eval()
    with torch.no_grad():
        inputs = model.encode(X)
        expected, logits = module.layers[:-1](inputs), module(inputs)
    assert np.allclose(inner.features, expected.numpy(), atol=1e-6) and inner.features.shape == (30, 6)
    assert inner.logits is not None and np.allclose(inner.logits, logits.numpy(), atol=1e-6)
    assert "6 features" in inner.what and "layers.4" in inner.what
    assert none_of(m._forward_pre_hooks for m in module.modules())


def test_of_one_number_for_two_classes_there_is_no_energy_and_logits_stand_in_for_features() -> None:
    inner = internals_of(toys.model(lambda skill, group, seen: skill), table(), "tabular")
    assert inner.logits is None and inner.features.shape == (30, 2) and inner.what == "its logits"


def test_probabilities_have_no_energy() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Softmax(dim=1))
    model = TorchModel(module, classes=["a", "b", "c"], features=toys.FEATURES, outputs="probabilities")
    inner = internals_of(model, table(), "tabular")
    assert inner.logits is None and inner.features.shape == (30, 3)


def test_features_of_pictures() -> None:
    data: AuditData = toys.pictures()
    module = SmallCNN(1, 26)
    model = TorchModel(
        module,
        classes=range(26),
        encoder=lambda X: torch.from_numpy(np.asarray(X).transpose(0, 3, 1, 2) / 255.0).float(),
    )
    inner = internals_of(model, data.X, "image")
    assert (
        inner.features.shape == (len(data), 64) and inner.logits is not None and inner.logits.shape == (len(data), 26)
    )
