"""Exported files decide every row as the bundle does, are audited as it is, and are refused where they cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.core.errors import DamagedError, UnsupportedError, UsageError
from auditor.data.preprocessing import CategoricalColumn, TabularPreprocessing, TextPreprocessing
from auditor.loading.exporting.exported_model import Export, To, coded_columns, export_of
from auditor.loading.exporting.served_table import ServedTable, served_parts
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP, BiLSTMText
from auditor.models.postprocessing import GroupRule, PostprocessedModel, Postprocessing, Steps
from auditor.models.torch_model import TorchModel
from auditor.run.api import load_model
from tests.loading.exporting.planted import ENCODING, bundle, converted, group_rule, rows, ruled, sold, steps

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

# torch.export takes a second or two a program, whatever the program.
TORCH = pytest.param("torch", marks=pytest.mark.slow)
SUFFIX: dict[str, str] = {"onnx": "onnx", "torch": "pt2", "sklearn": "skops"}


def decided(model: AuditedModel, X: pd.DataFrame, positive: int | None) -> list[str]:
    found = model.decide_rows(X, model.predict_proba(X), positive)
    return [model.classes[i] for i in found]


@pytest.mark.grid
@pytest.mark.parametrize("to", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("kind", "threshold", "positive"),
    [
        ("plain", 0.5, 0), ("plain", 0.5, 1), ("plain", 0.5, None), ("plain", 0.3, 0), ("plain", 0.3, 1),
        ("one number", 0.62, 1), ("three classes", 0.5, None), ("vote", 0.5, 0), ("own", 0.45, 1),
    ],
)  # fmt: skip
def test_every_network_decides_every_row_alike(to: To, kind: str, threshold: float, positive: int | None) -> None:
    model, X = bundle(kind, threshold), rows()
    found = export_of(model, to, positive=positive).equality(X)
    assert (found.rows, found.differing) == (len(X), ()) and found.largest_difference < 1e-6
    assert min(np.unique(decided(model, X, positive), return_counts=True)[1]) > 50


@pytest.mark.grid
@pytest.mark.parametrize(
    ("to", "kind", "positive"),
    [
        ("onnx", "thresholds", 0),
        ("onnx", "thresholds", 1),
        ("onnx", "maps", 0),
        ("onnx", "maps", 1),
        ("torch", "thresholds", 1),
        pytest.param("torch", "maps", 0, marks=pytest.mark.slow),
        pytest.param("torch", "maps", 1, marks=pytest.mark.slow),
    ],
)
def test_a_rule_by_group_decides_every_row_alike(to: To, kind: str, positive: int) -> None:
    model, X = ruled(kind, 0.4), rows()
    found = export_of(model, to, positive=positive).equality(X)
    assert found.differing == () and found.largest_difference < 1e-6
    plain = decided(bundle(threshold=0.4), X, positive)
    changed = np.asarray(plain) != np.asarray(decided(model, X, positive))
    # The rule matters, and every one of its groups is met.
    assert changed.sum() > (20 if kind == "thresholds" else 3)
    assert isinstance(model, PostprocessedModel)
    assert set(model.postprocessing.places(X)) == set(range(-1, len(group_rule(kind).groups)))


@pytest.mark.parametrize("positive", [0, 1, None])
@pytest.mark.parametrize(("kind", "threshold"), [("plain", 0.5), ("plain", 0.35), ("three classes", 0.5)])
def test_a_scikit_learn_pipeline_decides_every_row_alike(kind: str, threshold: float, positive: int | None) -> None:
    model, X = bundle(kind, threshold), rows(spelled=False)
    if positive is None and threshold != 0.5:
        with pytest.raises(UsageError, match="--positive yes or --positive no"):
            export_of(model, "sklearn", positive=positive)
        return
    found = export_of(model, "sklearn", positive=positive).equality(X)
    assert found.differing == () and found.largest_difference < 1e-6


def test_scikit_learn_knows_one_spelling_of_a_level_and_the_rows_are_named_where_that_matters() -> None:
    model, X = bundle(), rows()
    found = export_of(model, "sklearn", positive=1).equality(X)
    canonical = X.assign(
        **{"job code": X["job code"].replace({"10.0": "no", "TRUE": "no", "true": "no", "2.000": "no"})}
    )
    expected = np.flatnonzero(np.asarray(decided(model, X, 1)) != np.asarray(decided(model, canonical, 1)))
    assert len(expected) > 3 and found.differing == tuple(expected)


@pytest.mark.grid
@pytest.mark.parametrize("to", ["onnx", TORCH, "sklearn"])
def test_another_models_file_is_found_out(to: To) -> None:
    X = rows(spelled=False)
    other = bundle(threshold=0.3)
    mixed = replace(export_of(bundle(), to, positive=1), content=export_of(other, to, positive=1).content)
    differing = np.flatnonzero(np.asarray(decided(bundle(), X, 1)) != np.asarray(decided(other, X, 1)))
    assert mixed.equality(X).differing == tuple(differing) and len(differing) > 10


@pytest.mark.grid
@pytest.mark.parametrize("to", ["onnx", TORCH, "sklearn"])
@pytest.mark.parametrize("positive", [0, 1])
def test_a_tie_is_decided_as_the_bundle_decides_it(to: To, positive: int) -> None:
    model = bundle()
    with torch.no_grad():
        last = [m for m in model.module.modules() if isinstance(m, nn.Linear)][-1]
        last.weight.zero_()
        last.bias.zero_()
    X = rows(200, spelled=False)
    assert set(decided(model, X, positive)) == {model.classes[positive]}
    assert export_of(model, to, positive=positive).equality(X).differing == ()
    tied = GroupRule(group=("f",), rule=Steps(thresholds=(0.5,), chances=(0.0, 1.0)))
    above = Steps(thresholds=(0.5 - 1e-9,), chances=(0.0, 1.0))
    rule = Postprocessing(columns=("sex",), positive=1, groups=(tied,), otherwise=above)
    if to != "sklearn":
        by_group = PostprocessedModel(model, rule)
        assert set(decided(by_group, X, 1)) == {"yes", "no"}
        assert export_of(by_group, to, positive=1).equality(X).differing == ()


@pytest.mark.grid
@pytest.mark.parametrize("to", ["onnx", TORCH, "sklearn"])
@pytest.mark.parametrize("kind", ["plain", "thresholds", "maps"])
def test_the_file_is_read_back_as_the_model_that_it_is(to: To, kind: str, tmp_path: Path) -> None:
    model = bundle(threshold=0.35) if kind == "plain" else ruled(kind, 0.35)
    if to == "sklearn" and kind != "plain":
        with pytest.raises(UnsupportedError, match="no place for a rule by group: use --to onnx"):
            export_of(model, to, positive=1)
        return
    path = tmp_path / f"m.{SUFFIX[to]}"
    path.write_bytes(export_of(model, to, positive=1).content)
    back = load_model(path, allow_code=to == "torch")
    X = rows(300, spelled=False)
    if to == "sklearn":
        X["owner"] = X["owner"].map({"True": True, "False": False}).astype(object)
    assert set(back.classes) == {"yes", "no"}
    assert decided(back, X, back.classes.index("no")) == decided(model, X, 1)
    wanted = {*ENCODING.features} | ({"region"} if kind == "maps" else set())
    assert back.features is not None and set(back.features) == wanted


SERVED: dict[str, str] = {
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
feed = {}
for column in session.get_inputs():
    values = [row[column.name] for row in rows]
    if column.type == "tensor(double)":
        feed[column.name] = np.array([[np.nan if v is None else v] for v in values], np.float64)
    else:
        feed[column.name] = np.array([["" if v is None else v] for v in values], object)
labels = session.run(["label"], feed)[0].tolist()
""",
    "torch": """
import torch
extra = {"columns.json": ""}
program = torch.export.load("m.pt2", extra_files=extra).module()
said = json.loads(extra["columns.json"])
def number(value, known):
    if known is None:
        return float("nan") if value is None else value
    return known.index(value) if value in known else -1
table = [[number(row[c["name"]], c["values"]) for c in said["columns"]] for row in rows]
probabilities, places = program(torch.tensor(table, dtype=torch.float64))
labels = [said["classes"][i] for i in places.tolist()]
""",
    "sklearn": """
import pandas, skops.io
model = skops.io.load("m.skops", trusted=skops.io.get_untrusted_types(file="m.skops"))
labels = model.predict(pandas.DataFrame(rows).astype({"owner": object})).tolist()
""",
}


@pytest.mark.grid
@pytest.mark.parametrize(
    "to", ["onnx", pytest.param("torch", marks=pytest.mark.slow), pytest.param("sklearn", marks=pytest.mark.slow)]
)
def test_it_is_served_where_there_is_no_auditor(to: To, tmp_path: Path) -> None:
    model = bundle(threshold=0.35) if to == "sklearn" else ruled("maps", 0.35)
    (tmp_path / f"m.{SUFFIX[to]}").write_bytes(export_of(model, to, positive=1).content)
    X = rows(120, spelled=to == "onnx")
    plain = X.astype(object).where(X.notna(), None).to_dict("records")
    if to == "sklearn":
        plain = [row | {"owner": None if row["owner"] is None else row["owner"] == "True"} for row in plain]
    (tmp_path / "rows.json").write_text(json.dumps(plain))
    code = f"""
import json, sys
import numpy as np
rows = json.load(open("rows.json"))
{SERVED[to]}
wrong = [name for name in sys.modules if name.split(".")[0] in ("auditor", "probes", "mitigations", "cli")]
print(json.dumps([labels, wrong]))
"""
    made = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    labels, wrong = json.loads(made.stdout)
    assert wrong == [] and labels == decided(model, X, 1) and len(set(labels)) == 2


def test_what_cannot_be_exported_says_so_in_one_sentence() -> None:
    drawn = Steps(thresholds=(0.5,), chances=(0.2, 1.0))
    by_chance = Postprocessing(
        columns=("sex",), positive=1, groups=(GroupRule(group=("f",), rule=drawn),), otherwise=drawn
    )
    words = TextPreprocessing(vocabulary={"a": 2}, length=4, unknown=1)
    text = TorchModel(BiLSTMText(3, 2), classes=("a", "b"), preprocessing=words)
    function = AuditedModel.from_callable(lambda X: np.full((len(X), 2), 0.5), classes=("a", "b"))
    vote = bundle("vote")
    vote.module.decision_seed = 3  # type: ignore[assignment]
    for model, said in (
        (PostprocessedModel(bundle(), by_chance), "--with deterministic=true"),
        (vote, "--with rule=majority"),
        (text, "Only a model bundle of a table's rows"),
        (function, "Only a model bundle of a table's rows"),
    ):
        for to in ("onnx", "torch", "sklearn"):
            with pytest.raises(UnsupportedError, match=said):
                export_of(model, to, positive=1)  # type: ignore[arg-type]


class Odd(nn.Module):
    """A layer that nobody knows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.sum(dim=1).sin(), x.mean(dim=1)], dim=1)


def unusual() -> list[tuple[TorchModel, pd.DataFrame, str]]:
    odd = TorchModel(Odd(), classes=("yes", "no"), preprocessing=ENCODING, outputs="logits")
    empty = TabularPreprocessing(columns=(*ENCODING.columns[:-1], CategoricalColumn(name="zone", levels=("", "3.5"))))
    blank = TorchModel(MLP(empty.width, (4,), 2), classes=("yes", "no"), preprocessing=empty, outputs="logits")
    X = rows(100).assign(zone=["", "3.5", None, "x"] * 25)
    return [(odd, rows(100), "layer Odd"), (blank, X, "'zone' has an empty text")]


def test_an_unknown_layer_and_an_empty_level_have_no_place_in_other_files() -> None:
    for model, _, said in unusual():
        with pytest.raises(UnsupportedError, match=f"{said}.*: use --to torch"):
            export_of(model, "onnx", positive=1)
    with pytest.raises(UnsupportedError, match="no network like Odd.*: use --to onnx"):
        export_of(unusual()[0][0], "sklearn", positive=1)


@pytest.mark.slow
def test_an_unknown_layer_and_an_empty_level_are_exported_by_torch() -> None:
    for model, X, _ in unusual():
        assert export_of(model, "torch", positive=1).equality(X).differing == ()


def test_columns_named_as_outputs_or_as_tensors_are_told_apart() -> None:
    names = {"age": "label", "job code": "probabilities", "gain": "t1", "sex": "t7"}
    columns = tuple(c.model_copy(update={"name": names.get(c.name, c.name)}) for c in ENCODING.columns)
    own = TabularPreprocessing(columns=columns)
    model = TorchModel(bundle().module, classes=("yes", "no"), preprocessing=own, outputs="logits")
    made = export_of(model, "onnx", positive=1)
    assert made.equality(rows().rename(columns=names)).differing == ()
    assert [o.name for o in onnx.load_model_from_string(made.content).graph.output] == ["label_", "probabilities_"]


def test_a_threshold_in_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    proto = onnx.load_model_from_string(export_of(bundle(threshold=0.3), "onnx", positive=1).content)
    for said in ("1.5", "nan", "high"):
        onnx.helper.set_model_props(proto, {"decision_threshold": said})
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(DamagedError, match=f"decides by '{said}', which is no threshold"):
            load_model(tmp_path / "m.onnx")
        assert load_model(tmp_path / "m.onnx", threshold=0.2).threshold == 0.2


def test_the_threshold_is_the_files_unless_a_flag_names_another(tmp_path: Path) -> None:
    X, path = rows(), tmp_path / "m.onnx"
    for own, given, expected in ((0.3, None, 0.3), (0.3, 0.7, 0.7), (0.5, None, 0.5)):
        path.write_bytes(export_of(bundle(threshold=own), "onnx", positive=1).content)
        model = load_model(path, threshold=given)
        assert model.threshold == expected
        chances = model.predict_proba(X)[:, 1]
        assert model.decide(model.predict_proba(X), 1).tolist() == (chances >= expected).astype(int).tolist()


def test_the_same_model_makes_the_same_file() -> None:
    first, second = (export_of(ruled("maps"), "onnx", positive=1).content for _ in range(2))
    assert first == second


def test_a_program_says_what_its_numbers_mean() -> None:
    own = served_parts(ruled("maps"), 1)
    assert isinstance(own, ServedTable)
    coded = coded_columns(own)
    assert coded.features == (*ENCODING.features, "region") and coded.positive == "no"
    assert coded.columns[-1].values == ("north", "7", "south", None)
    assert coded.columns[4].values == ("f", "m", "d", None) and coded.columns[5].values is None
    X = pd.DataFrame({"age": [1.5, None], "job code": ["10.0", "x"], "gain": ["7", "8"], "owner": [True, None]})
    X = X.assign(sex=["d", None], zone=[1, 2], region=[7, None])
    expected = [[1.5, 0, 7, 0, 2, 1, 1], [np.nan, -1, 8, -1, 3, 2, 3]]
    assert np.array_equal(coded.encode(X), np.asarray(expected), equal_nan=True)


@pytest.mark.parametrize(("opset", "zipmap", "matrix"), [(20, False, False), (15, True, False), (18, True, True)])
@pytest.mark.parametrize("with_rule", [True, False])
def test_a_pipeline_in_an_onnx_file_and_its_rule_are_one_file(
    opset: int, zipmap: bool, matrix: bool, with_rule: bool, tmp_path: Path
) -> None:
    base = converted(tmp_path / "base.onnx", opset, zipmap=zipmap, matrix=matrix)
    rule = Postprocessing(
        columns=("sex",), positive=1, groups=(GroupRule(group=("f",), rule=steps(0.8)),), otherwise=steps(0.3)
    )
    model = PostprocessedModel(base, rule) if with_rule else base
    X = sold()
    made = export_of(model, "onnx", positive=1)
    found = made.equality(X)
    assert found.differing == () and found.largest_difference < 1e-6
    assert len(set(decided(model, X, 1))) == 2
    (tmp_path / "one.onnx").write_bytes(made.content)
    back = load_model(tmp_path / "one.onnx")
    assert set(back.features or ()) == set(X.columns if with_rule or not matrix else ["age", "gain"])
    assert decided(back, X, 1) == decided(model, X, 1)
    for to in ("torch", "sklearn"):
        with pytest.raises(UnsupportedError, match="use --to onnx"):
            export_of(model, to, positive=1)  # type: ignore[arg-type]


def numbers(n: int = 800) -> tuple[pd.DataFrame, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rng = np.random.default_rng(2)
    X = pd.DataFrame(rng.normal(size=(n, 4)), columns=["age", "gain", "debt", "years"])
    X.loc[::17, "debt"] = np.nan
    return X, ((X["gain"] + X["age"].abs() > 1.0) & (X["years"] > -1.0)).to_numpy().astype(np.int64)


def _fitted(kind: str, path: Path) -> Path:
    """A file of each library."""
    X, y = numbers()
    library = pytest.importorskip(kind, reason=f"{kind} is not installed")
    if kind == "xgboost":
        library.XGBClassifier(n_estimators=25, max_depth=4, n_jobs=1).fit(X, y).save_model(path / "m.json")
        return path / "m.json"
    if kind == "lightgbm":
        library.LGBMClassifier(n_estimators=25, verbose=-1, n_jobs=1).fit(X, y).booster_.save_model(path / "m.txt")
        return path / "m.txt"
    made = library.CatBoostClassifier(iterations=25, depth=4, verbose=0, allow_writing_files=False, thread_count=1)
    made.fit(X, y).save_model(str(path / "m.cbm"))
    return path / "m.cbm"


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost"])
@pytest.mark.parametrize("with_rule", [True, False])
def test_boosted_trees_and_their_rule_are_one_file(kind: str, with_rule: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxmltools", reason="onnxmltools is not installed")
    base, (X, _) = load_model(_fitted(kind, tmp_path)), numbers()
    X = X.assign(sex=np.where(np.arange(len(X)) % 3, "f", "m"))
    rule = Postprocessing(
        columns=("sex",), positive=1, groups=(GroupRule(group=("f",), rule=steps(0.8)),), otherwise=steps(0.3)
    )
    model = PostprocessedModel(base, rule) if with_rule else base
    made = export_of(model, "onnx", positive=1)
    found = made.equality(X)
    assert found.differing == () and found.largest_difference < 1e-5 and len(set(decided(model, X, 1))) == 2
    (tmp_path / "one.onnx").write_bytes(made.content)
    assert decided(load_model(tmp_path / "one.onnx"), X, 1) == decided(model, X, 1)


@pytest.mark.parametrize("with_rule", [True, False])
def test_a_pipeline_of_scikit_learn_and_its_rule_are_one_file(with_rule: bool, tmp_path: Path) -> None:
    import skops.io
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    X, y = numbers()
    X = X.fillna(0.0).assign(sex=np.where(np.arange(len(X)) % 3, "f", "m"))
    encode = ColumnTransformer(
        [("n", StandardScaler(), ["age", "gain", "debt", "years"]), ("t", make_pipeline(OneHotEncoder()), ["sex"])]
    )
    forest = make_pipeline(encode, RandomForestClassifier(9, max_depth=6, random_state=0)).fit(X, y)
    skops.io.dump(forest, tmp_path / "m.skops")
    base = load_model(tmp_path / "m.skops")
    rule = Postprocessing(
        columns=("sex",), positive=1, groups=(GroupRule(group=("f",), rule=steps(0.8)),), otherwise=steps(0.3)
    )
    model = PostprocessedModel(base, rule) if with_rule else base
    made = export_of(model, "onnx", positive=1)
    found = made.equality(X)
    assert found.differing == () and found.largest_difference < 1e-6
    (tmp_path / "one.onnx").write_bytes(made.content)
    back = load_model(tmp_path / "one.onnx")
    assert set(back.features or ()) == set(X.columns) and decided(back, X, 1) == decided(model, X, 1)


@pytest.mark.parametrize("whole", [False, True])
def test_lightgbm_with_named_categories_is_one_graph(whole: bool, tmp_path: Path) -> None:
    """Values that it has learned, as text or whole numbers, new ones and none, in its own answers."""
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    pytest.importorskip("onnxmltools", reason="onnxmltools is not installed")
    rng = np.random.default_rng(0)
    levels: Any = [3, 10, 20, 40] if whole else ["a", "b", "true", "d"]
    X = pd.DataFrame({"n": rng.normal(size=400).round(3), "c": rng.choice(levels, 400), "m": rng.normal(size=400)})
    X.loc[::7, "n"] = np.nan
    y = ((X["c"].isin(levels[1:3])) ^ (X["m"] > 0.3)).astype(int)
    made = lightgbm.LGBMClassifier(n_estimators=12, min_child_samples=5, cat_smooth=1, verbose=-1, n_jobs=1)
    fitted = made.fit(X.assign(c=X["c"].astype("category")), y)
    fitted.booster_.save_model(tmp_path / "m.txt")
    model = load_model(tmp_path / "m.txt")
    rows = X.assign(c=X["c"].astype(str).where(X.index % 5 > 0, "other").where(X.index % 9 > 0))
    assert (np.abs(model.predict_proba(rows) - model.predict_proba(X)).max(axis=1) > 0.1).any()
    export = export_of(model, "onnx", positive=1)
    found = export.equality(rows)
    assert found.differing == () and found.largest_difference < 1e-5
    expected = fitted.predict_proba(X.assign(c=X["c"].astype("category")))
    np.testing.assert_allclose(
        load_bytes(export, tmp_path).predict_proba(X.assign(c=X["c"].astype(str))), expected, atol=1e-5
    )


def load_bytes(export: Export, folder: Path) -> AuditedModel:
    (folder / "one.onnx").write_bytes(export.content)
    return load_model(folder / "one.onnx")


def test_what_has_no_converter_says_what_to_do(tmp_path: Path) -> None:
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    X, y = numbers()
    X = X.fillna(0.0)
    named = X.assign(sex=pd.Categorical(np.where(np.arange(len(X)) % 3, "f", "m")))
    xgboost.XGBClassifier(n_estimators=3, enable_categorical=True).fit(named, y).save_model(tmp_path / "c.json")
    skops.io.dump(LogisticRegression().fit(X.to_numpy(), y), tmp_path / "bare.skops")
    skops.io.dump(LinearSVC().fit(X, y), tmp_path / "svc.skops")
    for name, said in (
        ("c.json", "'sex' holds names"),
        ("bare.skops", "named columns"),
        ("svc.skops", "probabilities"),
    ):
        model = load_model(tmp_path / name, features=",".join(X) if name == "bare.skops" else None)
        with pytest.raises(UnsupportedError, match=said):
            export_of(model, "onnx", positive=1)


def test_an_estimator_that_is_not_converted_is_named_with_what_is() -> None:
    """skl2onnx ends in the attributes of a node that it could not make."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from auditor.loading.estimators import EstimatorModel
    from auditor.models.audited_model import Provenance

    pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    X = pd.DataFrame({"a": np.linspace(-1.0, 1.0, 80)})
    boosted = HistGradientBoostingClassifier(max_iter=2).fit(X, (X["a"] > 0).astype(int))
    model = EstimatorModel(boosted, classes=["0", "1"], features=("a",), threshold=None, provenance=Provenance())
    with pytest.raises(UnsupportedError) as refused:
        model.onnx_graph()
    assert str(refused.value) == (
        "skl2onnx does not convert HistGradientBoostingClassifier as it is used here: logistic regressions, random "
        "forests and GradientBoostingClassifier can be exported to ONNX. The file itself can be audited and repaired."
    )
