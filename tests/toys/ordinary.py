"""Small models and tables as the files and folders that their usual tools write, with the tools' own answers."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.toys.folders import save_bert
from tests.toys.language import causal_tokenizer, tiny

N = 120
NUMBERS = ("a", "b", "c")
LABELS = ("no", "yes")
SIDE = 8


@dataclass(frozen=True, eq=False)
class Ordinary:
    """A file as a user has it, and what its tool answers about the rows that belong to it.

    ``rows``: what ``load_model(...)``'s model is asked about; ``answers``: (n, k) probabilities, or (n,) numbers or
    decisions, None where no probe asks for any. ``data``: the flags of ``scan`` that say which rows, and what they are.
    """

    path: Path
    data: tuple[str, ...]
    rows: Any = None
    answers: Any = None


Maker = Callable[[Path], Ordinary]
ORDINARY: dict[str, Maker] = {}


def ordinary(name: str) -> Callable[[Maker], Maker]:
    """Enters a maker under a name."""

    def enter(make: Maker) -> Maker:
        ORDINARY[name] = make
        return make

    return enter


# ---- rows ------------------------------------------------------------------------------------------------------------


@cache
def people() -> pd.DataFrame:
    """Three numbers, a colour, a group, a label of 0 and 1, and a number to be predicted."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({name: rng.normal(size=N) for name in NUMBERS})
    rows["colour"] = rng.choice(["red", "green", "blue"], N)
    rows["g"] = np.arange(N) % 2
    signal = rows["a"] + 0.5 * rows["b"] + 0.7 * (rows["colour"] == "red") + 0.3 * rows["g"]
    rows["y"] = (signal + 0.7 * rng.normal(size=N) > 0.2).astype(int)
    rows["income"] = 3.0 * signal + rng.normal(size=N)
    return rows


def numbers() -> pd.DataFrame:
    return people()[list(NUMBERS)]


def mixed() -> pd.DataFrame:
    return people()[[*NUMBERS, "colour"]]


def labels() -> Any:
    return people()["y"].to_numpy()


def _data(folder: Path, columns: tuple[str, ...] = NUMBERS, target: str = "y") -> tuple[str, ...]:
    """The flags of a table with these columns, the label or number, and the group."""
    path = folder / "rows.csv"
    if not path.exists():
        people()[[*columns, "g", target]].to_csv(path, index=False)
    # The group is no column of the model's: without --features a model that names no columns would take it for one.
    return ("--data", str(path), "--target", target, "--sensitive", "g")


def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(["good", "bad", "day", "night"], 5)) for _ in range(N)]


def _text_data(folder: Path) -> tuple[str, ...]:
    path = folder / "texts.csv"
    pd.DataFrame({"text": texts(), "g": people()["g"], "y": people()["y"]}).to_csv(path, index=False)
    return ("--data", str(path), "--text", "text", "--target", "y", "--sensitive", "g", "--positive", "1")


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


def _estimators() -> dict[str, Callable[[], Any]]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    return {
        "logistic": LogisticRegression,
        "forest": lambda: RandomForestClassifier(5, random_state=0),
        "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=5),
        "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=5, random_state=0),
        "support vectors": SVC,
        "neural network": lambda: MLPClassifier((4,), max_iter=30, random_state=0),
        "neighbours": lambda: KNeighborsClassifier(3),
        "calibrated": lambda: CalibratedClassifierCV(GaussianNB(), cv=2),
    }


def answers_of(model: Any, rows: Any) -> Any:
    """Probabilities, or decisions as one column a class, or numbers, of a scikit-learn model."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(rows)
    found = model.predict(rows)
    return found if not hasattr(model, "classes_") else (found[:, None] == model.classes_).astype(float)


def _pickled(name: str) -> Maker:
    def make(folder: Path) -> Ordinary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a small network that has not converged
            model = _estimators()[name]().fit(numbers(), labels())
        path = folder / "model.pkl"
        path.write_bytes(pickle.dumps(model))
        return Ordinary(path, _data(folder), numbers(), answers_of(model, numbers()))

    return make


for _name in (
    "logistic", "forest", "histogram boosting", "gradient boosting", "support vectors", "neural network", "neighbours",
    "calibrated",
):  # fmt: skip
    ordinary(f"scikit-learn {_name}, pickle")(_pickled(_name))


def _columns() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encode = ColumnTransformer(
        [("one", OneHotEncoder(handle_unknown="ignore"), ["colour"]), ("scale", StandardScaler(), list(NUMBERS))]
    )
    return make_pipeline(encode, LogisticRegression()).fit(mixed(), labels())


def _pipeline() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers(), labels())


def _by_joblib(name: str, model: Callable[[], Any], compress: int = 0, target: str = "y") -> None:
    @ordinary(name)
    def make(folder: Path) -> Ordinary:
        import joblib  # type: ignore[import-untyped]

        made = model()
        joblib.dump(made, folder / "model.joblib", compress=compress)
        columns = (*NUMBERS, "colour") if "colour" in made.feature_names_in_ else NUMBERS
        rows = people()[list(columns)]
        return Ordinary(folder / "model.joblib", _data(folder, columns, target), rows, answers_of(made, rows))


def _regression() -> Any:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge()).fit(numbers(), people()["income"])


_by_joblib("scikit-learn pipeline, joblib", _pipeline)
_by_joblib("scikit-learn pipeline, compressed joblib", _pipeline, compress=3)
_by_joblib("scikit-learn pipeline of columns, joblib", _columns)
_by_joblib("scikit-learn regression pipeline, joblib", _regression, target="income")


@ordinary("scikit-learn logistic, skops")
def _skops(folder: Path) -> Ordinary:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(numbers().to_numpy(), labels())
    skops.io.dump(model, folder / "model.skops")
    rows = numbers()
    # Fitted on an array: it knows no names, so the data hold its columns and nothing else beside label and group.
    return Ordinary(folder / "model.skops", _data(folder), rows, model.predict_proba(rows.to_numpy()))


# ---- boosted trees ---------------------------------------------------------------------------------------------------


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


def _coded() -> pd.DataFrame:
    return mixed().astype({"colour": "category"})


def xgboost_model() -> Any:
    made = library("xgboost").XGBClassifier(n_estimators=4, max_depth=2, enable_categorical=True, n_jobs=1)
    return made.fit(_coded(), labels())


def lightgbm_model() -> Any:
    made = library("lightgbm").LGBMClassifier(n_estimators=4, max_depth=2, verbose=-1, n_jobs=1)
    return made.fit(_coded(), labels())


def _boosted(folder: Path, name: str, model: Any) -> Ordinary:
    data = _data(folder, (*NUMBERS, "colour"))
    return Ordinary(folder / name, data, mixed(), np.asarray(model.predict_proba(_coded()), np.float64))


def _boosted_pipeline() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Scaled columns keep their names, which a booster's own file would lose.
    made = make_pipeline(
        StandardScaler().set_output(transform="pandas"),
        library("lightgbm").LGBMClassifier(n_estimators=4, max_depth=2, verbose=-1, n_jobs=1),
    )
    return made.fit(numbers(), labels())


_by_joblib("LightGBM in a scikit-learn pipeline, joblib", _boosted_pipeline)


@ordinary("XGBoost, .json")
def _xgboost_json(folder: Path) -> Ordinary:
    model = xgboost_model()
    model.save_model(folder / "model.json")
    return _boosted(folder, "model.json", model)


@ordinary("XGBoost, .ubj")
def _xgboost_ubj(folder: Path) -> Ordinary:
    model = xgboost_model()
    model.save_model(folder / "model.ubj")
    return _boosted(folder, "model.ubj", model)


@ordinary("XGBoost, joblib")
def _xgboost_joblib(folder: Path) -> Ordinary:
    import joblib

    model = xgboost_model()
    joblib.dump(model, folder / "model.joblib")
    return _boosted(folder, "model.joblib", model)


@ordinary("LightGBM, .txt")
def _lightgbm_text(folder: Path) -> Ordinary:
    model = lightgbm_model()
    model.booster_.save_model(folder / "model.txt")
    return _boosted(folder, "model.txt", model)


@ordinary("LightGBM, pickle")
def _lightgbm_pickle(folder: Path) -> Ordinary:
    model = lightgbm_model()
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    return _boosted(folder, "model.pkl", model)


def _catboost(ending: str) -> None:
    @ordinary(f"CatBoost, .{ending}")
    def make(folder: Path) -> Ordinary:
        catboost = library("catboost")
        made = catboost.CatBoostClassifier(iterations=4, depth=2, verbose=0, allow_writing_files=False, thread_count=1)
        pool = catboost.Pool(mixed(), labels(), cat_features=["colour"])
        model = made.fit(pool)
        model.save_model(str(folder / f"model.{ending}"), format=ending, pool=pool)
        data = _data(folder, (*NUMBERS, "colour"))
        return Ordinary(folder / f"model.{ending}", data, mixed(), model.predict_proba(mixed()))


_catboost("cbm")
_catboost("json")


# ---- ONNX ------------------------------------------------------------------------------------------------------------


def _converted(zipmap: bool) -> Maker:
    def make(folder: Path) -> Ordinary:
        convert = library("skl2onnx").to_onnx
        from skl2onnx.common.data_types import FloatTensorType
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression().fit(numbers().to_numpy(), labels())
        proto = convert(model, initial_types=[("X", FloatTensorType([None, 3]))], options={"zipmap": zipmap})
        (folder / "model.onnx").write_bytes(proto.SerializeToString())
        return Ordinary(folder / "model.onnx", _data(folder), numbers(), model.predict_proba(numbers().to_numpy()))

    return make


ordinary("ONNX of scikit-learn, ZipMap")(_converted(True))
ordinary("ONNX of scikit-learn, no ZipMap")(_converted(False))


@ordinary("ONNX of a torch network")
def _onnx_network(folder: Path) -> Ordinary:
    """As torch's exporter writes it: one Gemm a linear layer, and the batch left open."""
    onnx = library("onnx")
    network, helper = mlp(), onnx.helper
    nodes, tensors, last = [], [], "input"
    for i, layer in enumerate(network):
        if isinstance(layer, nn.Linear):
            for part, value in layer.named_parameters():
                tensors.append(onnx.numpy_helper.from_array(value.detach().numpy(), f"{i}.{part}"))
            nodes.append(helper.make_node("Gemm", [last, f"{i}.weight", f"{i}.bias"], [f"h{i}"], transB=1))
        else:
            nodes.append(helper.make_node("Relu", [last], [f"h{i}"]))
        last = f"h{i}"
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("input", kind, ["batch", 3])],
        [helper.make_tensor_value_info(last, kind, ["batch", 2])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="pytorch")
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    return Ordinary(folder / "model.onnx", _data(folder), numbers(), _softmax(network, numbers().to_numpy()))


# ---- torch -----------------------------------------------------------------------------------------------------------


@cache
def mlp() -> nn.Sequential:
    """A small network of the three numbers that was trained on them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    rows, targets = torch.tensor(numbers().to_numpy(), dtype=torch.float32), torch.tensor(labels())
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(rows), targets).backward()
        optimiser.step()
    return network.eval()


def _softmax(network: nn.Module, rows: Any) -> Any:
    with torch.no_grad():
        return network(torch.tensor(np.asarray(rows), dtype=torch.float32)).softmax(1).double().numpy()


def _torch(folder: Path, name: str) -> Ordinary:
    return Ordinary(folder / name, _data(folder), numbers(), _softmax(mlp(), numbers()))


@ordinary("torch state_dict, .pt")
def _state_dict(folder: Path) -> Ordinary:
    torch.save(mlp().state_dict(), folder / "model.pt")
    return _torch(folder, "model.pt")


@ordinary("torch state_dict, legacy .pth")
def _legacy(folder: Path) -> Ordinary:
    torch.save(mlp().state_dict(), folder / "model.pth", _use_new_zipfile_serialization=False)
    return _torch(folder, "model.pth")


@ordinary("torch checkpoint with an optimiser")
def _checkpoint(folder: Path) -> Ordinary:
    network = mlp()
    content = {
        "epoch": 40,
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": torch.optim.Adam(network.parameters()).state_dict(),
        "loss": np.float64(0.3),
        "best_accuracy": np.float32(0.8),
    }
    torch.save(content, folder / "checkpoint.pt")
    return _torch(folder, "checkpoint.pt")


@ordinary("torch module, pickled whole")
def _module(folder: Path) -> Ordinary:
    torch.save(mlp(), folder / "model.pt")
    return _torch(folder, "model.pt")


@ordinary("TorchScript")
def _torchscript(folder: Path) -> Ordinary:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch deprecates TorchScript; people have such files
        torch.jit.save(torch.jit.script(mlp()), folder / "model.pt")
    return _torch(folder, "model.pt")


@ordinary("safetensors of a network")
def _safetensors(folder: Path) -> Ordinary:
    from safetensors.torch import save_file

    save_file(mlp().state_dict(), folder / "model.safetensors")
    return _torch(folder, "model.safetensors")


@ordinary("torch state_dict of a small CNN")
def _cnn(folder: Path) -> Ordinary:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * (SIDE // 2) ** 2, 2)
    ).eval()
    torch.save(network.state_dict(), folder / "model.pt")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, SIDE, SIDE, 3), np.uint8)
    (folder / "pictures").mkdir()
    for i, one in enumerate(pixels):
        image.fromarray(one).save(folder / "pictures" / f"{i}.png")
    table = pd.DataFrame({"file": [f"pictures/{i}.png" for i in range(N)], "y": labels(), "g": people()["g"]})
    table.to_csv(folder / "pictures.csv", index=False)
    scaled = (pixels.transpose(0, 3, 1, 2) / 255.0).astype(np.float32)
    data = ("--data", str(folder / "pictures.csv"), "--image", "file", "--target", "y", "--sensitive", "g")
    return Ordinary(folder / "model.pt", data, pixels, _softmax(network, scaled))


# ---- Hugging Face ----------------------------------------------------------------------------------------------------


def _text_answers(model: Any, folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        encoded = tokenizer(texts(), padding=True, return_tensors="pt")
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        return model(input_ids=ids, attention_mask=mask).logits.softmax(1).double().numpy()


def _classifier(folder: Path) -> tuple[Path, Any, Any]:
    place = folder / "model"
    model = save_bert(place, labels=("0", "1"))
    return place, model, _text_answers(model, place)


def _of_texts(folder: Path, place: Path, answers: Any) -> Ordinary:
    return Ordinary(place, _text_data(folder), np.asarray(texts(), object), answers)


@ordinary("Hugging Face classifier, safetensors")
def _hf(folder: Path) -> Ordinary:
    place, _, answers = _classifier(folder)
    return _of_texts(folder, place, answers)


@ordinary("Hugging Face classifier, pytorch_model.bin")
def _hf_bin(folder: Path) -> Ordinary:
    place, model, answers = _classifier(folder)
    (place / "model.safetensors").unlink()
    torch.save(model.state_dict(), place / "pytorch_model.bin")
    return _of_texts(folder, place, answers)


@ordinary("Hugging Face classifier, vocab.txt")
def _hf_vocabulary(folder: Path) -> Ordinary:
    """As bert-base-uncased was long published: no tokenizer.json."""
    place, _, answers = _classifier(folder)
    words = sorted((v, k) for k, v in _vocabulary(place).items())
    (place / "vocab.txt").write_text("".join(f"{word}\n" for _, word in words))
    (place / "tokenizer.json").unlink()
    (place / "tokenizer_config.json").write_text('{"do_lower_case": true, "pad_token": "[PAD]"}')
    return _of_texts(folder, place, answers)


def _vocabulary(place: Path) -> dict[str, int]:
    from transformers import PreTrainedTokenizerFast

    return dict(PreTrainedTokenizerFast.from_pretrained(place).get_vocab())


@ordinary("Hugging Face classifier, sharded")
def _hf_shards(folder: Path) -> Ordinary:
    place, model, answers = _classifier(folder)
    (place / "model.safetensors").unlink()
    model.save_pretrained(place, max_shard_size="8KB")  # type: ignore[operator]
    assert len(list(place.glob("model-*.safetensors"))) > 1
    return _of_texts(folder, place, answers)


@ordinary("LoRA adapter of a classifier")
def _adapter(folder: Path) -> Ordinary:
    """Beside the folder ``base``, which it was trained on."""
    peft = library("peft")
    model = save_bert(folder / "base", labels=("0", "1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own ways of finding a base
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query", "value"]))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(generator=torch.Generator().manual_seed(0))
        adapted.save_pretrained(folder / "model")
    answers = _text_answers(adapted.eval(), folder / "base")
    return _of_texts(folder, folder / "model", answers)


def _prompts(folder: Path) -> tuple[str, ...]:
    words = np.random.default_rng(0).choice(["the", "dog", "cat", "sees", "small", "man", "woman"], (40, 6))
    pd.DataFrame({"text": [" ".join(row) for row in words]}).to_csv(folder / "prompts.csv", index=False)
    return ("--data", str(folder / "prompts.csv"), "--text", "text")


@ordinary("Hugging Face causal language model")
def _causal(folder: Path) -> Ordinary:
    place = folder / "model"
    tiny("llama").save_pretrained(place)  # type: ignore[operator]
    causal_tokenizer().save_pretrained(place)
    return Ordinary(place, _prompts(folder))


@ordinary("Hugging Face encoder-decoder (T5)")
def _t5(folder: Path) -> Ordinary:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(folder / "model")
    causal_tokenizer().save_pretrained(folder / "model")
    return Ordinary(folder / "model", _prompts(folder))


@ordinary("Hugging Face token classifier")
def _tagger(folder: Path) -> Ordinary:
    from transformers import BertConfig, BertForTokenClassification

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=20, intermediate_size=16, num_labels=3, **sizes)
    BertForTokenClassification(config).save_pretrained(folder / "model")
    return Ordinary(folder / "model", _text_data(folder))


# ---- tables ----------------------------------------------------------------------------------------------------------


def _table(ending: str, write: Callable[[pd.DataFrame, Path], Any]) -> None:
    @ordinary(f"rows, {ending}")
    def make(folder: Path) -> Ordinary:
        model = _pickled("logistic")(folder)
        path = folder / f"rows{ending}"
        write(people()[[*NUMBERS, "g", "y"]], path)
        data = ("--data", str(path), "--target", "y", "--sensitive", "g")
        return Ordinary(model.path, data, model.rows, model.answers)


_table(".csv.gz", lambda rows, path: rows.to_csv(path, index=False))
_table(".feather", lambda rows, path: rows.to_feather(path))
_table(".npz", lambda rows, path: np.savez(path, **{name: rows[name].to_numpy() for name in rows.columns}))


def _predictions(ending: str, write: Callable[[pd.DataFrame, Path], Any]) -> None:
    @ordinary(f"predictions, {ending}")
    def make(folder: Path) -> Ordinary:
        scores = _pipeline().predict_proba(numbers())[:, 1]
        path = folder / f"predictions{ending}"
        write(people()[["g", "y"]].assign(score=scores), path)
        return Ordinary(path, ("--target", "y", "--score", "score", "--sensitive", "g"))


_predictions(".csv", lambda rows, path: rows.to_csv(path, index=False))
_predictions(".parquet", lambda rows, path: rows.to_parquet(path))
