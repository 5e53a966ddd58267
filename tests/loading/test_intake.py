"""Every format of intake, there and back: the loaded model predicts what the model that was saved predicts."""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter
from sklearn.base import ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from auditor.core.errors import DataError, ModelError, UnsafeModelError, UsageError
from auditor.data.preprocessing import ImagePreprocessing, TextPreprocessing, fit_tabular
from auditor.loading.estimators import EstimatorModel
from auditor.loading.formats import identify, load_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.job_specs import ModelSpec as SharedModelSpec
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import ARCHITECTURES, MLP
from auditor.models.saved_models import save
from auditor.models.torch_context import resolve_device
from auditor.models.torch_model import TorchModel
from auditor.run.job_models import intake_result
from tests.quantifiers import all_of
from tests.toys.folders import WORDS, change_json, save_bert, save_vit

Array = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading may add to the import path: it is as it was after each test."""
    monkeypatch.setattr(sys, "path", sys.path[:])


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"age": rng.normal(40, 10, 60), "debt": rng.normal(0, 1, 60), "job": rng.choice(["a", "b", "c"], 60)}
    )


@pytest.fixture
def bundle_model(table: pd.DataFrame) -> TorchModel:
    preprocessing = fit_tabular(table)
    args = {"n_features": preprocessing.width, "hidden": [8, 4], "n_outputs": 2}
    torch.manual_seed(0)
    return TorchModel(
        ARCHITECTURES["mlp"](**args),
        classes=["no", "yes"],
        preprocessing=preprocessing,
        threshold=0.4,
        architecture={"name": "mlp", "args": args},
        recipe=Recipe(epochs=7, learning_rate=0.01),
    )


def save_torch(value: object, path: Path) -> str:
    torch.save(value, path)
    return str(path)


def rewrite(path: Path, **parts: object) -> str:
    bundle = torch.load(path, weights_only=True)
    return save_torch(bundle | parts, path)


# ---- what crosses the pipe -----------------------------------------------------------------------------------------


def test_spec_crosses_a_pipe_unchanged() -> None:
    spec = ModelSpec(path="m.pt", classes=("a", "b"), architecture_args={"hidden": [1, 2], "x": {"y": None}})
    adapter = TypeAdapter(ModelSpec)
    assert ModelSpec is SharedModelSpec
    assert adapter.validate_json(adapter.dump_json(spec)) == spec


# ---- bundles -------------------------------------------------------------------------------------------------------


def test_bundle_predicts_as_before(bundle_model: TorchModel, table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save(bundle_model, path)
    loaded = load_model(ModelSpec(path=str(path)))
    assert isinstance(loaded, TorchModel)
    np.testing.assert_array_equal(loaded.predict_proba(table), bundle_model.predict_proba(table))
    assert (loaded.classes, loaded.threshold, loaded.recipe) == (("no", "yes"), 0.4, bundle_model.recipe)
    assert loaded.preprocessing == bundle_model.preprocessing
    assert loaded.architecture == bundle_model.architecture
    source = loaded.provenance
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source.format, source.loaded_by) == ("auditor-model/1", "torch.load(weights_only=True)")
    assert source.size_bytes == path.stat().st_size
    assert identify(path) == "model bundle"


def test_bundle_can_be_saved_again_and_stays_the_same(bundle_model: TorchModel, tmp_path: Path) -> None:
    save(bundle_model, tmp_path / "a.pt")
    save(load_model(ModelSpec(path=str(tmp_path / "a.pt"))), tmp_path / "b.pt")
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert first.keys() == second.keys()
    assert {k: v for k, v in first.items() if k != "state_dict"} == {
        k: v for k, v in second.items() if k != "state_dict"
    }
    assert all_of(torch.equal(v, second["state_dict"][k]) for k, v in first["state_dict"].items())


@pytest.mark.parametrize(
    ("name", "args", "preprocessing", "rows"),
    [
        (
            "bilstm_text",
            {"n_words": 6, "n_outputs": 2, "embedding_dim": 4, "hidden_size": 3, "dense": 5},
            TextPreprocessing(vocabulary={"good": 2, "bad": 3, "day": 4}, length=5, unknown=1),
            np.asarray(["good day", "bad", ""], object),
        ),
        (
            "transformer_encoder",
            {"n_words": 6, "n_outputs": 3, "length": 5, "d_model": 8, "n_heads": 2, "n_layers": 2},
            TextPreprocessing(vocabulary={"good": 2, "bad": 3, "day": 4}, length=5, unknown=1),
            np.asarray(["good day", "bad", ""], object),
        ),
        (
            "small_cnn",
            {"channels": 1, "n_outputs": 2, "width": 4},
            ImagePreprocessing(size=(8, 8), mean=(0.5,), std=(0.5,)),
            np.random.default_rng(0).integers(0, 255, (3, 8, 8, 1)).astype(np.uint8),
        ),
    ],
)
def test_bundle_of_every_architecture(
    name: str, args: dict[str, Any], preprocessing: Any, rows: Any, tmp_path: Path
) -> None:
    model = TorchModel(
        ARCHITECTURES[name](**args),
        classes=[f"c{i}" for i in range(args["n_outputs"])],
        preprocessing=preprocessing,
        architecture={"name": name, "args": args},
    )
    save(model, tmp_path / "m.pt")
    loaded = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    np.testing.assert_array_equal(loaded.predict_proba(rows), model.predict_proba(rows))


def test_flags_win_over_the_bundle(bundle_model: TorchModel, table: pd.DataFrame, tmp_path: Path) -> None:
    save(bundle_model, tmp_path / "m.pt")
    loaded = load_model(ModelSpec(path=str(tmp_path / "m.pt"), classes=("deny", "grant"), threshold=0.9))
    assert (loaded.classes, loaded.threshold) == (("deny", "grant"), 0.9)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"format": "auditor-model/2"}, "upgrade responsible-auditor"),
        ({"format": "auditor-model/\x1b[31mred"}, r"\\x1b\[31mred"),
        ({"classes": ["only"]}, "classes"),
        ({"classes": "ab"}, "classes"),
        ({"surprise": 1}, "surprise"),
        ({"outputs": "votes"}, "outputs"),
        ({"threshold": math.nan}, "threshold"),
        ({"threshold": 2.0}, "threshold"),
        ({"preprocessing": {"kind": "code", "run": "x"}}, "preprocessing"),
        ({"preprocessing": {"kind": "image", "size": [8, 8]}}, "makes channels 3"),
        ({"training": {"epochs": 5, "callback": "x"}}, "callback"),
        ({"training": {"epochs": 10**9}}, "too large"),
        ({"training": {"learning_rate": math.inf}}, "too large"),
        (
            {"architecture": {"name": "mlp", "args": {"n_features": "5", "hidden": [8, 4], "n_outputs": 2}}},
            "must be a number",
        ),
        ({"architecture": {"name": "mlp", "args": {"n_features": 5, "hidden": [8] * 65, "n_outputs": 2}}}, "up to 64"),
        (
            {"architecture": {"name": "mlp", "args": {"n_features": 2**40, "hidden": [8], "n_outputs": 2}}},
            "up to 16,777,216",
        ),
        ({"architecture": {"name": "mlp", "args": {"n_features": 2**23, "hidden": [2**23], "n_outputs": 2}}}, "shape"),
        ({"architecture": {"name": "mlp", "args": {"n_feature": 5, "hidden": [], "n_outputs": 2}}}, "'n_features'"),
        ({"architecture": {"name": "mlp", "args": {"hidden": [8, 4], "n_outputs": 2}}}, "needs n_features"),
        ({"architecture": {"name": "Net", "args": {}}}, "--architecture package.module:Net"),
        ({"architecture": "mlp"}, "architecture"),
        ({"state_dict": {}}, "not a set of named weights"),
        ({"state_dict": {"a": 1}}, "state_dict.a"),
        ({"state_dict": {"a": torch.zeros(2)}}, "lacks layers.0.weight"),
    ],
)
def test_bundle_with_a_wrong_part_is_refused(
    parts: dict[str, object], message: str, bundle_model: TorchModel, tmp_path: Path
) -> None:
    bundle_model.preprocessing = None
    save(bundle_model, tmp_path / "m.pt")
    if parts.get("preprocessing", {}) and parts["preprocessing"]["kind"] == "image":  # type: ignore[index]
        args = {"channels": 1, "n_outputs": 2, "width": 4}
        save(
            TorchModel(
                ARCHITECTURES["small_cnn"](**args), classes=["a", "b"], architecture={"name": "small_cnn", "args": args}
            ),
            tmp_path / "m.pt",
        )
    with pytest.raises(ModelError, match=message) as caught:
        load_model(ModelSpec(path=rewrite(tmp_path / "m.pt", **parts)))
    assert "\x1b" not in str(caught.value)


def test_bundle_whose_vocabulary_does_not_fit_is_refused(tmp_path: Path) -> None:
    args = {"n_words": 4, "n_outputs": 2, "embedding_dim": 2, "hidden_size": 2, "dense": 2}
    for index in (4, -1):
        model = TorchModel(
            ARCHITECTURES["bilstm_text"](**args),
            classes=["a", "b"],
            preprocessing=TextPreprocessing(vocabulary={"word": index}, length=3),
            architecture={"name": "bilstm_text", "args": args},
        )
        save(model, tmp_path / "m.pt")
        with pytest.raises(ModelError, match="vocabulary|n_words"):
            load_model(ModelSpec(path=str(tmp_path / "m.pt")))


def test_half_precision_weights_are_widened_and_noted(
    bundle_model: TorchModel, table: pd.DataFrame, tmp_path: Path
) -> None:
    save(bundle_model, tmp_path / "m.pt")
    half = {k: v.half() for k, v in bundle_model.module.state_dict().items()}
    loaded = load_model(ModelSpec(path=rewrite(tmp_path / "m.pt", state_dict=half)))
    assert loaded.provenance.notes == ("Weights stored as float16 were converted to float32.",)
    np.testing.assert_allclose(loaded.predict_proba(table), bundle_model.predict_proba(table), atol=1e-2)


# ---- bare weights --------------------------------------------------------------------------------------------------


def test_read_only_columns_are_taken(tmp_path: Path) -> None:
    network = MLP(1, [4], 2).eval()
    model = TorchModel(network, classes=["a", "b"])
    frame = NUMBERS[["a"]].astype(np.float32)
    np.testing.assert_array_equal(model.predict_proba(frame), softmax(network, frame))


NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, width, outputs=2):
        super().__init__()
        first, last = torch.nn.Linear(3, width), torch.nn.Linear(width, outputs)
        self.body = torch.nn.Sequential(first, torch.nn.BatchNorm1d(width), last)
    def forward(self, x):
        return self.body(x)
number = 3
"""


@pytest.fixture
def own_code(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "intake_test_net.py").write_text(NET)
    yield folder
    for name in [n for n in sys.modules if n.startswith("intake_test_")]:
        del sys.modules[name]


def own_network() -> nn.Module:
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    torch.manual_seed(1)
    return namespace["Net"](5).eval()  # type: ignore[no-any-return]


NUMBERS = pd.DataFrame(np.random.default_rng(3).normal(size=(9, 3)), columns=list("abc"))


def softmax(module: nn.Module, frame: pd.DataFrame = NUMBERS) -> Array:
    with torch.inference_mode():
        logits = module(torch.tensor(frame.to_numpy(np.float32, copy=True)))
    return np.asarray(torch.softmax(logits.double(), dim=1))


@pytest.mark.parametrize("kind", ["torch", "safetensors", "checkpoint", "data parallel"])
def test_bare_weights_with_the_users_own_network(kind: str, own_code: Path, tmp_path: Path) -> None:
    network, path = own_network(), tmp_path / "weights.bin"
    weights = network.state_dict()
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(weights, path)
    else:
        save_torch(
            {
                "torch": weights,
                "checkpoint": {"epoch": 3, "model_state_dict": weights, "optimizer": {"lr": 0.1}},
                "data parallel": {f"module.{k}": v for k, v in weights.items()},
            }[kind],
            path,
        )
    loaded = load_model(
        ModelSpec(
            path=str(path),
            classes=("a", "b"),
            architecture="intake_test_net:Net",
            architecture_args={"width": 5},
            code_folder=str(own_code),
            features=("a", "b", "c"),
        )
    )
    np.testing.assert_allclose(loaded.predict_proba(NUMBERS), softmax(network), atol=1e-7)
    assert loaded.features == ("a", "b", "c")
    assert any("user's own code" in note for note in loaded.provenance.notes)
    assert identify(path) == ("safetensors" if kind == "safetensors" else "torch weights")


def test_bare_weights_with_a_network_of_the_table(tmp_path: Path) -> None:
    network = MLP(3, [4], 2).eval()
    spec = ModelSpec(
        path=save_torch(network.state_dict(), tmp_path / "w.pt"),
        classes=("a", "b"),
        architecture="mlp",
        architecture_args={"n_features": 3, "hidden": [4], "n_outputs": 2},
    )
    np.testing.assert_array_equal(load_model(spec).predict_proba(NUMBERS), softmax(network))


def test_bundle_of_the_users_own_network(own_code: Path, tmp_path: Path) -> None:
    network = own_network()
    save(TorchModel(network, classes=["a", "b"], architecture={"name": "Net", "args": {"width": 5}}), tmp_path / "m.pt")
    spec = ModelSpec(path=str(tmp_path / "m.pt"), architecture="intake_test_net:Net", code_folder=str(own_code))
    np.testing.assert_allclose(load_model(spec).predict_proba(NUMBERS), softmax(network), atol=1e-7)


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"architecture": None}, ModelError, "--architecture package.module:Class"),
        ({"classes": None}, UsageError, "--classes"),
        ({"architecture_args": {"width": 6}}, ModelError, r"another shape body.0.weight \(5, 3\) instead of \(6, 3\)"),
        ({"architecture_args": {"width": 5, "depth": 2}}, UsageError, "depth"),
        ({"architecture": "intake_test_net:Nett"}, UsageError, "did you mean 'Net'"),
        ({"architecture": "intake_test_nothing:Net"}, UsageError, "no module 'intake_test_nothing'"),
        ({"architecture": "intake_test_net"}, UsageError, "package.module:name"),
        ({"architecture": "intake_test_net:number"}, UsageError, "is a int"),
        ({"architecture": "collections:OrderedDict", "architecture_args": {}}, UsageError, "not a torch module"),
        ({"architecture": "mlp", "architecture_args": {}}, UsageError, "do not say their activation, batchnorm"),
    ],
)
def test_bare_weights_wrongly_asked_for(
    flags: dict[str, Any], error: type[Exception], message: str, own_code: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {
        "path": save_torch(own_network().state_dict(), tmp_path / "w.pt"),
        "classes": ("a", "b"),
        "architecture": "intake_test_net:Net",
        "architecture_args": {"width": 5},
        "code_folder": str(own_code),
    }
    with pytest.raises(error, match=message):
        load_model(ModelSpec(**asked | flags))


def test_missing_and_unexpected_weights_are_named(tmp_path: Path) -> None:
    weights = MLP(3, [4], 2).state_dict()
    weights["layers.9.weight"] = weights.pop("layers.2.bias")
    spec = ModelSpec(
        path=save_torch(weights, tmp_path / "w.pt"),
        classes=("a", "b"),
        architecture="mlp",
        architecture_args={"n_features": 3, "hidden": [4], "n_outputs": 2},
    )
    with pytest.raises(ModelError, match="lacks layers.2.bias; it has but the network does not know layers.9.weight"):
        load_model(spec)


# ---- Hugging Face folders ------------------------------------------------------------------------------------------

TEXTS = np.asarray(["good day", "bad", "", "good bad day night good unknown", "day " * 40], object)


def test_text_folder_predicts_as_transformers_does(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    network = save_bert(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(list(TEXTS), padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        expected = torch.softmax(network(**batch).logits.double(), dim=1).numpy()
    loaded = load_model(ModelSpec(path=str(tmp_path)))
    assert isinstance(loaded, TorchModel)
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), expected, atol=1e-6)
    assert loaded.classes == ("negative", "positive", "neither")
    assert "Texts longer than 16 tokens are cut at the end (the network's limit)." in loaded.provenance.notes
    assert loaded.provenance.format == "Hugging Face folder"
    assert loaded.provenance.loaded_by == "safetensors.torch.load into transformers.BertForSequenceClassification"
    assert identify(tmp_path) == "Hugging Face folder"


def test_padding_does_not_change_a_text(tmp_path: Path) -> None:
    save_bert(tmp_path)
    loaded = load_model(ModelSpec(path=str(tmp_path)))
    together = loaded.predict_proba(TEXTS)
    alone = np.concatenate([loaded.predict_proba(TEXTS[i : i + 1]) for i in range(len(TEXTS))])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_decoder_with_left_padding(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    save_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_positions=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    torch.manual_seed(0)
    network = GPT2ForSequenceClassification(config).eval()
    network.save_pretrained(tmp_path)
    change_json(tmp_path / "tokenizer_config.json", padding_side="left")
    loaded = load_model(ModelSpec(path=str(tmp_path), classes=("bad", "good")))
    assert isinstance(loaded, TorchModel)
    ids = loaded.encode(TEXTS[:2])
    assert ids[1, 0] == 0
    expected = []
    for row in ids:
        with torch.inference_mode():
            logits = network(input_ids=row[row != 0].unsqueeze(0)).logits
        expected.append(torch.softmax(logits.double(), dim=1)[0].numpy())
    np.testing.assert_allclose(loaded.predict_proba(TEXTS[:2])[0], expected[0], atol=1e-5)


def test_image_folder_predicts_as_transformers_does(tmp_path: Path) -> None:
    network = save_vit(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    pixels = (images / 255.0 - [0.4, 0.5, 0.6]) / [0.5, 0.25, 0.5]
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))).logits
    loaded = load_model(ModelSpec(path=str(tmp_path)))
    np.testing.assert_allclose(loaded.predict_proba(images), torch.softmax(logits.double(), dim=1), atol=1e-6)
    assert loaded.classes == ("cat", "dog")
    assert isinstance(loaded.preprocessing, ImagePreprocessing) and loaded.preprocessing.size == (8, 8)


@pytest.mark.parametrize(
    ("options", "mean", "std", "size"),
    [
        ({"do_normalize": False}, 0.0, 1.0, (8, 8)),
        ({"do_rescale": False, "image_mean": 127.5, "image_std": 127.5}, 0.5, 0.5, (8, 8)),
        (
            {"size": {"shortest_edge": 9}, "do_center_crop": True, "crop_size": {"height": 7, "width": 6}},
            0.5,
            0.5,
            (7, 6),
        ),
        ({"size": 12}, 0.5, 0.5, (12, 12)),
    ],
)
def test_image_options(options: dict[str, Any], mean: float, std: float, size: tuple[int, int], tmp_path: Path) -> None:
    save_vit(tmp_path)
    change_json(tmp_path / "preprocessor_config.json", **({"image_mean": [0.5] * 3, "image_std": [0.5] * 3} | options))
    preprocessing = load_model(ModelSpec(path=str(tmp_path))).preprocessing
    assert isinstance(preprocessing, ImagePreprocessing)
    assert preprocessing.size == size
    np.testing.assert_allclose([preprocessing.mean, preprocessing.std], [[mean] * 3, [std] * 3])


def test_sharded_folder(tmp_path: Path) -> None:
    network = save_bert(tmp_path / "whole")
    network.save_pretrained(tmp_path / "shards", max_shard_size="4KB")  # type: ignore[operator]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "shards" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    whole, shards = (load_model(ModelSpec(path=str(tmp_path / name))) for name in ("whole", "shards"))
    np.testing.assert_array_equal(whole.predict_proba(TEXTS), shards.predict_proba(TEXTS))
    next((tmp_path / "shards").glob("*-00001-*")).unlink()
    with pytest.raises(ModelError, match="download is incomplete"):
        load_model(ModelSpec(path=str(tmp_path / "shards")))


def test_digest_of_a_folder_covers_every_file_that_was_read(tmp_path: Path) -> None:
    save_bert(tmp_path)
    first = load_model(ModelSpec(path=str(tmp_path))).provenance.sha256
    (tmp_path / "README.md").write_text("not read")
    assert load_model(ModelSpec(path=str(tmp_path))).provenance.sha256 == first
    change_json(tmp_path / "tokenizer_config.json", padding_side="left")
    assert load_model(ModelSpec(path=str(tmp_path))).provenance.sha256 != first


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"problem_type": "multi_label_classification"}, "several labels"),
        ("config.json", {"problem_type": "regression"}, "not a class"),
        ("config.json", {"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ("config.json", {"architectures": ["os.system"]}, "os.system"),
        ("config.json", {"architectures": None}, "must name"),
        ("config.json", {"model_type": "no-such-model"}, "no-such-model"),
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
        ("config.json", {"id2label": {"1": "a", "2": "b", "3": "c"}}, "number its classes from 0"),
        ("config.json", {"id2label": {"0": "a", "1": "a", "2": "b"}}, "one of them twice"),
        ("config.json", {"num_hidden_layers": 3}, "lack 'bert.encoder.layer.2"),
        ("config.json", {"num_hidden_layers": 10**7}, "more layers"),
        ("config.json", {"hidden_size": 2**20, "intermediate_size": 2**20}, "asks for"),
        ("config.json", {"max_position_embeddings": 2**34}, "asks for"),
        ("config.json", {"hidden_act": "evil"}, "cannot be loaded by transformers"),
        ("tokenizer_config.json", {"pad_token": "REMOVED"}, "no padding token"),
    ],
)
def test_folder_with_a_wrong_part_is_refused(file: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_bert(tmp_path)
    change_json(tmp_path / file, **changes)
    with pytest.raises(ModelError, match=message):
        load_model(ModelSpec(path=str(tmp_path)))


def test_folder_without_a_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="config.json"):
        load_model(ModelSpec(path=str(tmp_path / "empty")))
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="is an adapter without its model: .* --base FOLDER"):
        load_model(ModelSpec(path=str(tmp_path / "empty")))
    save_bert(tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").rename(tmp_path / "away")
    with pytest.raises(ModelError, match="tokenizer.json"):
        load_model(ModelSpec(path=str(tmp_path / "bert")))
    save_vit(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="preprocessor_config.json"):
        load_model(ModelSpec(path=str(tmp_path / "vit")))


def test_folder_leaves_transformers_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import huggingface_hub.constants
    from transformers.utils import logging

    save_bert(tmp_path)
    capfd.readouterr()
    before = (huggingface_hub.constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled())
    load_model(ModelSpec(path=str(tmp_path)))
    after = (huggingface_hub.constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled())
    assert before == after
    assert capfd.readouterr() == ("", "")


def test_text_model_needs_texts(tmp_path: Path) -> None:
    save_bert(tmp_path)
    with pytest.raises(ModelError, match="--text"):
        load_model(ModelSpec(path=str(tmp_path))).predict_proba(NUMBERS)


# ---- scikit-learn --------------------------------------------------------------------------------------------------


def dump_skops(estimator: object, path: Path) -> str:
    import skops.io

    skops.io.dump(estimator, path)
    return str(path)


@pytest.mark.parametrize(
    "kind", [LogisticRegression, RandomForestClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier]
)
def test_skops_pipeline_predicts_as_before(kind: type[ClassifierMixin], table: pd.DataFrame, tmp_path: Path) -> None:
    options = {} if kind is LogisticRegression else {"max_iter": 5} if "Hist" in kind.__name__ else {"n_estimators": 5}
    pipeline = make_pipeline(
        make_column_transformer(
            (StandardScaler(), ["age", "debt"]),
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["job"]),
        ),
        kind(**options),
    ).fit(table, np.where(table["debt"] > 0, "rich", "poor"))
    loaded = load_model(ModelSpec(path=dump_skops(pipeline, tmp_path / "m.bin")))
    assert isinstance(loaded, EstimatorModel)
    np.testing.assert_allclose(loaded.predict_proba(table), pipeline.predict_proba(table), atol=1e-12)
    assert (loaded.classes, loaded.features) == (("poor", "rich"), ("age", "debt", "job"))
    assert type(loaded.estimator).__name__ == "Pipeline"
    assert (loaded.provenance.format, loaded.provenance.loaded_by) == ("skops", "skops.io.loads")
    assert identify(tmp_path / "m.bin") == "skops"


def test_skops_without_names_or_probabilities(tmp_path: Path) -> None:
    labels = np.arange(9) % 3
    machine = LinearSVC().fit(NUMBERS.to_numpy(), labels)
    path = dump_skops(machine, tmp_path / "m.skops")
    loaded = load_model(ModelSpec(path=path))
    np.testing.assert_array_equal(loaded.predict_proba(NUMBERS).argmax(axis=1), machine.predict(NUMBERS.to_numpy()))
    assert (loaded.classes, loaded.features) == (("0", "1", "2"), None)
    renamed = load_model(ModelSpec(path=path, classes=("x", "y", "z"), features=("c", "b", "a")))
    assert renamed.classes == ("x", "y", "z")
    np.testing.assert_array_equal(
        renamed.predict_proba(NUMBERS).argmax(axis=1), machine.predict(NUMBERS[["c", "b", "a"]].to_numpy())
    )
    with pytest.raises(ModelError, match="refused the data"):
        loaded.predict_proba(NUMBERS[["a", "b"]])
    with pytest.raises(UsageError, match="--features names 2 columns, but the model takes 3"):
        load_model(ModelSpec(path=path, features=("a", "b")))


def test_skops_with_features_of_its_own(tmp_path: Path) -> None:
    path = dump_skops(LogisticRegression().fit(NUMBERS, np.arange(9) % 2), tmp_path / "m.skops")
    with pytest.raises(UsageError, match="leave --features out"):
        load_model(ModelSpec(path=path, features=("c", "b", "a")))
    with pytest.raises(DataError, match="needs the feature 'c'"):
        load_model(ModelSpec(path=path)).predict_proba(NUMBERS[["a", "b"]])
    odd = LogisticRegression().fit(NUMBERS, np.arange(9) % 2)
    odd.classes_ = np.asarray(["a\x1b[31m", "b"])
    with pytest.raises(ModelError, match="has control characters in its name"):
        load_model(ModelSpec(path=dump_skops(odd, tmp_path / "m.skops")))


def test_skops_text_pipeline(tmp_path: Path) -> None:
    texts = ["good day", "bad night"] * 5
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0] * 5)
    loaded = load_model(ModelSpec(path=dump_skops(pipeline, tmp_path / "m.skops")))
    np.testing.assert_allclose(loaded.predict_proba(np.asarray(texts, object)), pipeline.predict_proba(texts))


def test_skops_compressed(tmp_path: Path) -> None:
    import zipfile

    import skops.io

    model = LogisticRegression().fit(NUMBERS.to_numpy(), np.arange(9) % 2)
    skops.io.dump(model, tmp_path / "m.skops", compression=zipfile.ZIP_DEFLATED)
    assert load_model(ModelSpec(path=str(tmp_path / "m.skops"))).classes == ("0", "1")


def test_what_neither_classifies_nor_regresses_is_refused(tmp_path: Path) -> None:
    for estimator in (StandardScaler().fit(NUMBERS), LinearRegression()):
        path = dump_skops(estimator, tmp_path / "m.skops")
        with pytest.raises(ModelError, match=f"{type(estimator).__name__}, which is no fitted classifier or regressor"):
            load_model(ModelSpec(path=path))


def test_probes_leave_the_users_table_alone(table: pd.DataFrame, tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(NUMBERS, np.arange(9) % 2)
    loaded = load_model(ModelSpec(path=dump_skops(pipeline, tmp_path / "m.skops")))
    wider = NUMBERS.assign(extra=1.0)
    np.testing.assert_array_equal(loaded.predict_proba(wider), pipeline.predict_proba(NUMBERS))


# ---- functions -----------------------------------------------------------------------------------------------------

FUNCTIONS = """
import numpy as np
def proba(X):
    p = 1 / (1 + np.exp(-X["a"].to_numpy()))
    return np.column_stack([1 - p, p])
proba.classes = ["no", "yes"]
def labels(X):
    return np.where(X["a"] > 0, "yes", "no")
def texts(X):
    assert isinstance(X, list)
    return np.asarray([float("good" in t) for t in X])
def broken(X):
    raise RuntimeError("no \\x1b[31m luck")
class Wrapped:
    classes = ("no", "yes")
    def __call__(self, X):
        return labels(X)
wrapped = Wrapped()
"""


@pytest.fixture
def functions(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "intake_test_functions.py").write_text(FUNCTIONS)
    yield str(tmp_path)
    sys.modules.pop("intake_test_functions", None)


def predictor(name: str, folder: str, **flags: Any) -> AuditedModel:
    return load_model(ModelSpec(path=None, predict=f"intake_test_functions:{name}", code_folder=folder, **flags))


def test_functions_of_every_kind(functions: str) -> None:
    proba = predictor("proba", functions)
    expected = 1 / (1 + np.exp(-NUMBERS["a"].to_numpy()))
    np.testing.assert_allclose(proba.predict_proba(NUMBERS)[:, 1], expected)
    assert proba.classes == ("no", "yes")
    code = Path(functions) / "intake_test_functions.py"
    assert proba.provenance.sha256 == hashlib.sha256(code.read_bytes()).hexdigest()
    assert (proba.provenance.format, proba.provenance.path) == ("callable", str(code))
    for name in ("labels", "wrapped"):
        model = predictor(name, functions, classes=("no", "yes"))
        np.testing.assert_array_equal(model.predict_proba(NUMBERS)[:, 1], NUMBERS["a"] > 0)
    texts = predictor("texts", functions, classes=("bad", "good"))
    np.testing.assert_array_equal(texts.predict_proba(TEXTS[:2]), [[0.0, 1.0], [1.0, 0.0]])


def test_function_over_a_model_file_records_the_file(functions: str, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(pickle.dumps(len))
    model = load_model(ModelSpec(path=str(path), predict="intake_test_functions:proba", code_folder=functions))
    assert model.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert any("hashed, not opened" in note for note in model.provenance.notes)


def test_functions_wrongly_asked_for(functions: str) -> None:
    with pytest.raises(UsageError, match="--classes a,b"):
        predictor("labels", functions)
    with pytest.raises(UsageError, match="two classes"):
        predictor("labels", functions, classes=("no",))
    with pytest.raises(UsageError, match="did you mean 'labels'"):
        predictor("label", functions)
    with pytest.raises(ModelError, match=r"raised RuntimeError: no \\x1b\[31m luck") as caught:
        predictor("broken", functions, classes=("a", "b")).predict_proba(NUMBERS)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(UsageError, match="--predict"):
        load_model(ModelSpec(path=None))


def test_installed_module_that_hides_the_users_own_is_said(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UsageError, match="hides 'json.py'"):
        load_model(ModelSpec(path=None, predict="json:loads", code_folder=str(tmp_path), classes=("a", "b")))
    (tmp_path / "intake_test_bad.py").write_text("1 / 0")
    with pytest.raises(UsageError, match="importing it raised ZeroDivisionError"):
        load_model(ModelSpec(path=None, predict="intake_test_bad:f", code_folder=str(tmp_path), classes=("a", "b")))


# ---- programs ------------------------------------------------------------------------------------------------------


class Gate(nn.Module):
    """A network whose output depends on the mode, so that a wrong mode shows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


def gate() -> nn.Module:
    torch.manual_seed(0)
    return Gate().eval()


def save_script(module: nn.Module, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch deprecates TorchScript; the test needs a file
        torch.jit.save(torch.jit.script(module), path)
    return str(path)


def test_torchscript_with_allow_code(tmp_path: Path) -> None:
    path = save_script(gate(), tmp_path / "m.pt")
    loaded = load_model(ModelSpec(path=path, classes=("a", "b"), allow_code=True))
    np.testing.assert_allclose(loaded.predict_proba(NUMBERS), softmax(gate()), atol=1e-7)
    assert loaded.provenance.format == identify(path) == "TorchScript"
    assert any("--allow-code" in note for note in loaded.provenance.notes)
    with pytest.raises(UsageError, match="--classes"):
        load_model(ModelSpec(path=path, allow_code=True))


@pytest.mark.parametrize(
    ("dynamic", "note"),
    [
        (None, "exactly 4 rows"),
        ({"x": {0: torch.export.Dim("rows", min=2, max=5)}}, "at most 5 rows"),
        ({"x": {0: torch.export.Dim("rows")}}, ""),
    ],
)
def test_exported_program_takes_any_number_of_rows(dynamic: Any, note: str, tmp_path: Path) -> None:
    program = torch.export.export(gate(), (torch.zeros(4, 3),), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "m.pt2")
    loaded = load_model(ModelSpec(path=str(tmp_path / "m.pt2"), classes=("a", "b"), allow_code=True))
    assert isinstance(loaded, TorchModel) and loaded.frozen_mode
    for n in (1, 4, 9):
        np.testing.assert_allclose(loaded.predict_proba(NUMBERS[:n]), softmax(gate(), NUMBERS[:n]), atol=1e-6)
    assert note in " ".join(loaded.provenance.notes)
    assert loaded.n_parameters == sum(p.numel() for p in gate().parameters())
    assert loaded.provenance.format == identify(tmp_path / "m.pt2") == "torch.export"


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_exported_program_of_two_inputs_is_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Two(), (torch.zeros(4, 3), torch.zeros(4, 3))), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="takes 2 inputs"):
        load_model(ModelSpec(path=str(tmp_path / "m.pt2"), classes=("a", "b"), allow_code=True))


def test_programs_are_refused_without_allow_code(tmp_path: Path) -> None:
    save_script(gate(), tmp_path / "m.pt")
    torch.export.save(torch.export.export(gate(), (torch.zeros(4, 3),)), tmp_path / "m.pt2")
    for name in ("m.pt", "m.pt2"):
        with pytest.raises(UnsafeModelError, match="--allow-code"):
            load_model(ModelSpec(path=str(tmp_path / name), classes=("a", "b"), trust_pickle=True))


# ---- what a pickle takes -------------------------------------------------------------------------------------------


def test_trusted_module_and_its_note(tmp_path: Path) -> None:
    network = MLP(3, [4], 2).eval()
    path = save_torch(network, tmp_path / "m.pt")
    assert identify(path) == "pickled torch object"
    with pytest.raises(
        UnsafeModelError, match="auditor.models.networks.architectures.MLP.*auditor.save.*--predict.*--trust-pickle"
    ):
        load_model(ModelSpec(path=path, classes=("a", "b")))
    loaded = load_model(ModelSpec(path=path, classes=("a", "b"), trust_pickle=True))
    np.testing.assert_array_equal(loaded.predict_proba(NUMBERS), softmax(network))
    assert loaded.provenance.loaded_by == "torch.load(weights_only=False)"
    assert loaded.provenance.notes[0].startswith("LOADED WITH --trust-pickle") and "MLP" in loaded.provenance.notes[0]


@pytest.mark.parametrize("compress", [0, 3])
def test_trusted_joblib_and_its_note(compress: int, tmp_path: Path) -> None:
    import joblib  # type: ignore[import-untyped]

    model = LogisticRegression().fit(NUMBERS, np.arange(9) % 2)
    joblib.dump(model, tmp_path / "m.joblib", compress=compress)
    spec = ModelSpec(path=str(tmp_path / "m.joblib"))
    assert load_model(spec).provenance.notes == ()
    loaded = load_model(ModelSpec(path=spec.path, trust_pickle=True))
    np.testing.assert_array_equal(loaded.predict_proba(NUMBERS), model.predict_proba(NUMBERS))
    assert loaded.provenance.notes[0].startswith("LOADED WITH --trust-pickle")


# ---- the finding ---------------------------------------------------------------------------------------------------


def values(model: AuditedModel) -> dict[str, float]:
    return {m.metric: m.estimate.value for m in intake_result(model).measurements}


def test_finding_counts_weights_that_are_not_finite(bundle_model: TorchModel, tmp_path: Path) -> None:
    save(bundle_model, tmp_path / "m.pt")
    clean = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    assert isinstance(clean, TorchModel)
    size = float((tmp_path / "m.pt").stat().st_size)
    assert values(clean) == {
        "nonfinite_parameters": 0.0,
        "n_parameters": float(clean.n_parameters),
        "file_size_bytes": size,
    }
    with torch.no_grad():
        first = next(bundle_model.module.parameters())
        first[0, 0], first[0, 1] = math.nan, math.inf
    save(bundle_model, tmp_path / "m.pt")
    assert values(load_model(ModelSpec(path=str(tmp_path / "m.pt"))))["nonfinite_parameters"] == 2.0


def test_finding_counts_buffers_too(own_code: Path, tmp_path: Path) -> None:
    weights = own_network().state_dict()
    weights["body.1.running_var"][0] = math.inf
    spec = ModelSpec(
        path=save_torch(weights, tmp_path / "w.pt"),
        classes=("a", "b"),
        architecture="intake_test_net:Net",
        architecture_args={"width": 5},
        code_folder=str(own_code),
    )
    assert values(load_model(spec))["nonfinite_parameters"] == 1.0


def test_finding_of_models_without_parameters(tmp_path: Path) -> None:
    path = dump_skops(LogisticRegression().fit(NUMBERS, np.arange(9) % 2), tmp_path / "m.skops")
    result = intake_result(load_model(ModelSpec(path=path)))
    assert (result.probe, result.pillar) == ("intake", "intake")
    assert {m.metric for m in result.measurements} == {"file_size_bytes"}
    assert "skops.io.loads" in result.measurements[0].detail
    in_memory = AuditedModel.from_callable(lambda X: np.zeros(len(X)), classes=["a", "b"])
    assert intake_result(in_memory).not_applicable


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "gpu", "meta", "\x1b[31m"):
        with pytest.raises(UsageError, match="use auto"):
            resolve_device(name)


# ---- paths ---------------------------------------------------------------------------------------------------------


def test_paths_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="did you mean 'model.pt'"):
        load_model(ModelSpec(path=str(tmp_path / "modell.pt")))
    with pytest.raises(ModelError, match="is empty"):
        load_model(ModelSpec(path=str(tmp_path / "model.pt")))
    os.mkfifo(tmp_path / "fifo.pt")
    for special in (tmp_path / "fifo.pt", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(UsageError, match="not a regular file"):
            load_model(ModelSpec(path=str(special)))
    with pytest.raises(ModelError, match="no model file of a known format"):
        (tmp_path / "notes.pt").write_text("Dear reader,\nthis is no model.\n")
        load_model(ModelSpec(path=str(tmp_path / "notes.pt")))


def test_size_limit_counts_holes(tmp_path: Path) -> None:
    path = tmp_path / "sparse.pt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="1,099,511,627,776 bytes"):
        load_model(ModelSpec(path=str(path)))
    path.write_bytes(b"x" * 100)
    with pytest.raises(ModelError, match="100 bytes, more than the 10"):
        load_model(ModelSpec(path=str(path)), max_bytes=10)


@pytest.mark.parametrize("suffix", [".pt", ".skops", ".safetensors", ".txt", ""])
def test_extension_plays_no_part(suffix: str, bundle_model: TorchModel, table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    save(bundle_model, path)
    np.testing.assert_array_equal(
        load_model(ModelSpec(path=str(path))).predict_proba(table), bundle_model.predict_proba(table)
    )


def test_older_or_other_writers_archives_are_read(bundle_model: TorchModel, tmp_path: Path) -> None:
    """An archive written by Python's zipfile instead of torch's own writer is read too."""
    import zipfile

    save(bundle_model, tmp_path / "m.pt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "m.pt") as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    (tmp_path / "m.pt").write_bytes(buffer.getvalue())
    assert load_model(ModelSpec(path=str(tmp_path / "m.pt"))).classes == ("no", "yes")
