"""Every mitigation on every kind of model: it takes the model, or names one that does, and nobody goes in a circle."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from auditor.core.errors import ModelError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigated, Training, make_mitigation
from mitigations import MITIGATIONS
from tests.mitigations.planted_rows import biased_rows, trained
from tests.mitigations.test_debiasing_encoders import pictures, texts
from tests.mitigations.test_fine_tuned_mitigations import TIMES, Table, own_table
from tests.toys.folders import save_bert, save_vit
from tests.toys.language import causal_tokenizer, tiny
from tests.toys.media_files import image_detector


@dataclass(frozen=True, eq=False)
class Kind:
    """A model, rows for it, and what makes trainings of it short."""

    model: AuditedModel
    rows: AuditData
    options: dict[str, dict[str, Any]]


ONCE = {"epochs": 1}
# Of networks; an estimator has no epochs.
SHORT: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("reweighing", "balanced_resampling", "adversarial_debiasing", "group_dro"), ONCE),
    "counterfactual_augmentation": {**ONCE, "control_arm": False},
    "dp_sgd": {**ONCE, "epsilon": 50.0},
    "fair_gan": ONCE,
    "min_diff": {**ONCE, "weight": 0.1},
    "exponentiated_gradient": {"max_iter": 2},
    "grid_search": {"grid_size": 3},
}


def numbers(n: int = 300) -> AuditData:
    """The planted rows as numbers alone, the group among them."""
    rows = biased_rows(n, 1)
    assert isinstance(rows.X, pd.DataFrame)
    X = pd.DataFrame({"skill": rows.X.skill, "other": rows.X.other, "group": (rows.X.group == "b").astype(float)})
    return AuditData.from_arrays(
        X.astype(np.float32), rows.y_true, classes=[0, 1], positive=1, sensitive_features={"group": list(X.group)}
    )


def loaded(path: Path, **spec: Any) -> AuditedModel:
    model = load_model(ModelSpec(path=str(path), **spec))
    assert isinstance(model, AuditedModel)
    return model


def bundle(path: Path) -> Kind:
    rows = biased_rows(300, 1)
    save(trained(rows, epochs=5), path / "m.pt")
    return Kind(loaded(path / "m.pt"), rows, SHORT)


def bundle_of_ones_own(path: Path) -> Kind:
    rows = biased_rows(300, 1)
    model = own_table(rows)
    save(model, path / "m.pt")
    arguments = {"n_features": model.module.first.in_features}
    spec = {"architecture": f"{Table.__module__}:Table", "architecture_args": arguments, "outputs": "logits"}
    return Kind(loaded(path / "m.pt", **spec), rows, SHORT)


def bundle_of_three_classes(path: Path) -> Kind:
    rows = biased_rows(300, 1)
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    y = rows.y_true + (rows.X.other.to_numpy() > 0.0)
    data = AuditData.from_arrays(rows.X, y, classes=[0, 1, 2], positive=1, sensitive_features=rows.sensitive_features)
    two = trained(rows, epochs=1)
    arguments = {**dict((two.architecture or {})["args"]), "n_outputs": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MLP(**arguments)
    named = {"name": "mlp", "args": arguments}
    model = TorchModel(
        module, classes=[0, 1, 2], preprocessing=two.preprocessing, architecture=named, recipe=two.recipe
    )
    return Kind(model, data, SHORT)


def estimator_of_three_classes(path: Path) -> Kind:
    data = bundle_of_three_classes(path).rows
    assert isinstance(data.X, pd.DataFrame) and data.y_true is not None
    X = numbers().X
    skops.io.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, data.y_true), path / "m.skops")
    rows = AuditData.from_arrays(
        X, data.y_true, classes=[0, 1, 2], positive=1, sensitive_features={"group": list(X["group"])}
    )
    return Kind(loaded(path / "m.skops"), rows, {})


def text_folder(path: Path) -> Kind:
    with torch.random.fork_rng():
        save_bert(path / "text", labels=("negative", "positive"))
    (path / "times.toml").write_text(TIMES)
    swaps = SHORT["counterfactual_augmentation"] | {"lexicon": str(path / "times.toml")}
    return Kind(loaded(path / "text"), texts(200, 0), SHORT | {"counterfactual_augmentation": swaps})


def picture_folder(path: Path) -> Kind:
    with torch.random.fork_rng():
        save_vit(path / "pictures")
    return Kind(loaded(path / "pictures"), pictures(80, 0, (8, 8, 3)), SHORT)


def estimator(path: Path) -> Kind:
    rows = numbers()
    skops.io.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows.X, rows.y_true), path / "m.skops")
    return Kind(loaded(path / "m.skops"), rows, {"exponentiated_gradient": {"max_iter": 2}})


def boosted_trees(path: Path) -> Kind:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    rows = numbers()
    xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(rows.X, rows.y_true).save_model(path / "m.ubj")
    return Kind(loaded(path / "m.ubj"), rows, {"exponentiated_gradient": {"max_iter": 2}})


def onnx_file(path: Path) -> Kind:
    convert = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    from skl2onnx.common.data_types import FloatTensorType

    rows = numbers()
    made = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.asarray(rows.X), rows.y_true)
    content = convert.to_onnx(made, initial_types=[("X", FloatTensorType([None, 3]))])
    (path / "m.onnx").write_bytes(content.SerializeToString())
    return Kind(loaded(path / "m.onnx", features=("skill", "other", "group")), rows, SHORT)


def program(path: Path) -> Kind:
    rows = numbers()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        traced = torch.jit.trace(nn.Sequential(nn.Linear(3, 2)), torch.zeros(2, 3))
    features = ("skill", "other", "group")
    traced.save(str(path / "m.pt"))
    return Kind(
        loaded(path / "m.pt", outputs="logits", allow_code=True, classes=("0", "1"), features=features), rows, SHORT
    )


def language_model(path: Path) -> Kind:
    with torch.random.fork_rng():
        model = AuditedLanguageModel(tiny("llama"), causal_tokenizer(), objective="causal")
    pairs = path / "pairs.jsonl"
    both = {"chosen": " man", "rejected": " woman"}
    lines = [json.dumps({"prompt": f"the {animal}", "cluster": animal} | both) for animal in ("dog", "cat")]
    pairs.write_text("\n".join(lines))
    tuning = {"epochs": 1, "pairs": str(pairs), "test_pairs": str(pairs)}
    return Kind(model, texts(60, 0), SHORT | {"preference_tuning": tuning})


KINDS: dict[str, Callable[[Path], Kind]] = {
    "bundle": bundle,
    "bundle of one's own": bundle_of_ones_own,
    "bundle of three classes": bundle_of_three_classes,
    "estimator of three classes": estimator_of_three_classes,
    "text folder": text_folder,
    "picture folder": picture_folder,
    "estimator": estimator,
    "boosted trees": boosted_trees,
    "onnx": onnx_file,
    "program": program,
    "language model": language_model,
}
# Where most mitigations train.
LONG = ("bundle", "text folder", "language model")


def tried(name: str, kind: Kind) -> Mitigated:
    options = dict(kind.options.get(name, {}))
    if name == "deepfake_detection":
        options = {"detector": image_detector()}
    made = make_mitigation(MITIGATIONS[name], options)
    return made.mitigate(kind.model, kind.rows, np.random.default_rng(0), Training())


def advised(words: str, but: str) -> list[str]:
    """The mitigations that a refusal names beside the one that refuses."""
    return [name for name in MITIGATIONS if name != but and re.search(rf"\b{name}\b", words)]


# Deprecated, and still what people have files of.
@pytest.mark.grid
@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("of", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in KINDS])
def test_whoever_follows_the_advice_arrives(of: str, tmp_path: Path) -> None:
    kind = KINDS[of](tmp_path)
    said: dict[str, str] = {}
    taken = []
    for name in MITIGATIONS:
        try:
            assert tried(name, kind).model is not kind.model
        except ModelError as refusal:
            said[name] = str(refusal)
        else:
            taken.append(name)
    assert len(taken) > 0
    for name, words in said.items():
        if name == "dp_sgd" and not advised(words, name):
            # No mitigation of fairness makes a model private; a training anew does, here where the rows are a table.
            assert ("auditor train --dp-epsilon" in words) is isinstance(kind.rows.X, pd.DataFrame)
            assert ("with Opacus" in words) is not isinstance(kind.rows.X, pd.DataFrame)
            continue
        assert set(advised(words, name)) & set(taken), f"{name} sends nowhere: {words}"
        assert set(advised(words, name)) <= set(taken), f"{name} names what is refused too: {words}"
