"""Units of texts and images: what is taken away, what stands in its place, and the score of what is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradientXActivation, LayerIntegratedGradients
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import ImagePreprocessing, TextPreprocessing
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import BiLSTMText, SmallCNN, TransformerEncoder
from auditor.models.torch_model import TorchModel
from probes.attribution.attribution_task import Problem, pose
from probes.attribution.feature_attribution import default_samples
from probes.attribution.gradient import Effort
from probes.attribution.image_units import cell_of, grid_of
from probes.attribution.methods import applicable, explain
from probes.attribution.table_units import Coded

torch.set_num_threads(1)

VOCABULARY = {w: i for i, w in enumerate(("good", "bad", "film", "very", "day"), 2)}
TEXTS = ["good film", "very very bad day", "day", "Good, good film!"]


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def ones(n: int) -> npt.NDArray[np.int64]:
    return np.ones(n, np.int64)


def posed(model: AuditedModel, X: Any, **options: Any) -> Problem:
    sample = AuditData.from_arrays(X, classes=list(model.classes))
    return pose(model, sample, sample, ones(len(sample)), rng=rng(), **options)


def log_odds(model: AuditedModel, X: Any) -> npt.NDArray[np.float64]:
    p = model.predict_proba(X)[:, 1]
    return np.log(p / (1 - p))


def text_model(module: nn.Module, **options: Any) -> TorchModel:
    return TorchModel(
        module, classes=["0", "1"], preprocessing=TextPreprocessing(vocabulary=VOCABULARY, length=6, **options)
    )


def transformer(seed: int = 0, n_words: int = 7, length: int = 6) -> nn.Module:
    torch.manual_seed(seed)
    return TransformerEncoder(n_words, 2, length, d_model=16, n_heads=2).double()


def float64(model: TorchModel) -> TorchModel:
    model.module.double()
    return model


# ---- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("kind", [transformer, lambda: BiLSTMText(7, 2).double()])
def test_texts_are_closed_over_the_words_taken_away(padding: str, kind: Any) -> None:
    torch.manual_seed(0)
    model = text_model(kind(), padding=padding)
    problem = posed(model, TEXTS)
    units = problem.units
    assert units.kind == "word" and not units.in_distribution and "closed over the gap" in units.infill
    assert units.names[1] == ("very", "very", "bad", "day") and units.names[0] == ("good", "film", "", "")
    np.testing.assert_array_equal(units.present.sum(axis=1), [2, 4, 1, 3])
    words = [["good", "film"], ["very", "very", "bad", "day"], ["day"], ["good", "good", "film"]]
    generator = rng()
    rows = generator.integers(0, 4, 40)
    keep = generator.random((40, 4)) < 0.5
    left = [" ".join(w for w, k in zip(words[r], kept, strict=False) if k) for r, kept in zip(rows, keep, strict=True)]
    np.testing.assert_allclose(units.score(rows, keep), log_odds(model, np.asarray(left, object)), atol=1e-9)
    everything = units.score(np.arange(4), np.ones((4, 4), bool))
    np.testing.assert_allclose(everything, log_odds(model, np.asarray(TEXTS, object)), atol=1e-9)


def tokenized(texts: Any) -> Tensor:
    """[CLS] words [SEP], padded with 0: ids 1 and 2 around, 3 the mask, words from 4."""
    words = {"good": 4, "bad": 5, "film": 6, "very": 7, "day": 8}
    rows = [[1, *(words[w] for w in str(t).split()), 2] for t in texts]
    width = max(len(r) for r in rows)
    return torch.tensor([r + [0] * (width - len(r)) for r in rows])


def named(index: int) -> str:
    return ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "very", "day")[index]


def test_tokens_are_masked_where_the_tokenizer_has_a_mask_and_what_stands_around_stays() -> None:
    texts = ["good film", "very very bad day", "day"]
    model = TorchModel(
        transformer(n_words=9, length=10), classes=["0", "1"], encoder=tokenized, token_name=named, batch_rows=100
    )
    problem = posed(model, texts)
    units = problem.units
    assert units.kind == "token" and units.in_distribution and "mask token" in units.infill
    assert units.names == (("good", "film", "", ""), ("very", "very", "bad", "day"), ("day", "", "", ""))
    keep = np.array([[True, False, True, True], [False, True, False, True], [False] * 4])
    masked = torch.tensor([[1, 4, 3, 2, 0, 0], [1, 3, 7, 3, 8, 2], [1, 3, 2, 0, 0, 0]])
    with torch.no_grad():
        z = model.module.eval()(masked)
    np.testing.assert_allclose(units.score(np.arange(3), keep), (z[:, 1] - z[:, 0]).numpy(), atol=1e-9)
    assert problem.differentiable is not None
    held = problem.differentiable.starts == problem.differentiable.points
    # [CLS], [SEP] and padding stay as they are on the whole path, so that nothing is attributed to them.
    np.testing.assert_array_equal(held.all(dim=2).numpy(), tokenized(texts).numpy() < 3)
    found = explain("integrated_gradients", problem, rng(), Effort(n_steps=100))
    assert found.errors.max() < 0.005 and "mask token" in found.detail
    # Occlusion and ablation mean the same here: the mask's embedding is both infill and baseline.
    a, b = (explain(m, problem, rng()).values for m in ("occlusion", "feature_ablation"))
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_text_methods_are_captums_layer_methods_on_the_embedding() -> None:
    module = transformer()
    model = text_model(module, padding="right")
    problem = posed(model, ["good film very bad day good", "bad bad day day film very"], baseline="pad")
    assert problem.differentiable is not None
    ids = problem.differentiable.inputs
    module.eval()

    def margin(tokens: Tensor) -> Tensor:
        z = module(tokens)
        return z[:, 1] - z[:, 0]

    # Not captum's LayerIntegratedGradients: ids of padding as its baseline would change the attention mask on the way.
    zeros = module.token(torch.zeros_like(ids)).detach()

    def from_embedding(points: Tensor) -> Tensor:
        hook = module.token.register_forward_hook(lambda m, a, o: points)
        try:
            return margin(ids.repeat(len(points) // len(ids), 1))
        finally:
            hook.remove()

    expected = IntegratedGradients(from_embedding).attribute(
        module.token(ids).detach(), baselines=zeros, n_steps=200, method="gausslegendre"
    )
    found = explain("integrated_gradients", problem, rng(), Effort(n_steps=200, max_steps=200)).values
    np.testing.assert_allclose(found, expected.sum(-1).detach().numpy(), atol=1e-6)
    by_layer = LayerGradientXActivation(margin, module.token).attribute(ids)
    np.testing.assert_allclose(
        explain("input_x_gradient", problem, rng()).values, by_layer.sum(-1).detach().numpy(), atol=1e-6
    )


def test_integrated_gradients_of_a_recurrent_network_are_captums_layer_method() -> None:
    torch.manual_seed(0)
    module = BiLSTMText(7, 2, 8, 8, 8).double()
    problem = posed(text_model(module, padding="right"), ["good film very bad day good", "very bad"], baseline="pad")
    assert problem.differentiable is not None

    def margin(tokens: Tensor) -> Tensor:
        z = module(tokens)
        return z[:, 1] - z[:, 0]

    module.eval()
    ids = problem.differentiable.inputs
    layer = LayerIntegratedGradients(margin, module.embedding)
    expected = layer.attribute(ids, baselines=torch.zeros_like(ids), n_steps=300, method="gausslegendre").sum(-1)
    found = explain("integrated_gradients", problem, rng(), Effort(n_steps=300, max_steps=300)).values
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)


def test_mean_and_pad_baselines_of_texts() -> None:
    torch.manual_seed(0)
    module = BiLSTMText(7, 2, 8, 8, 8)
    model = text_model(module, padding="right")
    table = module.embedding.weight.detach()
    counts = np.bincount(
        [VOCABULARY[w] for t in TEXTS for w in t.lower().replace(",", "").replace("!", "").split()], minlength=7
    )
    mean = torch.from_numpy(counts / counts.sum()).float() @ table
    for baseline, expected in (("pad", table[0]), ("mean", mean)):
        problem = posed(model, TEXTS, baseline=baseline)
        assert problem.differentiable is not None and baseline in problem.differentiable.baseline
        torch.testing.assert_close(problem.differentiable.starts[0, 0], expected)
    with torch.no_grad():
        module.embedding.weight[0] = 0.0
    assert "mean" in posed(model, TEXTS).differentiable.baseline  # type: ignore[union-attr]
    with pytest.raises(NotApplicableError, match="'mask' needs a tokenizer with a mask token"):
        posed(model, TEXTS, baseline="mask")
    with pytest.raises(NotApplicableError, match="'blur' is not for texts: use pad, mask or mean"):
        posed(model, TEXTS, baseline="blur")


def test_texts_of_a_black_box_are_words_between_spaces() -> None:
    model = AuditedModel.from_callable(
        lambda X: np.array([0.1 + 0.2 * t.split().count("good") + 0.1 * t.split().count("film") for t in X]),
        classes=["0", "1"],
    )
    problem = posed(model, ["good  film", "a good good day", "day"])
    assert problem.units.names[1] == ("a", "good", "good", "day")
    expected = [[0.2, 0.1, 0, 0], [0, 0.2, 0.2, 0], [0, 0, 0, 0]]
    for method in ("occlusion", "kernel_shap", "shap_permutation", "shap_kernel"):
        np.testing.assert_allclose(explain(method, problem, rng()).values, expected, atol=1e-5, err_msg=method)
    assert applicable(problem) == ("occlusion", "kernel_shap", "lime", "shap_permutation", "shap_kernel")


def test_a_text_without_a_word_has_no_units_and_no_attribution() -> None:
    for model in (
        text_model(transformer()),
        AuditedModel.from_callable(lambda X: np.full(len(X), 0.3), classes=[0, 1]),
    ):
        problem = posed(model, ["good film", "", "bad"])
        assert problem.units.present.sum(axis=1).tolist() == [2, 0, 1]
        for method in applicable(problem):
            found = explain(method, problem, rng())
            assert not found.values[1].any() and np.isfinite(found.values).all(), method


def test_texts_that_fill_the_context_are_told_of_and_longer_ones_refused() -> None:
    model = text_model(transformer())
    cut = posed(model, ["good " * 9, "good film"])
    assert "1 of 2 texts fill the model's context of 6 tokens" in cut.notes[0]
    assert not posed(model, ["good film"]).notes
    long = TorchModel(transformer(n_words=9, length=4), classes=["0", "1"], encoder=tokenized, token_name=named)
    with pytest.raises(NotApplicableError, match="cannot read texts of 7 tokens.*longer than its context"):
        posed(long, ["good film very bad day"])


def test_token_ids_without_an_embedding_layer_are_explained_by_taking_words_away() -> None:
    class Bag(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            z = (ids == 2).double().sum(1)
            return torch.stack([-z, z], dim=1)

    problem = posed(text_model(Bag()), TEXTS)
    with pytest.raises(
        NotApplicableError, match="no embedding layer.*occlusion, kernel_shap, lime and shap_permutation"
    ):
        explain("integrated_gradients", problem, rng())
    np.testing.assert_allclose(explain("occlusion", problem, rng()).values[3], [2, 2, 0, 0])


def test_another_text_module_has_an_embedding_of_its_own() -> None:
    problem = posed(text_model(transformer(0)), TEXTS)
    swapped, fresh = problem.with_module(transformer(1)), posed(text_model(transformer(1)), TEXTS)
    for method in ("integrated_gradients", "saliency", "occlusion"):
        expected = explain(method, fresh, rng()).values
        np.testing.assert_allclose(explain(method, swapped, rng()).values, expected, atol=1e-12)
        assert np.abs(expected - explain(method, problem, rng()).values).max() > 1e-3


# ---- images ----------------------------------------------------------------------------------------------------------


def images(n: int = 3, size: int = 14, channels: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def image_model(size: int = 14, channels: int = 3) -> TorchModel:
    torch.manual_seed(0)
    flat = dict(mean=(0.5,) * channels, std=(0.5,) * channels)
    return TorchModel(
        SmallCNN(channels, 2, width=4), classes=["0", "1"], preprocessing=ImagePreprocessing(size=(size, size), **flat)
    )


@pytest.mark.parametrize(("size", "cuts"), [(224, 7), (128, 8), (32, 8), (28, 7), (16, 8), (12, 6), (1, 1), (300, 6)])
def test_grids_have_patches_of_one_size_where_they_can(size: int, cuts: int) -> None:
    assert grid_of((size, size)) == (cuts, cuts)
    cells = cell_of((size, size))
    assert set(np.unique(cells)) == set(range(cuts * cuts))
    assert (np.diff(cells, axis=1) >= 0).all() and (np.diff(cells, axis=0) >= 0).all()


def test_patches_are_blurred_as_scipy_blurs() -> None:
    model, X = image_model(), images()
    problem = posed(model, X)
    encoded = model.preprocessing.encode(X)  # type: ignore[union-attr, arg-type]
    blurred = gaussian_filter(encoded, sigma=(0, 0, 1.4, 1.4), mode="nearest")
    assert problem.differentiable is not None and problem.units.d == 49 and not problem.units.in_distribution
    np.testing.assert_allclose(problem.differentiable.starts.numpy(), blurred, atol=1e-6)
    keep = rng().random((3, 49)) < 0.5
    mixed = encoded.copy()
    for i in range(3):
        for patch in np.flatnonzero(~keep[i]):
            r, c = divmod(patch, 7)
            at = (i, slice(None), slice(2 * r, 2 * r + 2), slice(2 * c, 2 * c + 2))
            mixed[at] = blurred[at]
    with torch.no_grad():
        z = model.module.eval()(torch.from_numpy(mixed))
    np.testing.assert_allclose(problem.units.score(np.arange(3), keep), (z[:, 1] - z[:, 0]).numpy(), atol=1e-5)
    assert problem.units.names[0][8] == "row 2, column 2"


def test_patches_sum_the_map_over_channels_and_pixels() -> None:
    problem = posed(image_model(), images())
    for method in ("integrated_gradients", "input_x_gradient", "deep_lift"):
        found = explain(method, problem, rng())
        assert found.fine is not None and found.fine.shape == (3, 14, 14)
        np.testing.assert_allclose(found.fine.reshape(3, 7, 2, 7, 2).sum(axis=(2, 4)).reshape(3, 49), found.values)
    found = explain("saliency", problem, rng())
    assert found.fine is not None
    squares = (found.fine**2).reshape(3, 7, 2, 7, 2).sum(axis=(2, 4)).reshape(3, 49)
    np.testing.assert_allclose(np.sqrt(squares), found.values)


def test_occlusion_slides_a_window_of_patches() -> None:
    problem = posed(image_model(), images(2))
    drops, times = np.zeros((2, 7, 7)), np.zeros((7, 7))
    whole = problem.units.score(np.arange(2), np.ones((2, 49), bool))
    for r in range(-1, 7):
        for c in range(-1, 7):
            keep = np.ones((2, 7, 7), bool)
            window = (slice(max(r, 0), r + 2), slice(max(c, 0), c + 2))
            keep[:, *window] = False
            drop = whole - problem.units.score(np.arange(2), keep.reshape(2, 49))
            drops[:, *window] += drop[:, None, None]
            times[window] += 1
    assert (times == 4).all()
    found = explain("occlusion", problem, rng()).values
    np.testing.assert_allclose(found, (drops / times).reshape(2, 49), atol=1e-6)


@pytest.mark.parametrize("baseline", ["blur", "zero", "mean", "uniform"])
def test_baselines_of_images(baseline: Any) -> None:
    model, X = image_model(), images()
    problem = posed(model, X, baseline=baseline)
    encoded = model.preprocessing.encode(X)  # type: ignore[union-attr, arg-type]
    assert problem.differentiable is not None
    starts = problem.differentiable.starts.numpy()
    if baseline == "zero":
        assert not starts.any()
    elif baseline == "mean":
        np.testing.assert_allclose(starts, np.broadcast_to(encoded.mean(0), starts.shape), atol=1e-6)
    elif baseline == "uniform":
        low, high = encoded.min(axis=(1, 2, 3)), encoded.max(axis=(1, 2, 3))
        assert (starts.min(axis=(1, 2, 3)) >= low - 1e-6).all() and (starts.max(axis=(1, 2, 3)) <= high + 1e-6).all()
        assert starts.std() > 0.2
    with pytest.raises(NotApplicableError, match="'pad' is not for images"):
        posed(model, X, baseline="pad")


def test_images_of_a_black_box_are_blurred_as_pixels() -> None:
    model = AuditedModel.from_callable(lambda X: np.asarray(X)[:, 2:4, 2:4].mean((1, 2, 3)) / 255, classes=["0", "1"])
    X = images(4)
    problem = posed(model, X)
    assert problem.differentiable is None and problem.units.output == "the probability of '1'"
    found = explain("shap_permutation", problem, rng()).values
    soft = gaussian_filter(X.astype(float), sigma=(0, 1.4, 1.4, 0), mode="nearest").round()
    expected = (X[:, 2:4, 2:4].mean((1, 2, 3)) - soft[:, 2:4, 2:4].mean((1, 2, 3))) / 255
    np.testing.assert_allclose(found[:, 8], expected, atol=1e-9)
    assert not np.delete(found, 8, axis=1).any()


def test_images_given_as_they_are_keep_their_channels_last() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = x[:, 2:4, 2:4].mean((1, 2, 3)) / 255
            return torch.stack([-z, z], dim=1)

    problem = posed(TorchModel(Last(), classes=["0", "1"]), images())
    found = explain("integrated_gradients", problem, rng())
    assert found.fine is not None and found.fine.shape == (3, 14, 14)
    assert (np.abs(found.values).argmax(axis=1) == 8).all()
    assert not np.delete(found.values, 8, axis=1).any()


def test_a_table_of_any_types_is_decoded_as_it_was() -> None:
    table = pd.DataFrame(
        {
            "float": [0.5, np.nan, 2.25, 3.5],
            "level": pd.Categorical(["a", "b", None, "a"]),
            "small": np.array([1, -2, 3, 4], np.int8),
            "long": [2**60 + 1, 2**60 + 3, 5, 6],
            "whole": [1, 2, 3, 2**53],
            "single": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
            "flag": [True, False, True, True],
            "text": ["x", None, "y", "z"],
            "nullable": pd.array([1, None, 3, 4], "Int64"),
        }
    )
    model = AuditedModel(lambda X: np.zeros(len(X)), classes=("no", "yes"))
    coded = Coded.from_samples(model, AuditData(X=table[:2]), AuditData(X=table[2:]))
    pd.testing.assert_frame_equal(coded.decode(coded.sample), table[:2])
    pd.testing.assert_frame_equal(coded.decode(coded.background), table[2:].reset_index(drop=True))
    # The long numbers would be rounded, and levels and missing whole numbers are none.
    assert sorted(coded.levels) == [1, 3, 7, 8]


def test_an_array_is_decoded_as_it_was() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    model = AuditedModel(lambda X: np.zeros(len(X)), classes=("no", "yes"))
    coded = Coded.from_samples(model, AuditData(X=rows[:3]), AuditData(X=rows[3:]))
    decoded = coded.decode(coded.sample)
    assert isinstance(decoded, np.ndarray) and decoded.dtype == np.float32 and (decoded == rows[:3]).all()


@pytest.mark.parametrize(("columns", "rows"), [(10, 256), (625, 256), (1000, 100), (2000, 64)])
def test_of_wide_tables_fewer_rows_are_explained(columns: int, rows: int) -> None:
    assert default_samples(AuditData(X=np.zeros((2, columns)))) == rows
