"""Products by oneDNN: what they are of, that they are right, and that everything else is left to torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditor.models import forward_passes
from auditor.models.forward_passes import quick_products

_PRODUCT = forward_passes._by_onednn()
pytestmark = pytest.mark.skipif(_PRODUCT is None, reason="torch has no oneDNN here")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what oneDNN was given."""
    seen: list[tuple[int, ...]] = []

    def counted(x: Tensor, *rest: Any) -> Tensor:
        seen.append(tuple(x.shape))
        assert _PRODUCT is not None
        return _PRODUCT(x, *rest)

    monkeypatch.setattr(forward_passes, "_by_onednn", lambda: counted)
    return seen


def test_plain_products_are_given_to_onednn_and_are_right(calls: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    for layer in (nn.Linear(40, 24), nn.Linear(40, 24, bias=False)):
        for x in (torch.randn(70, 40), torch.randn(4, 16, 40), torch.randn(40, 70).t()):
            exact = copy.deepcopy(layer).double()(x.double())
            with torch.inference_mode(), quick_products():
                found = layer(x)
            np.testing.assert_allclose(found.numpy(), exact.detach().numpy(), atol=2e-6)
            assert found.shape == exact.shape
    assert calls == [(70, 40), (4, 16, 40), (70, 40)] * 2


def _small(layer: nn.Linear) -> Tensor:
    return layer(torch.randn(9, 40))  # type: ignore[no-any-return]


def _half(layer: nn.Linear) -> Tensor:
    return layer.bfloat16()(torch.randn(70, 40).bfloat16())  # type: ignore[no-any-return]


def _differentiated(layer: nn.Linear) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        return layer(torch.randn(70, 40, requires_grad=True))  # type: ignore[no-any-return]


def _mixed(layer: nn.Linear) -> Tensor:
    with torch.autocast("cpu"):
        return layer(torch.randn(70, 40))  # type: ignore[no-any-return]


def _turned(layer: nn.Linear) -> Tensor:
    return nn.functional.linear(torch.randn(70, 24), layer.weight.t())


@pytest.mark.parametrize("done", [_small, _half, _differentiated, _mixed, _turned])
def test_everything_else_is_left_to_torch(done: Callable[[nn.Linear], Tensor], calls: list[tuple[int, ...]]) -> None:
    layer = nn.Linear(40, 24)
    with torch.no_grad(), quick_products():
        torch.manual_seed(0)
        inside = done(layer)
    with torch.no_grad():
        torch.manual_seed(0)
        outside = done(layer)
    assert calls == [] and torch.equal(inside, outside) and inside.requires_grad == outside.requires_grad


def test_with_gradients_nothing_changes(calls: list[tuple[int, ...]]) -> None:
    with quick_products():
        assert nn.Linear(40, 24)(torch.randn(70, 40)).requires_grad
    assert calls == []


@pytest.mark.parametrize("wrong", [None, "raises", "wrong"])
def test_a_library_that_is_not_there_or_wrong_is_not_used(wrong: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def product(*given: Any) -> Tensor:
        if wrong == "raises":
            raise RuntimeError("no")
        return torch.zeros(2, 64, 40)

    if wrong is None:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", type("Op", (), {"default": staticmethod(product)}))
    assert forward_passes._by_onednn.__wrapped__() is None
