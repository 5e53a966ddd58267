"""Generators lent and given back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from auditor.core.randomness import forked


def test_generators_of_the_devices_in_use_are_lent_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    fork = torch.random.fork_rng

    def watched(devices: Any = None, **more: Any) -> Any:
        asked.append(devices)
        return fork(devices=[], **more)

    monkeypatch.setattr(torch.random, "fork_rng", watched)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    state = torch.get_rng_state()
    with forked(torch.device("cpu")):
        first = torch.rand(5)
    with forked(torch.device("cuda:1"), torch.device("cuda"), torch.device("cuda:1"), torch.device("cpu")):
        assert torch.equal(torch.rand(5), first)
    with forked():
        torch.rand(5)
    assert asked == [[], [1, 3], []] and torch.equal(state, torch.get_rng_state())
