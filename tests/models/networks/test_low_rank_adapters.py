"""Low-rank adapters: which layers have them, what they add to the weights, and what is merged in the end."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from auditor.core.errors import ModelError, UsageError
from auditor.models.networks.low_rank_adapters import Lora, adaptable, adapted, head, merge_adapters
from tests.quantifiers import all_of

pytest.importorskip("peft", reason="peft is not installed")


class Network(nn.Module):
    """Two layers of one name at different depths, a head, and a layer after it in the order of definition."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.inner = nn.ModuleDict({"head": nn.Linear(4, 4), "frozen": nn.Linear(4, 4)})
        self.head = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(4)
        self.inner["frozen"].requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        x = self.norm(self.inner["frozen"](torch.tanh(self.inner["head"](x))))
        logits: torch.Tensor = self.head(x)
        return logits


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network()


def test_the_head_is_the_last_layer_with_as_many_outputs(network: Network) -> None:
    assert {id(p) for p in head(network, 3)} == {id(p) for p in network.head.parameters()}
    # A layer whose own name is that of the head has an adapter all the same.
    assert adaptable(network, 3) == ["first", "inner.head"]
    # One logit says as much of two classes as two.
    assert [tuple(p.shape) for p in head(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1)), 2)] == [
        (1, 2),
        (1,),
    ]
    assert head(network, 7) == []
    with pytest.raises(ModelError, match="no linear layer below a head"):
        adapted(network, Lora(rank=1), 7)


def test_what_torchs_attention_computes_by_itself_has_no_adapter() -> None:
    module = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Linear(4, 2))
    assert adaptable(module, 2) == ["0.linear1", "0.linear2"]


def test_adapters_add_what_the_formula_says_and_are_merged(network: Network) -> None:
    plain = copy.deepcopy(network)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    before = plain(x)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        module = adapted(network, Lora(rank=2, alpha=6.0), 3)
    # B is zero, so that nothing has changed yet.
    assert torch.equal(module(x), before)
    learned = {name for name, p in module.named_parameters() if p.requires_grad}
    assert {name.split(".")[-1] for name in learned if "lora" not in name} == {"weight", "bias"}
    assert sum("lora_A" in name for name in learned) == sum("lora_B" in name for name in learned) == 2
    assert {name for name in learned if "lora" not in name} == {"model.head.weight", "model.head.bias"}
    layer = module.get_submodule("model.first")
    A, B = (getattr(layer, f"lora_{letter}")["default"].weight for letter in "AB")
    with torch.no_grad():
        B.copy_(torch.arange(8.0).reshape(4, 2) / 8.0)
    expected = plain.first.weight + 6.0 / 2.0 * B @ A
    wanted = module(x).detach()
    new = merge_adapters(module, plain)
    assert torch.allclose(new.get_parameter("first.weight"), expected, atol=1e-6)
    assert torch.allclose(new(x), wanted, atol=1e-5) and not torch.allclose(wanted, before, atol=1e-3)
    assert new.state_dict().keys() == plain.state_dict().keys()
    # What was frozen is, and what was not is not.
    was = dict(plain.named_parameters())
    assert all_of(p.requires_grad == was[name].requires_grad for name, p in new.named_parameters())


@pytest.mark.parametrize("options", [{"rank": 0}, {"alpha": 0.0}])
def test_a_rank_or_a_weight_of_nothing_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="rank of at least 1"):
        Lora(**options)  # type: ignore[arg-type]
