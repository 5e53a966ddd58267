"""Post-processing over models of every kind: rules beside the model as it was, and the same decisions later."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.postprocessing import ThresholdOptimizer as Fairlearn
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import auditor
from auditor.core.errors import AuditorError, DataError, ModelError, NotApplicableError, UsageError
from auditor.data.audit_data import AuditData, attach_groups
from auditor.loading.formats import identify, load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data
from auditor.models.postprocessed_folder import RULES_FILE
from auditor.models.postprocessing import PostprocessedModel
from auditor.run.mitigation import Training
from mitigations.scores.group_calibration import GroupCalibration
from mitigations.scores.reject_option import RejectOption
from mitigations.scores.threshold_optimizer import ThresholdOptimizer
from tests.mitigations.planted_rows import biased_rows
from tests.mitigations.test_debiasing_encoders import texts
from tests.privacy.test_private_fine_tuning import save_small
from tests.quantifiers import all_of, none_of

EVERY = [ThresholdOptimizer(), RejectOption(width=0.1), GroupCalibration()]
COLUMNS = ["skill", "other", "group"]
NUMBERS = COLUMNS[:2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows to fit the rules on and rows to try them on, and the user's own code in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, seed in (("train", 1), ("test", 2)):
        rows = biased_rows(1200, seed)
        assert isinstance(rows.X, pd.DataFrame)
        rows.X.assign(y=rows.y_true).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def pipeline(names: bool = True) -> Pipeline:
    """Fitted on the rows, by the columns' names or by their places."""
    table = pd.read_csv("train.csv")
    if not names:
        return make_pipeline(StandardScaler(), LogisticRegression()).fit(table[NUMBERS].to_numpy(), table.y)
    encode = make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(), ["group"]))
    return make_pipeline(encode, LogisticRegression()).fit(table[COLUMNS], table.y)


def _skops(path: Path) -> Path:
    import skops.io

    skops.io.dump(pipeline(), path / "m.skops")
    return path / "m.skops"


def _pickle(path: Path) -> Path:
    (path / "m.pkl").write_bytes(pickle.dumps(pipeline(names=False)))
    return path / "m.pkl"


def _boosted(library: str, ending: str) -> Callable[[Path], Path]:
    def save(path: Path) -> Path:
        made = pytest.importorskip(library, reason=f"{library} is not installed")
        table = pd.read_csv("train.csv")
        where = path / f"m.{ending}"
        if library == "xgboost":
            made.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(table[NUMBERS], table.y).save_model(where)
        elif library == "lightgbm":
            kind = made.LGBMClassifier(n_estimators=8, max_depth=3, verbose=-1, n_jobs=1)
            kind.fit(table[NUMBERS], table.y).booster_.save_model(where)
        else:
            kind = made.CatBoostClassifier(
                iterations=8, depth=3, verbose=0, allow_writing_files=False, thread_count=1, random_seed=0
            )
            kind.fit(table[COLUMNS], table.y, cat_features=["group"]).save_model(str(where))
        return where

    return save


def _onnx(path: Path) -> Path:
    convert = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    from skl2onnx.common.data_types import FloatTensorType

    content = convert.to_onnx(pipeline(names=False), initial_types=[("X", FloatTensorType([None, 2]))])
    (path / "m.onnx").write_bytes(content.SerializeToString())
    return path / "m.onnx"


def _bundle(path: Path) -> Path:
    """Numbers alone: nothing in it says which columns they are."""
    import torch

    from auditor.models.networks.architectures import MLP
    from auditor.models.torch_model import TorchModel

    arguments = {"n_features": 2, "hidden": [8], "n_outputs": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MLP(**arguments)
    named = {"name": "mlp", "args": arguments}
    auditor.save(TorchModel(module, classes=[0, 1], outputs="logits", architecture=named), path / "m.pt")
    return path / "m.pt"


KINDS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "skops": (_skops, {}),
    "pickle": (_pickle, {"features": ("skill", "other")}),
    "xgboost json": (_boosted("xgboost", "json"), {}),
    "xgboost ubj": (_boosted("xgboost", "ubj"), {"threshold": 0.4}),
    "lightgbm": (_boosted("lightgbm", "txt"), {}),
    "catboost": (_boosted("catboost", "cbm"), {}),
    "onnx": (_onnx, {"features": ("skill", "other"), "classes": ("0", "1")}),
    "bundle without its columns": (_bundle, {"features": ("skill", "other")}),
}


def rows_of(model: Any, name: str, **more: Any) -> AuditData:
    return load_data(DataSpec(path=f"{name}.csv", target="y", positive="1", sensitive=("group",), **more), model)


def rule(mitigation: Any, model: Any, rows: AuditData) -> PostprocessedModel:
    made = mitigation.mitigate(model, rows, np.random.default_rng(0), Training())
    assert isinstance(made.model, PostprocessedModel)
    return made.model


@pytest.mark.grid
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "mitigation", [ThresholdOptimizer(), RejectOption(width=0.1), GroupCalibration()], ids=lambda m: m.name
)
def test_a_folder_holds_the_model_as_it_was_and_decides_as_before(here: Path, kind: str, mitigation: Any) -> None:
    make, flags = KINDS[kind]
    path = make(here)
    old = load_model(ModelSpec(path=str(path), **flags))
    train = rows_of(old, "train", features=flags.get("features"))
    new = rule(mitigation, old, train)
    auditor.save(new, here / "fair")
    assert identify(here / "fair") == "post-processed folder"
    held = sorted(p.name for p in (here / "fair").iterdir())
    assert held == [f"model{path.suffix}", RULES_FILE]
    assert (here / "fair" / f"model{path.suffix}").read_bytes() == path.read_bytes()
    # No flag is needed again: the folder says what was said of the file below.
    again = load_model(ModelSpec(path=str(here / "fair")))
    assert isinstance(again, PostprocessedModel) and again.postprocessing == new.postprocessing
    assert again.threshold == new.threshold and again.base.threshold == old.threshold
    test = rows_of(again, "test")
    assert {"skill", "other", "group"} == set(test.X.columns)  # type: ignore[union-attr]
    assert np.array_equal(again.decisions(test), new.decisions(test))
    assert np.abs(again.outputs(test) - new.outputs(test)).max() < 1e-12
    # Rules were made that change something, and in the same rows in another order.
    order = np.random.default_rng(1).permutation(len(test))[:400]
    assert np.array_equal(again.decisions(test.take(order)), again.decisions(test)[order])
    assert (again.decisions(test) != old.decisions(replace(test, X=again.base_rows(test.X)))).any()


def test_the_chances_over_a_pipeline_are_fairlearns(here: Path) -> None:
    own = pipeline()
    old = load_model(ModelSpec(path=str(_skops(here))))
    train, test = rows_of(old, "train"), rows_of(old, "test")
    for constraints in ("demographic_parity", "equalized_odds"):
        new = rule(ThresholdOptimizer(constraints=constraints), old, train)  # type: ignore[arg-type]
        theirs = Fairlearn(estimator=own, constraints=constraints, prefit=True, predict_method="predict_proba")
        table, other = pd.read_csv("train.csv"), pd.read_csv("test.csv")
        theirs.fit(table[COLUMNS], table.y, sensitive_features=table.group)
        expected = theirs._pmf_predict(other[COLUMNS], sensitive_features=other.group)
        assert np.abs(new.outputs(test) - expected).max() < 1e-9
        drawn = (expected[:, 1] > 0) & (expected[:, 1] < 1)
        assert drawn.any() and np.array_equal(new.decisions(test)[~drawn], expected[~drawn, 1].astype(int))
        # Drawn once: over many rows as often as fairlearn's chances say.
        assert abs(new.decisions(test).mean() - expected[:, 1].mean()) < 0.04


@pytest.mark.parametrize("predict", ["probabilities", "decisions"])
def test_a_function_keeps_its_rules_in_a_folder_and_is_named_again(here: Path, predict: str) -> None:
    answer = "1 / (1 + np.exp(-2 * rows['skill']))" if predict == "probabilities" else "(rows['skill'] > 0) * 1"
    code = f"import numpy as np\n\n\ndef approve(rows):\n    return {answer}\n\n\napprove.classes = ['0', '1']\n"
    (here / f"own_{predict}.py").write_text(code)
    name = f"own_{predict}:approve"
    # What the function predicts with is hashed and not opened; its rules go with its code.
    (here / "weights.bin").write_bytes(b"weights")
    path = str(here / "weights.bin") if predict == "decisions" else None
    flags: dict[str, Any] = {"path": path, "predict": name, "code_folder": str(here), "features": ("skill",)}
    old = load_model(ModelSpec(**flags))
    new = rule(ThresholdOptimizer(), old, rows_of(old, "train", features=("skill",)))
    auditor.save(new, here / "fair")
    assert [p.name for p in (here / "fair").iterdir()] == [RULES_FILE]
    with pytest.raises(UsageError, match=f"add --predict {name}"):
        load_model(ModelSpec(path=str(here / "fair")))
    again = load_model(ModelSpec(path=str(here / "fair"), predict=name, code_folder=str(here)))
    test = rows_of(again, "test")
    assert np.array_equal(again.decisions(test), new.decisions(test))
    assert none_of("is not what it was" in note for note in again.provenance.notes)
    (here / f"own_{predict}.py").write_text(code + "# changed\n")
    changed = load_model(ModelSpec(path=str(here / "fair"), predict=name, code_folder=str(here)))
    assert any("is not what it was" in note for note in changed.provenance.notes)


def test_a_model_in_memory_is_written_once_it_lies_in_a_file(here: Path) -> None:
    memory = auditor.AuditedModel.from_callable(
        lambda X: (X["skill"] > 0).to_numpy(float), classes=[0, 1], features=["skill"]
    )
    new = rule(RejectOption(width=0.1), memory, rows_of(memory, "train"))
    with pytest.raises(ModelError, match="lies in memory.*load that file with auditor.load_model"):
        auditor.save(new, here / "fair")
    lies = load_model(ModelSpec(path=str(_skops(here))))
    new = rule(RejectOption(width=0.1), lies, rows_of(lies, "train"))
    with pytest.raises(UsageError, match="must be a folder"):
        auditor.save(new, here / "fair.skops")
    (here / "full").mkdir()
    (here / "full" / "old.txt").write_text("old")
    with pytest.raises(UsageError, match="not an empty folder"):
        auditor.save(new, here / "full")


def test_a_second_rule_is_refused_and_the_way_out_works(here: Path) -> None:
    old = load_model(ModelSpec(path=str(_skops(here))))
    rows = rows_of(old, "train")
    new = rule(ThresholdOptimizer(), old, rows)
    auditor.save(new, here / "fair")
    again = load_model(ModelSpec(path=str(here / "fair")))
    with pytest.raises(ModelError, match="already.*give the model below"):
        rule(RejectOption(), again, rows)
    below = load_model(ModelSpec(path=str(here / "fair" / "model.skops")))
    assert rule(RejectOption(), below, rows).postprocessing.decides


def _hurt(folder: Path, **changes: Any) -> None:
    path = folder / RULES_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "../m.skops"}, "not valid: model"),
        ({"model": "/etc/passwd"}, "not valid: model"),
        ({"model": None}, "config.json"),
        ({"run": "os.system"}, "not valid: run"),
        ({"format": "auditor-postprocessed/2"}, "not valid: format"),
        ({"function": "os:system"}, "either a file or a function"),
        ({"sha256": "0" * 64}, "not the one that its rules were made for"),
        ({"postprocessing": {"columns": ["group"]}}, "not valid: postprocessing"),
        ({"threshold": 7.0}, "not valid: threshold"),
    ],
)
def test_a_doctored_folder_is_refused(here: Path, changes: dict[str, Any], said: str) -> None:
    old = load_model(ModelSpec(path=str(_skops(here))))
    auditor.save(rule(RejectOption(), old, rows_of(old, "train")), here / "fair")
    _hurt(here / "fair", **changes)
    with pytest.raises(ModelError, match=said):
        load_model(ModelSpec(path=str(here / "fair")))


def test_a_pickle_of_code_stays_refused_behind_rules(here: Path) -> None:
    old = load_model(ModelSpec(path=str(_skops(here))))
    auditor.save(rule(RejectOption(), old, rows_of(old, "train")), here / "fair")
    (here / "fair" / "model.skops").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(AuditorError, match="system"):
        load_model(ModelSpec(path=str(here / "fair")))
    assert not (here / "ran").exists()
    assert not json.loads((here / "fair" / RULES_FILE).read_text()).get("trust_pickle")


def test_flags_that_contradict_the_folder_are_refused(here: Path) -> None:
    old = load_model(ModelSpec(path=str(_skops(here))))
    auditor.save(rule(RejectOption(), old, rows_of(old, "train")), here / "fair")
    auditor.save(rule(GroupCalibration(), old, rows_of(old, "train")), here / "calibrated")
    for flags, said in (
        ({"threshold": 0.4}, "leave --threshold out"),
        ({"features": ("skill",)}, "leave --features out"),
        ({"predict": "own:predict"}, "leave --predict out"),
    ):
        with pytest.raises(UsageError, match=said):
            load_model(ModelSpec(path=str(here / "fair"), **flags))  # type: ignore[arg-type]
    assert load_model(ModelSpec(path=str(here / "calibrated"), threshold=0.4)).threshold == 0.4


def test_the_group_of_a_table_may_stand_in_another_one(here: Path) -> None:
    table = pd.read_csv("train.csv").assign(person=lambda t: t.index.astype(str) + "p")
    table[["person", "group"]].to_csv("groups.csv", index=False)
    table.drop(columns="group").to_csv("blind.csv", index=False)
    old = load_model(ModelSpec(path=str(_boosted("xgboost", "json")(here))))
    beside = {"sensitive_file": "groups.csv", "join_on": "person"}
    new = rule(RejectOption(width=0.2), old, rows_of(old, "blind", **beside))
    auditor.save(new, here / "fair")
    again = load_model(ModelSpec(path="fair"))
    data = rows_of(again, "blind", **beside)
    assert np.array_equal(again.decisions(data), again.decisions(rows_of(again, "train")))
    with pytest.raises(DataError, match="group"):
        load_data(DataSpec(path="blind.csv", target="y", positive="1"), again)


# ---- texts -----------------------------------------------------------------------------------------------------------

SIDE = {"sensitive_file": "groups.csv", "join_on": "id"}


@pytest.fixture
def sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small BERT in a folder, texts without groups, and a table of the groups by their ids."""
    monkeypatch.chdir(tmp_path)
    save_small(tmp_path / "old")
    side = []
    for name, seed in (("train", 0), ("test", 1)):
        rows = texts(400, seed)
        assert rows.y_true is not None and rows.sensitive_features is not None
        ids = [f"{name}{i}" for i in range(len(rows))]
        table = pd.DataFrame({"id": ids, "text": rows.X, "y": np.where(rows.y_true == 1, "yes", "no")})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        side.append(pd.DataFrame({"id": ids, "time": rows.sensitive_features["time"].to_numpy()}))
    pd.concat(side).to_csv(tmp_path / "groups.csv", index=False)
    return tmp_path


def spec(name: str, **more: Any) -> DataSpec:
    return DataSpec(path=f"{name}.csv", target="y", positive="yes", text="text", sensitive=("time",), **more)


def test_a_folder_of_transformers_keeps_its_files_and_is_told_the_groups(sentences: Path) -> None:
    old = load_model(ModelSpec(path="old"))
    new = rule(ThresholdOptimizer(), old, load_data(spec("train", **SIDE), old))
    auditor.save(new, "fair")
    files = {p.name for p in Path("old").iterdir()}
    assert {p.name for p in Path("fair").iterdir()} == files | {RULES_FILE}
    for name in files:
        assert (Path("fair") / name).read_bytes() == (Path("old") / name).read_bytes()
    again = load_model(ModelSpec(path="fair"))
    assert isinstance(again, PostprocessedModel) and again.features is None
    test = load_data(spec("test", **SIDE), again)
    assert test.modality == "text" and test.sensitive_features is not None
    # By hand: each text's score, by the rule of its group.
    scores = old.predict_proba(np.asarray([str(text) for text in test.X], object))[:, 1]
    rules = {g.group[0]: g.rule for g in new.postprocessing.groups}
    for group, steps in rules.items():
        mask = (test.sensitive_features["time"].astype(str) == group).to_numpy()
        assert mask.any() and np.abs(again.outputs(test)[mask, 1] - steps(scores[mask])).max() < 1e-9
    assert np.array_equal(again.decisions(test)[::-1], again.decisions(test.take(np.arange(len(test))[::-1])))
    both = load_data(replace(spec("test", **SIDE), train="train.csv"), again)
    assert len(again.outputs(both)) == 800


def test_texts_without_a_group_are_never_decided_by_guess(sentences: Path) -> None:
    old = load_model(ModelSpec(path="old"))
    rows = load_data(spec("train", **SIDE), old)
    new = rule(RejectOption(), old, rows)
    with pytest.raises(DataError, match="--sensitive time, with --sensitive-file"):
        load_data(replace(spec("test"), sensitive=()), new)
    plain = np.asarray(["good day", "bad night"], object)
    with pytest.raises(NotApplicableError, match="before it was post-processed"):
        new.predict_proba(plain)
    told = attach_groups(plain, pd.DataFrame({"time": ["day", "night"]}))
    assert new.predict_proba(told).shape == (2, 2)
    with pytest.raises(DataError, match="--sensitive time"):
        new.predict_proba(attach_groups(plain, pd.DataFrame({"other": ["day", "night"]})))


def test_probes_of_changed_texts_say_that_nobody_knows_their_group(sentences: Path) -> None:
    from auditor.run.run_audit import run_audit
    from probes import PROBES

    old = load_model(ModelSpec(path="old"))
    new = rule(RejectOption(width=0.2), old, load_data(spec("train", **SIDE), old))
    data = load_data(spec("test", **SIDE), new).take(slice(60))
    names = ("group_fairness", "robustness", "counterfactual_token_fairness", "feature_attribution")
    report = run_audit(new, data, [PROBES[name]() for name in names])
    outcomes = {name: {f.outcome for f in report.findings if f.probe == name} for name in names}
    assert all_of(outcomes[name] == {"NOT_APPLICABLE"} for name in names[1:])
    assert "NOT_APPLICABLE" not in outcomes["group_fairness"]
    reasons = [f.reason or "" for f in report.findings if f.outcome == "NOT_APPLICABLE"]
    assert all_of("before it was post-processed" in reason for reason in reasons)


# Deprecated, and still what people have files of.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_program_behind_rules_runs_only_where_the_user_says_so(here: Path) -> None:
    import torch

    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(3, 2)), str(here / "m.pt"))
    flags: dict[str, Any] = {"classes": ("0", "1"), "outputs": "logits", "features": ("skill", "other")}
    old = load_model(ModelSpec(path=str(here / "m.pt"), allow_code=True, **flags))
    new = rule(RejectOption(width=0.1), old, rows_of(old, "train", features=flags["features"]))
    auditor.save(new, here / "fair")
    with pytest.raises(ModelError, match="--allow-code"):
        load_model(ModelSpec(path=str(here / "fair")))
    again = load_model(ModelSpec(path=str(here / "fair"), allow_code=True))
    test = rows_of(again, "test")
    assert np.array_equal(again.decisions(test), new.decisions(test))
