"""Numbers of many tensors are copied at once, and are the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from auditor.privacy.canary_recording import DiracCanaries, NoiseKeeper, on_host
from tests.quantifiers import all_of


def test_each_part_is_its_tensor_to_the_last_bit() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(3, 4), torch.zeros(0), torch.randn(5).double(), torch.randn(2).half(), torch.randn(())]
    found = on_host(tensors)
    assert all_of(np.array_equal(a, t.reshape(-1).double().numpy()) for a, t in zip(found, tensors, strict=True))
    assert on_host([]) == []


def test_a_step_of_noise_is_copied_a_few_times_however_many_parameters_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each copy waits for its device; what is kept is what was kept when there was one copy a parameter."""
    copies = []
    to_cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(self.shape) or to_cpu(self))

    def kept(n: int) -> tuple[int, NoiseKeeper, list[torch.Tensor]]:
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(7, 3)) for _ in range(n)]
        keeper, noises = NoiseKeeper(parameters), [torch.randn(7, 3) for _ in range(n)]
        copies.clear()
        keeper.keep(noises, 2.0)
        return len(copies), keeper, noises

    few, _, _ = kept(2)
    many, keeper, noises = kept(40)
    assert few == many == 2
    found = keeper.released_noise()
    assert found.squares[0].tolist() == [float(n.double().square().sum()) for n in noises]
    assert found.totals[0] == sum(float(n.double().sum()) for n in noises)


def test_canaries_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(5, 4)) for _ in range(10)]
    canaries = DiracCanaries(parameters, 50, sample_rate=0.5, rng=np.random.default_rng(0))
    torch.manual_seed(1)
    released = [torch.randn(5, 4) if k != 3 else None for k in range(10)]
    expected = np.arange(50.0)
    wanted = np.zeros(50)
    for (at, who), tensor in zip(canaries.places, released, strict=True):
        if tensor is not None:
            wanted[who] = (tensor.reshape(-1)[at].double().numpy() * 3.0 - expected[who]) / 2.0
    copies = []
    to_cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(1) or to_cpu(self))
    canaries.update_scores(released, 3.0, expected, 2.0)
    assert canaries.scores.tolist() == wanted.tolist() and len(copies) == 1
