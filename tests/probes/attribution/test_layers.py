"""Grad-CAM by hand on two convolutions; attention rollout on two positions; attention weights of real networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from captum.attr import GuidedGradCam
from torch import Tensor, nn

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import ImagePreprocessing, TextPreprocessing
from auditor.loading.huggingface_folders import TextClassifier
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP, SmallCNN, TransformerEncoder
from auditor.models.torch_model import TorchModel
from probes.attribution.attention import attentions, rollout
from probes.attribution.attribution_task import Problem, pose
from probes.attribution.methods import applicable, explain, why_not
from tests.quantifiers import none_of

torch.set_num_threads(1)

WORDS = ("good", "bad", "film", "very", "day")


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def posed(model: AuditedModel, X: Any) -> Problem:
    sample = AuditData.from_arrays(X, classes=list(model.classes))
    return pose(model, sample, sample, np.ones(len(sample), np.int64), rng=rng())


def images(n: int = 3, size: int = 8) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


# ---- convolutions ----------------------------------------------------------------------------------------------------


class TwoConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)
        self.second = nn.Conv2d(4, 5, 3, padding=1)
        self.last = nn.ReLU()
        self.output = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.last(self.second(self.pool(self.relu(self.first(x)))))
        z: Tensor = self.output(maps.mean(dim=(2, 3)))
        return z


def two_convolutions() -> TorchModel:
    torch.manual_seed(2)
    return TorchModel(TwoConvolutions(), classes=["0", "1"], preprocessing=ImagePreprocessing(size=(8, 8)))


def test_grad_cam_by_hand() -> None:
    model, X = two_convolutions(), images()
    problem = posed(model, X)
    module: Any = model.module
    with torch.no_grad():
        x = torch.from_numpy(model.preprocessing.encode(X))  # type: ignore[union-attr, arg-type]
        maps = module.last(module.second(module.pool(module.relu(module.first(x))))).numpy()
        # The log-odds are linear in the maps: each pixel of map k counts with its weight over the number of pixels.
        weights = (module.output.weight[1] - module.output.weight[0]).numpy() / 16
    by_hand = np.maximum((weights[None, :, None, None] * maps).sum(axis=1), 0.0)
    large = torch.nn.functional.interpolate(torch.from_numpy(by_hand)[:, None], (8, 8), mode="bilinear")[:, 0].numpy()
    found = explain("grad_cam", problem, rng())
    assert found.fine is not None and "layer last" in found.detail
    np.testing.assert_allclose(found.fine, large, atol=1e-6)
    np.testing.assert_allclose(found.values.sum(axis=1), large.sum(axis=(1, 2)), atol=1e-5)
    assert found.values.any() and (found.values >= 0).all()


def test_guided_grad_cam_is_captums() -> None:
    model, X = two_convolutions(), images()
    problem = posed(model, X)
    module: Any = model.module
    head = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0, 1.0]]))
    x = torch.from_numpy(model.preprocessing.encode(X)).requires_grad_()  # type: ignore[union-attr, arg-type]
    with pytest.warns(UserWarning, match="backward hooks on ReLU"):
        direct = GuidedGradCam(nn.Sequential(module, head), module.last).attribute(x, interpolate_mode="bilinear")
    found = explain("guided_grad_cam", problem, rng())
    assert found.fine is not None and found.values.any()
    # Each channel holds a third of Grad-CAM's map here, so that maps add up over channels.
    np.testing.assert_allclose(found.fine, direct.detach().sum(dim=1).numpy() / 3, atol=1e-6)
    assert none_of(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in module.modules())


def test_grad_cam_looks_at_the_activation_after_the_last_convolution() -> None:
    torch.manual_seed(0)
    model = TorchModel(SmallCNN(3, 2, width=4), classes=["0", "1"], preprocessing=ImagePreprocessing(size=(32, 32)))
    problem = posed(model, images(2, 32))
    # Blocks of convolution, norm, activation, pooling: the third activation is module 10.
    assert "layer blocks.10" in explain("grad_cam", problem, rng()).detail


def test_networks_without_maps_say_what_would_work() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MLP(192, [8], 2)

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.inner(x.flatten(1))
            return z

    problem = posed(TorchModel(Flat(), classes=["0", "1"], preprocessing=ImagePreprocessing(size=(8, 8))), images())
    with pytest.raises(NotApplicableError, match="has 0: use integrated_gradients or occlusion"):
        explain("grad_cam", problem, rng())
    assert not {"grad_cam", "guided_grad_cam", "attention_rollout"} & set(applicable(problem))
    torch.manual_seed(0)
    smooth = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(256, 2),
    )
    problem = posed(TorchModel(smooth, classes=["0", "1"], preprocessing=ImagePreprocessing(size=(8, 8))), images())
    assert not why_not("grad_cam", problem)
    assert "torch.nn.ReLU" in why_not("guided_grad_cam", problem)


# ---- attention -------------------------------------------------------------------------------------------------------


def test_rollout_of_two_positions_by_hand() -> None:
    first = np.array([[[[0.8, 0.2], [0.4, 0.6]], [[0.4, 0.6], [0.2, 0.8]]]])
    second = np.array([[[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]])
    # Means over heads ((0.6, 0.4), (0.3, 0.7)) and ((0.5, 0.5), (0.5, 0.5)); half of each and half identity:
    # ((0.8, 0.2), (0.15, 0.85)) and ((0.75, 0.25), (0.25, 0.75)).
    by_hand = [
        [0.75 * 0.8 + 0.25 * 0.15, 0.75 * 0.2 + 0.25 * 0.85],
        [0.25 * 0.8 + 0.75 * 0.15, 0.25 * 0.2 + 0.75 * 0.85],
    ]
    np.testing.assert_allclose(rollout([first, second])[0], by_hand)


class OneAttention(nn.Module):
    """One attention with two heads, of which the score reads the first position, or the mean of all."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean
        self.embedding = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.output = nn.Linear(8, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        states, _ = self.attention(x, x, x, need_weights=False)
        z: Tensor = self.output(states.mean(dim=1) if self.mean else states[:, 0])
        return z


def text_model(module: nn.Module, length: int = 4) -> TorchModel:
    vocabulary = {w: i for i, w in enumerate(WORDS, 2)}
    return TorchModel(
        module,
        classes=["0", "1"],
        preprocessing=TextPreprocessing(vocabulary=vocabulary, length=length, padding="right"),
    )


@pytest.mark.parametrize("mean", [False, True])
def test_attention_of_one_layer_by_hand(mean: bool) -> None:
    torch.manual_seed(0)
    module = OneAttention(mean).double()
    texts = ["good film very day", "bad bad film good"]
    problem = posed(text_model(module), texts)
    assert problem.differentiable is not None
    with torch.no_grad():
        x = module.embedding(problem.differentiable.inputs)
        q, k, v = (
            (x @ w.T + b).reshape(2, 4, 2, 4).transpose(1, 2)
            for w, b in zip(
                module.attention.in_proj_weight.chunk(3), module.attention.in_proj_bias.chunk(3), strict=True
            )
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / 2.0, dim=-1)
        direction = (module.output.weight[1] - module.output.weight[0]) @ module.attention.out_proj.weight
        # Key j of head h speaks for the class by how far its value points that way.
        worth = (v * direction.reshape(2, 4)[None, :, None, :]).sum(dim=-1)
        read = weights.mean(dim=2) if mean else weights[:, :, 0]
        by_hand = (read * worth).sum(dim=1)
        rolled = (weights.mean(dim=1) + torch.eye(4)) / 2
        looked = rolled.mean(dim=1) if mean else rolled[:, 0]
    np.testing.assert_allclose(explain("attention_x_gradient", problem, rng()).values, by_hand.numpy(), atol=1e-9)
    np.testing.assert_allclose(explain("attention_rollout", problem, rng()).values, looked.numpy(), atol=1e-9)


def test_attention_to_padding_is_no_units_business() -> None:
    torch.manual_seed(0)
    module = TransformerEncoder(7, 2, 6, d_model=16, n_heads=2)
    problem = posed(text_model(module, 6), ["good film", "very very bad day good film"])
    for method in ("attention_rollout", "attention_x_gradient"):
        found = explain(method, problem, rng())
        assert not found.values[0, 2:].any() and found.values[0, :2].all()
        assert "2 layers of 2 heads" in found.detail
    # Rollout spreads one unit of attention, and padding, which is masked, gets none of it.
    np.testing.assert_allclose(explain("attention_rollout", problem, rng()).values.sum(axis=1), 1.0, atol=1e-6)
    assert none_of(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def bert(implementation: str = "sdpa") -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=7,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        attn_implementation=implementation,
    )
    torch.manual_seed(0)
    return BertForSequenceClassification(config).eval()  # type: ignore[no-any-return]


def test_transformers_attention_is_what_it_hands_out_itself_and_its_kernels_are_given_back() -> None:
    network: Any = bert()
    ids = torch.tensor([[2, 3, 4, 5, 0, 0], [2, 4, 4, 6, 3, 5]])
    module = TextClassifier(network, 0, False)
    assert network.config._attn_implementation == "sdpa"
    with attentions(module) as seen:
        inside = network.config._attn_implementation
        module(ids)
    assert inside == "eager" and network.config._attn_implementation == "sdpa"
    own = bert("eager")
    expected = own(input_ids=ids, attention_mask=(ids != 0).long(), output_attentions=True).attentions
    assert len(seen) == len(expected) == 2
    for found, known in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, known)
    with pytest.raises(RuntimeError, match="stop"), attentions(module):
        raise RuntimeError("stop")
    assert network.config._attn_implementation == "sdpa"
    assert none_of(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_attention_methods_of_a_hugging_face_classifier() -> None:
    network: Any = bert()
    model = TorchModel(
        TextClassifier(network, 0, False),
        classes=["0", "1"],
        encoder=lambda X: torch.tensor([[2 + WORDS.index(w) for w in str(t).split()] or [2] for t in X]),
    )
    problem = posed(model, ["bad film very day", "very day film bad"])
    weights = [
        a.detach().numpy()
        for a in bert("eager")(
            input_ids=problem.differentiable.inputs,
            output_attentions=True,  # type: ignore[union-attr]
        ).attentions
    ]
    # A classifier that pools the first position: its row of the rollout.
    expected = rollout(weights)[:, 0]
    np.testing.assert_allclose(explain("attention_rollout", problem, rng()).values, expected, atol=1e-6)
    assert explain("attention_x_gradient", problem, rng()).values.any()


def test_vision_transformers_attend_to_patches() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    network: Any = ViTForImageClassification(
        ViTConfig(
            image_size=16,
            patch_size=4,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
        )
    )
    model = TorchModel(network, classes=["0", "1"], preprocessing=ImagePreprocessing(size=(16, 16)))
    problem = posed(model, images(2, 16))
    found = explain("attention_rollout", problem, rng())
    network.set_attn_implementation("eager")
    network.eval()
    with torch.no_grad():
        out = network(pixel_values=problem.differentiable.inputs, output_attentions=True)  # type: ignore[union-attr]
    expected = rollout([a.numpy() for a in out.attentions])[:, 0, 1:].reshape(2, 4, 4)
    assert found.fine is not None and problem.units.d == 64
    np.testing.assert_allclose(found.fine.reshape(2, 4, 4, 4, 4).sum(axis=(2, 4)), expected, atol=1e-6)
    np.testing.assert_allclose(found.values.sum(axis=1), expected.sum(axis=(1, 2)), atol=1e-6)
    assert "grad_cam" not in applicable(problem)


def test_networks_without_attention_say_so() -> None:
    from auditor.models.networks.architectures import BiLSTMText

    torch.manual_seed(0)
    problem = posed(text_model(BiLSTMText(7, 2)), ["good film"])
    with pytest.raises(NotApplicableError, match="no attention weights.*use integrated_gradients or occlusion"):
        explain("attention_rollout", problem, rng())
