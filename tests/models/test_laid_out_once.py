"""Products with weights laid out once are those with the weights as they are, and nothing of it is left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from auditor.models.forward_passes import _by_onednn, laid_out_once
from auditor.models.torch_context import without_gradients

WITH_ONEDNN = pytest.mark.skipif(_by_onednn() is None, reason="torch was built without oneDNN")


@WITH_ONEDNN
def test_products_are_the_same_and_the_network_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(48, 96), nn.Tanh(), nn.Linear(96, 1000, bias=False)).eval()
    states = torch.randn(3, 7, 48)
    seen: list[int] = []
    network[0].register_forward_hook(lambda *_: seen.append(1))
    with without_gradients():
        plain = network(states)
        with pytest.raises(KeyError), laid_out_once(network, 10_000):
            assert "forward" in vars(network[0]) and "forward" in vars(network[2])
            assert torch.allclose(network(states), plain, rtol=1e-4, atol=1e-5)
            assert torch.allclose(network(states[:, :1].transpose(0, 1)), plain[:, :1].transpose(0, 1), atol=1e-5)
            raise KeyError
    assert "forward" not in vars(network[0]) and "forward" not in vars(network[2]) and len(seen) == 3
    with torch.no_grad():
        network[0].weight.zero_()
    assert not torch.allclose(network(states), plain), "weights that change afterwards are those that count"


@WITH_ONEDNN
def test_gradients_are_taken_of_the_weights_themselves_and_nothing_is_laid_out_twice() -> None:
    torch.manual_seed(0)
    layer, states = nn.Linear(4, 3), torch.randn(5, 4, requires_grad=True)
    with laid_out_once(layer, 10_000):
        outer = vars(layer)["forward"]
        with laid_out_once(layer, 10_000):
            assert vars(layer)["forward"] is outer
        (found,) = torch.autograd.grad(layer(states).sum(), states)
    assert torch.allclose(found, layer.weight.sum(dim=0).expand(5, -1)) and "forward" not in vars(layer)


@pytest.mark.parametrize(("rows", "kind"), [(1023, torch.float32), (10_000, torch.float64)])
def test_what_gains_nothing_is_multiplied_as_ever(rows: int, kind: torch.dtype) -> None:
    layer = nn.Linear(4, 4).to(kind)
    with laid_out_once(layer, rows):
        assert "forward" not in vars(layer)


def test_what_is_no_network_of_torch_has_nothing_to_lay_out() -> None:
    reached = []
    for other in (None, object()):
        with laid_out_once(other, 10_000):
            reached.append(other)
    assert len(reached) == 2
