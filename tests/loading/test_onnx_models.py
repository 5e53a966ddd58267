"""ONNX models of tables: what converters write is read as it was meant, and anything else is asked about."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import auditor
from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.job_specs import ModelSpec
from auditor.loading.onnx_models import load_onnx_media
from auditor.models.files.model_folder import is_beside
from tests.quantifiers import all_of, none_of
from tests.toys.classifiers import SAMPLES, save_onnx
from tests.toys.media_files import fake_picture, real_picture

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def table(n: int = 300) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "c": rng.choice(["u", "v"], n)})
    return X, np.where(X["a"] + (X["c"] == "u") > 0.3, "yes", "no")


def converted(model: Any, initial: Any, path: Path, **options: Any) -> Path:
    convert = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed").to_onnx
    path.write_bytes(convert(model, initial_types=initial, **options).SerializeToString())
    return path


def matrix(width: int) -> Any:
    types = pytest.importorskip("skl2onnx.common.data_types", reason="skl2onnx is not installed")
    return [("X", types.FloatTensorType([None, width]))]


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_classifier_of_scikit_learn(zipmap: bool, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    X, y = table()
    own = LogisticRegression().fit(X[["a", "b"]].to_numpy(), y)
    path = converted(own, matrix(2), tmp_path / "m.onnx", options={"zipmap": zipmap})
    model = auditor.load_model(path, features="a,b")
    assert model.classes == ("no", "yes")
    assert np.abs(model.predict_proba(X[["b", "a"]]) - own.predict_proba(X[["a", "b"]].to_numpy())).max() < 1e-6
    assert auditor.load_model(path, features="a,b", classes="deny,grant").classes == ("deny", "grant")


def test_a_pipeline_with_a_column_of_names(tmp_path: Path) -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    types = pytest.importorskip("skl2onnx.common.data_types", reason="skl2onnx is not installed")
    X, y = table()
    columns = ColumnTransformer([("c", OneHotEncoder(), ["c"])], remainder="passthrough")
    own = make_pipeline(columns, RandomForestClassifier(5, random_state=0)).fit(X, (y == "yes").astype(int))
    initial = [(name, types.FloatTensorType([None, 1])) for name in ("a", "b")]
    path = converted(own, [*initial, ("c", types.StringTensorType([None, 1]))], tmp_path / "p.onnx")
    model = auditor.load_model(path)
    assert model.features == ("a", "b", "c") and model.group_columns == ("c",) and model.classes == ("0", "1")
    assert np.abs(model.predict_proba(X[["c", "b", "a"]]) - own.predict_proba(X)).max() < 1e-6
    with pytest.raises(DataError, match="Column 'a' holds 'much'"):
        model.predict_proba(X.assign(a="much"))


def test_a_regression_says_so_by_flag(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    X, _ = table()
    own = LinearRegression().fit(X[["a", "b"]].to_numpy(), 3.0 * X["a"])
    path = converted(own, matrix(2), tmp_path / "r.onnx")
    with pytest.raises(UsageError, match="--outputs logits or --outputs.*--task regression"):
        auditor.load_model(path, features="a,b")
    model = auditor.load_model(path, features="a,b", task="regression")
    assert np.abs(model.predict(X) - 3.0 * X["a"].to_numpy()).max() < 1e-4  # type: ignore[attr-defined]


def network(path: Path, nodes: list[Any], width: int = 2, out: int = 2, **more: Any) -> Path:
    """A graph from x (n, width) to y (n, out), as an exported network has it."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.asarray([[-1.0, 1.0], [0.0, 0.0]], np.float32)[:width, :out], "w")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, more.pop("shape", ["n", width]))],
        [helper.make_tensor_value_info("y", kind, ["n", out])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17), *more.pop("opsets", [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def linear(*after: str) -> list[Any]:
    """y = after(x w)."""
    names = ["x", *(f"h{i}" for i in range(len(after))), "y"]
    made = [onnx.helper.make_node("MatMul", ["x", "w"], [names[1]])]
    return made + [onnx.helper.make_node(op, [names[i + 1]], [names[i + 2]]) for i, op in enumerate(after)]


@pytest.mark.parametrize(("after", "outputs"), [((), "logits"), (("Softmax",), "probabilities")])
def test_a_network_is_what_the_flag_says(after: tuple[str, ...], outputs: str, tmp_path: Path) -> None:
    X, _ = table()
    path = network(tmp_path / "n.onnx", linear(*after))
    with pytest.raises(UsageError, match="does not say what its output 'y' is"):
        auditor.load_model(path, features="a,b", classes="no,yes")
    model = auditor.load_model(path, features="a,b", classes="no,yes", outputs=outputs)
    expected = 1.0 / (1.0 + np.exp(-2.0 * X["a"].to_numpy()))
    assert np.abs(model.predict_proba(X)[:, 1] - expected).max() < 1e-6


@pytest.mark.parametrize(("after", "outputs"), [((), "logits"), (("Sigmoid",), "probabilities")])
def test_one_column_speaks_of_the_last_class(after: tuple[str, ...], outputs: str, tmp_path: Path) -> None:
    X, _ = table()
    path = network(tmp_path / "n.onnx", linear(*after), out=1)
    model = auditor.load_model(path, features="a,b", classes="no,yes", outputs=outputs)
    expected = 1.0 / (1.0 + np.exp(X["a"].to_numpy()))
    assert np.abs(model.predict_proba(X)[:, 1] - expected).max() < 1e-6


def test_logits_called_probabilities_are_refused(tmp_path: Path) -> None:
    X, _ = table()
    path = network(tmp_path / "n.onnx", linear())
    model = auditor.load_model(path, features="a,b", classes="no,yes", outputs="probabilities")
    with pytest.raises(ModelError, match="not probabilities"):
        model.predict_proba(X)


def test_what_is_neither_a_table_nor_media_is_refused(tmp_path: Path) -> None:
    flat = [onnx.helper.make_node("Flatten", ["x"], ["y"])]
    path = network(tmp_path / "m.onnx", flat, shape=["n", 3, 8], out=24)
    with pytest.raises(ModelError, match="columns of a table.*--predict"):
        auditor.load_model(path, classes="a,b", outputs="logits")
    path = network(tmp_path / "n.onnx", flat, shape=["n", 3, 8, 8], out=192)
    with pytest.raises(ModelError, match="lies no preprocessor_config.json"):
        auditor.load_model(path, classes="a,b", outputs="logits")


@pytest.mark.parametrize("sound", [False, True])
def test_pictures_and_sound_are_taken_as_the_files_beside_the_graph_say(sound: bool, tmp_path: Path) -> None:
    save_onnx(tmp_path / "m.onnx", ("real", "ai"), sound=sound)
    model = auditor.load_model(tmp_path / "m.onnx", threshold=0.9)
    assert model.classes == ("real", "ai") and model.threshold == 0.9
    # The digest is that of the file that was named, and the note tells of what lies beside it.
    assert model.provenance.sha256 == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert "preprocessor_config.json" in model.provenance.notes[-1]
    rng = np.random.default_rng(0)
    rows = rng.integers(-9, 9, (3, SAMPLES), np.int16) if sound else np.stack([real_picture(rng), fake_picture(rng)])
    same = load_onnx_media(str(tmp_path / "m.onnx"), ModelSpec(path=str(tmp_path / "m.onnx")))
    assert np.array_equal(model.predict_proba(rows), same.predict_proba(rows))
    with pytest.raises(UsageError, match="leave --task out"):
        auditor.load_model(tmp_path / "m.onnx", task="regression")


def test_columns_are_asked_for_and_counted(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", linear())
    with pytest.raises(UsageError, match="takes 2 columns and does not name them: add --features"):
        auditor.load_model(path, classes="a,b", outputs="logits")
    with pytest.raises(UsageError, match="names 3 columns, but the model takes 2"):
        auditor.load_model(path, features="a,b,c", classes="a,b", outputs="logits")


def test_operators_of_other_libraries_are_refused(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Steal", ["x"], ["y"], domain="evil.ops")]
    path = network(tmp_path / "n.onnx", nodes, opsets=[onnx.helper.make_opsetid("evil.ops", 1)])
    with pytest.raises(ModelError, match="operators of 'evil.ops'"):
        auditor.load_model(path, features="a,b", classes="a,b", outputs="logits")


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph"])
def test_tensors_in_other_files_are_refused(place: str, tmp_path: Path) -> None:
    """Whatever a file's own graph says it reads: /etc/passwd as weights, by any of the places for a tensor."""
    helper = onnx.helper
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2, 2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    path = network(tmp_path / "n.onnx", linear())
    model = onnx.load(path)
    if place == "initializer":
        model.graph.initializer[0].CopyFrom(tensor)
    elif place == "attribute":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=tensor))
    else:
        inner = helper.make_graph([helper.make_node("Constant", [], ["k"], value=tensor)], "inner", [], [])
        model.graph.node.insert(0, helper.make_node("If", ["x"], ["q"], then_branch=inner, else_branch=inner))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="keeps tensors in"):
        auditor.load_model(path, features="a,b", classes="a,b", outputs="logits")


@pytest.mark.parametrize("file", ["n.onnx.data", "n.onnx_data", "n.onnx_data_1"])
def test_tensors_beside_a_graph_are_part_of_the_model(file: str, tmp_path: Path) -> None:
    flags: Any = {"features": "a,b", "classes": "a,b", "outputs": "logits"}
    rows = pd.DataFrame({"a": [0.5, -1.0], "b": [2.0, 0.1]})
    whole = auditor.load_model(network(tmp_path / "one.onnx", linear()), **flags)
    onnx.save(
        onnx.load(tmp_path / "one.onnx"), tmp_path / "n.onnx", save_as_external_data=True, location=file,
        size_threshold=0,
    )  # fmt: skip
    found = auditor.load_model(tmp_path / "n.onnx", **flags)
    assert np.array_equal(found.predict_proba(rows), whole.predict_proba(rows))
    before = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(before[:-4] + b"\0\0\0\1")
    other = auditor.load_model(tmp_path / "n.onnx", **flags)
    assert other.provenance.sha256 != found.provenance.sha256
    (tmp_path / file).write_bytes(before[:-4])
    with pytest.raises(ModelError, match="ends before"):
        auditor.load_model(tmp_path / "n.onnx", **flags)
    (tmp_path / file).unlink()
    with pytest.raises(ModelError, match="not beside it"):
        auditor.load_model(tmp_path / "n.onnx", **flags)


def test_a_scan_reads_tensors_beside_a_graph(tmp_path: Path) -> None:
    """Within the sandbox, which opens what holds its tensors by its name."""
    onnx.save(
        onnx.load(network(tmp_path / "one.onnx", linear())), tmp_path / "n.onnx", save_as_external_data=True,
        location="n.onnx.data", size_threshold=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    rows.assign(s=rng.choice(["x", "y"], 60), t=rng.choice(["p", "q"], 60)).to_csv(tmp_path / "r.csv", index=False)
    flags: Any = {"features": "a,b", "classes": "p,q", "outputs": "logits", "positive": "q"}
    report = auditor.scan(
        str(tmp_path / "n.onnx"), data=str(tmp_path / "r.csv"), target="t", sensitive=["s"], probes=["performance"],
        **flags,
    )  # fmt: skip
    assert report.exit_code in (0, 1, 3) and "n.onnx.data" in " ".join(report.model.notes)


def test_damaged_bytes_end_in_a_sentence(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", linear())
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(150):
        spoilt = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            spoilt[place] = int(rng.integers(0, 256))
        path.write_bytes(spoilt)
        try:
            auditor.load_model(path, features="a,b", classes="a,b", outputs="logits")
        except (ModelError, UsageError) as error:
            assert len(str(error).splitlines()) <= 3


def test_the_categories_of_a_column_are_not_taken_for_the_classes(tmp_path: Path) -> None:
    """As many of them as classes: neighbours name theirs in an array, and the encoder's stand in an attribute."""
    types = pytest.importorskip("skl2onnx.common.data_types", reason="skl2onnx is not installed")
    from sklearn.compose import ColumnTransformer
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    X = pd.DataFrame({"sex": ["f", "m"] * 60, "a": np.arange(120) % 7 / 7.0}).astype({"sex": object})
    y = np.where(X["a"] > 0.4, "yes", "no")
    before = ColumnTransformer([("sex", OneHotEncoder(sparse_output=False), ["sex"])], remainder="passthrough")
    fitted = make_pipeline(before, KNeighborsClassifier(3)).fit(X, y)
    initial = [("sex", types.StringTensorType([None, 1])), ("a", types.FloatTensorType([None, 1]))]
    model = auditor.load_model(converted(fitted, initial, tmp_path / "m.onnx"))
    assert model.classes == ("no", "yes")
    data = AuditData.from_arrays(X, classes=model.classes, positive="yes")
    assert np.asarray(model.classes)[model.decisions(data)].tolist() == fitted.predict(X).tolist()
    assert model.decision_rule == "Decides by the labels that the graph gives."


@pytest.mark.parametrize("positive", ["0", "1"])
def test_a_graph_in_doubt_decides_by_its_own_labels(positive: str, tmp_path: Path) -> None:
    """Both labels in equal numbers and nothing to tell them apart: probabilities of one half."""
    from sklearn.tree import DecisionTreeClassifier

    X, y = pd.DataFrame({"a": np.zeros(40), "b": np.zeros(40)}), np.arange(40) % 2
    path = converted(DecisionTreeClassifier().fit(X.to_numpy(), y), matrix(2), tmp_path / "m.onnx")
    model = auditor.load_model(path, features=("a", "b"))
    data = AuditData.from_arrays(X, classes=model.classes, positive=positive)
    assert (model.predict_proba(X) == 0.5).all() and set(model.decisions(data)) == {0}


def test_no_other_file_beside_a_graph_is_taken_for_its_tensors() -> None:
    assert all_of(is_beside(name, "n.onnx") for name in ("n.onnx.data", "n.onnx_data", "n.onnx_data_12"))
    others = ("n.onnx", "n.onnx.key", "n.env", "n_weights.bin", "my.onnx.data", "../n.onnx.data", "nXonnx.data", "")
    assert none_of(is_beside(name, "n.onnx") for name in others)
