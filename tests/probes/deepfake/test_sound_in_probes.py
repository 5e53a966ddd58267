"""Probes that are not about detectors, asked about a model of sound: they measure, or say in words why they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import AudioPreprocessing
from auditor.judging.measurement import Outcome
from auditor.models.torch_model import TorchModel
from auditor.run.run_audit import run_audit
from probes import PROBES
from probes.robustness.corruptions import sound_noise
from probes.robustness.robustness import Robustness

N = 60
SAMPLES = 512


class _Loud(nn.Module):
    """Log-odds of the second class: 100 times the mean of the first half less 0.05."""

    def forward(self, x: Tensor) -> Tensor:
        z = 100.0 * (x[:, : SAMPLES // 2].mean(dim=1) - 0.05)
        return torch.stack([-z, z], dim=1)


def model() -> TorchModel:
    preprocessing = AudioPreprocessing(sampling_rate=8_000, samples=SAMPLES)
    return TorchModel(_Loud(), classes=("quiet", "loud"), preprocessing=preprocessing)


def data() -> AuditData:
    rng = np.random.default_rng(0)
    y = np.arange(N) % 2
    X = (rng.normal(0, 400, (N, SAMPLES)) + np.where(y, 1700, 1500)[:, None]).astype(np.int16)
    group = pd.Categorical(np.where(np.arange(N) % 4 < 2, "a", "b"))
    return AuditData(
        X=X, y_true=y, classes=("quiet", "loud"), positive=1, sensitive_features=pd.DataFrame({"speaker": group})
    )


def values(found: list[Any], metric: str) -> list[float]:
    return [m.estimate.value for m in found if m.metric == metric and not m.group]


def test_noise_has_the_stated_level() -> None:
    rng = np.random.default_rng(0)
    X = (1000 * np.sin(np.arange(40_000) / 7))[None].astype(np.int16)
    z = rng.standard_normal(X.shape, dtype=np.float32)
    added = sound_noise(X, z, 0.1).astype(float) - X
    assert 20 * np.log10(np.std(X) / np.std(added)) == pytest.approx(20.0, abs=0.1)
    loud: npt.NDArray[np.int16] = np.full((1, 10), 32767, np.int16)
    assert sound_noise(loud, np.ones((1, 10), np.float32), 1.0).max() == 32767


def test_robustness_is_measured_of_sound() -> None:
    found = Robustness(n_steps=3).measure(model(), data(), np.random.default_rng(0))
    flips = values(found, "flip_rate_under_pgd")
    # The mean moves by epsilon itself: a file flips where it lies within epsilon of 0.05.
    margin = np.abs(data().X[:, : SAMPLES // 2].astype(np.float64).mean(axis=1) / 32768 - 0.05)
    expected = [(margin < epsilon).mean() for epsilon in (0.0005, 0.001, 0.002)]
    np.testing.assert_allclose(flips[-3:], expected, atol=0.02)
    accuracy = values(found, "accuracy_under_noise")
    assert accuracy[0] >= accuracy[-1]
    assert not values(found, "accuracy_under_missing")


def test_sound_is_no_table() -> None:
    with pytest.raises(NotApplicableError, match="missing needs a table"):
        Robustness(methods="missing").measure(model(), data(), np.random.default_rng(0))
    with pytest.raises(NotApplicableError, match="these data are sound"):
        PROBES["feature_attribution"]().measure(model(), data(), np.random.default_rng(0))


def test_label_only_membership_perturbs_sound() -> None:
    known = replace(data(), is_member=np.arange(N) % 3 == 0)
    probe = PROBES["membership_inference"](methods="label_only")  # type: ignore[call-arg]
    found = probe.measure(model(), known, np.random.default_rng(0))
    assert values(found, "attack_auc") and np.isfinite(values(found, "attack_auc")).all()


@pytest.mark.slow
def test_no_probe_falls_over_sound() -> None:
    report = run_audit(model(), data(), [probe() for probe in PROBES.values()], seed=0)
    fallen = {(f.probe, f.reason) for f in report.findings if f.outcome is Outcome.NOT_RUN}
    assert not fallen
    said = {f.probe: f.reason for f in report.findings if f.outcome is Outcome.NOT_APPLICABLE}
    assert {"feature_attribution", "model_inversion", "counterfactual_fairness"} <= set(said)
    assert "columns make" not in " ".join(map(str, said.values()))
