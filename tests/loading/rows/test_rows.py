"""From a table on disk to the rows of an audit: every treatment is noted, every impossibility is one sentence."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder
from sklearn.tree import DecisionTreeClassifier

from auditor.core.errors import AuditorError, DataError, UsageError
from auditor.data.audit_data import AuditData, encode_labels, favourable
from auditor.data.bins import bin_values, parse_bin_rule, suggested_edges
from auditor.data.group_counts import MISSING, count_groups
from auditor.data.preprocessing import fit_tabular, label_name
from auditor.judging.measurement import Measurement
from auditor.loading.estimators import EstimatorModel
from auditor.loading.job_specs import DataSpec, Job, Limits, ModelSpec, ProbeSpec
from auditor.loading.rows.column_roles import id_like
from auditor.loading.rows.load_rows import load_data
from auditor.loading.rows.streamed_rows import Stream, can_stream
from auditor.loading.rows.table_files import open_table
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.group_sizes import missing_in, sizes_in
from auditor.run import child_jobs
from auditor.run.job_messages import Message
from auditor.run.probe import Need
from auditor.run.run_audit import data_record, files_result
from tests.quantifiers import none_of


def model(
    frame: pd.DataFrame | None = None, features: tuple[str, ...] | None = ("a", "b"), **more: object
) -> AuditedModel:
    preprocessing = None if frame is None else fit_tabular(frame)
    return AuditedModel(
        lambda X: (np.asarray(X["a"], float) > 0).astype(float),
        classes=["no", "yes"],
        features=features,
        preprocessing=preprocessing,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 200
    return pd.DataFrame(
        {
            "a": rng.normal(size=n).round(3),
            "b": rng.choice(["u", "v"], n),
            "y": rng.choice(["yes", "no"], n),
            "sex": rng.choice(["f", "m"], n),
        }
    )


def write(frame: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


def spec(path: str, **more: object) -> DataSpec:
    return DataSpec(path=path, **({"target": "y", "positive": "yes", "sensitive": ("sex",)} | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_every_format_gives_the_same_rows(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    data = load_data(spec(write(frame, tmp_path / f"data{suffix}")), model())
    assert isinstance(data.X, pd.DataFrame) and data.y_true is not None and data.sensitive_features is not None
    np.testing.assert_allclose(data.X["a"], frame["a"])
    assert data.X["b"].tolist() == frame["b"].tolist()
    assert data.y_true.tolist() == (frame["y"] == "yes").astype(int).tolist()
    assert data.sensitive_features["sex"].astype(str).tolist() == frame["sex"].tolist()
    assert data.positive == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_streamed_counts_equal_pandas(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    frame.loc[3, "sex"] = None
    audited = model(frame[["a", "b"]])
    asked = spec(write(frame, tmp_path / f"data{suffix}"))
    assert can_stream(asked, audited)
    counts = Stream(asked, audited).count_by_group()[0].group_by(["sex"])
    expected = (frame.assign(sex=frame["sex"].fillna(MISSING), p=frame["a"] > 0)).groupby(["sex", "y", "p"]).size()
    for g, (name,) in enumerate(counts.groups):
        for t, label in enumerate(["no", "yes"]):
            for p in (0, 1):
                assert counts.table[g, t, p] == expected.get((name, label, bool(p)), 0)


def spoiled(**columns: object):  # type: ignore[no-untyped-def]
    return lambda f: f.assign(**columns)


def with_holes(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[:4, "a"] = None
    frame.loc[3:9, "b"] = None
    frame.loc[7:20, "sex"] = None
    return frame


def unlabelled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(y=frame["y"].mask(frame.index < 12))


KINDS = {
    "clean": lambda f: f,
    "empty feature": spoiled(a=np.nan),
    "empty target": spoiled(y=None),
    "no rows": lambda f: f.head(0),
    "holes": with_holes,
    "single class": spoiled(y="yes"),
    "unlabelled rows": unlabelled,
    "a strange label": spoiled(y="perhaps"),
    "many groups": lambda f: pd.concat([f] * 3).assign(sex=[f"s{i}" for i in range(600)]),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_streamed_rows_are_checked_like_rows_in_memory(
    frame: pd.DataFrame, tmp_path: Path, kind: str, suffix: str
) -> None:
    audited = model(frame[["a", "b"]])
    asked = spec(write(KINDS[kind](frame), tmp_path / f"d{suffix}"), sensitive=("sex", "sex"))
    assert can_stream(asked, audited)
    try:
        data = load_data(asked, audited)
    except DataError as error:
        with pytest.raises(DataError) as caught:
            Stream(asked, audited).count_by_group()
        assert str(caught.value) == str(error)
        assert kind in ("empty feature", "empty target", "no rows", "a strange label", "many groups")
        return
    holes: Counter[str] = Counter()
    counts, notes = Stream(asked, audited).count_by_group(holes=holes)
    record = data_record(data)
    assert sizes_in(counts) == record.groups
    assert missing_in(counts, True, holes) == record.missing
    assert data.sensitive_features is not None
    codes = data.sensitive_features["sex"].cat
    expected = count_groups(
        audited.decisions(data),
        data.y_true,
        [(codes.codes.to_numpy(), list(codes.categories))],
        features=("sex",),
        classes=("no", "yes"),
        positive=1,
    )
    assert notes == data.notes and bool(notes) == (kind != "clean")
    assert counts.features == ("sex",) and counts.n == len(data)
    np.testing.assert_array_equal(counts.group_by(["sex"]).table, expected.group_by(["sex"]).table)
    assert counts.group_by(["sex"]).groups == expected.group_by(["sex"]).groups


class Heard:
    """A channel to nobody."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def of(self, kind: str) -> list[Any]:
        return [m for m in self.messages if m.kind == kind]


class Silent:
    """A probe of rows that says nothing."""

    name = "silent"
    pillar = "fairness"
    goal = "Nothing."
    citation = "none"
    methods = ()
    needs: tuple[Need, ...] = ()

    def measure(self, model: object, data: object, rng: object) -> list[Measurement]:
        return []


class OfCounts(Silent):
    """A probe of counts that needs what a stream never has."""

    needs = (Need.TRAIN,)

    def measure_counts(self, counts: object) -> list[Measurement]:
        raise AssertionError("it was asked without training rows")


class OfRows(Silent):
    """A probe of counts that its options have made one of rows."""

    counts_suffice = False

    def measure_counts(self, counts: object) -> list[Measurement]:
        raise AssertionError("it was asked without rows")


FAIR = ProbeSpec(name="group_fairness", target="probes.fairness.group_fairness:GroupFairness")


def heard(folder: Path, frame: pd.DataFrame, *probes: ProbeSpec, **columns: object) -> Heard:
    rows = pd.DataFrame({"a": [0.0, 1.0], "b": ["u", "v"]})
    torch.manual_seed(0)
    args = {"n_features": 3, "hidden": [4], "n_outputs": 2}
    audited = TorchModel(
        MLP(3, [4], 2),
        classes=["no", "yes"],
        preprocessing=fit_tabular(rows),
        architecture={"name": "mlp", "args": args},
    )
    save(audited, folder / "model.pt")
    channel = Heard()
    job = Job(
        model=ModelSpec(path=str(folder / "model.pt")),
        data=spec(write(frame, folder / "d.csv"), **columns),
        probes=probes,
        seed=0,
        limits=Limits(memory_bytes=4 << 30, seconds=60),
    )
    child_jobs.run(job, channel)  # type: ignore[arg-type]
    return channel


@pytest.mark.parametrize("kind", KINDS)
def test_the_child_answers_the_same_streaming_or_not(frame: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    beside = ProbeSpec(name="silent", target="tests.loading.rows.test_rows:Silent")
    said = []
    for probes in ([FAIR], [FAIR, beside]):
        try:
            channel = heard(tmp_path, KINDS[kind](frame), *probes, sensitive=("sex", "sex"))
        except DataError as error:
            said.append(str(error))
        else:
            fair = next(m.result for m in channel.of("answered") if m.result.probe == "group_fairness")
            assert fair.measurements and not fair.not_run
            said.append((channel.of("data"), sorted(map(repr, fair.measurements))))
    assert said[0] == said[1]


def test_a_counts_probe_of_the_users_own_goes_by_the_name_it_was_given(frame: pd.DataFrame, tmp_path: Path) -> None:
    mine = ProbeSpec(name="mine", target="tests.loading.rows.test_rows:OfCounts")
    channel = heard(tmp_path, frame, mine, FAIR)
    assert [m.probe for m in channel.of("asking")] == ["mine", "group_fairness"]
    results = {m.result.probe: m.result for m in channel.of("answered")}
    assert "--train" in results["mine"].not_applicable and results["group_fairness"].measurements


def test_a_probe_whose_options_need_rows_gets_rows(frame: pd.DataFrame, tmp_path: Path) -> None:
    channel = heard(tmp_path, frame, ProbeSpec(name="of_rows", target="tests.loading.rows.test_rows:OfRows"))
    assert [m.result.not_run for m in channel.of("answered") if m.result.probe == "of_rows"] == [""]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_sensitive_column_that_is_a_feature_reaches_the_model_as_it_is(
    frame: pd.DataFrame, tmp_path: Path, suffix: str
) -> None:
    frame["code"] = np.arange(len(frame)) % 2
    audited = AuditedModel.from_callable(
        lambda X: (X["code"] == 1).to_numpy(float), classes=["no", "yes"], features=["a", "code"]
    )
    data = load_data(spec(write(frame, tmp_path / f"d{suffix}"), sensitive=("code", "sex")), audited)
    assert isinstance(data.X, pd.DataFrame) and data.X["code"].tolist() == frame["code"].tolist()
    assert data.sensitive_features is not None
    assert data.sensitive_features["code"].tolist() == frame["code"].astype(str).tolist()
    assert audited.decisions(data).tolist() == frame["code"].tolist()


def test_a_csv_file_reaches_the_model_as_pandas_reads_it(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Else an encoder that was fitted on it takes every value for a new one, and ignores it."""
    n = len(frame)
    frame["day"] = np.where(np.arange(n) % 2, "2026-01-02", "2025-03-01")
    frame["clock"] = np.where(np.arange(n) % 3, "08:30:00", "23:00:00")
    frame["moment"] = frame["day"] + "T" + frame["clock"] + "Z"
    frame["flag"] = [None if i % 7 == 0 else bool(i % 2) for i in range(n)]
    path = write(frame, tmp_path / "d.csv")
    names = ("day", "clock", "moment", "flag")
    rows = load_data(spec(path), AuditedModel.from_callable(lambda X: X, classes=["no", "yes"], features=names)).X
    expected = pd.read_csv(path)[list(names)]
    assert isinstance(rows, pd.DataFrame)
    for name in names:
        assert [*map(repr, rows[name])] == [*map(repr, expected[name])]


def test_whole_numbers_that_become_fractions_stream_from_json(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditor.loading.rows.table_files.BLOCK_BYTES", 2000)
    frame["a"] = np.where(np.arange(200) < 150, 1, -0.5)
    frame["y"], frame["sex"] = np.arange(200) % 2, np.where(np.arange(200) < 150, 7, 8)
    rows = [
        f'{{"a": {a:g}, "b": "{b}", "y": {y}, "sex": {s}, "more": [1]}}'
        for a, b, y, s in frame[["a", "b", "y", "sex"]].itertuples(index=False)
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(rows))
    audited = model(frame[["a", "b"]])
    asked = spec(str(tmp_path / "d.jsonl"), positive="1", classes=("0", "1"))
    counts = Stream(asked, audited).count_by_group()[0].group_by(["sex"])
    assert counts.groups == (("7",), ("8",)) and counts.sizes().tolist() == [150, 50]
    assert counts.selected().tolist() == [150, 0]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["a", "sex"])
def test_a_column_of_lists_is_refused(frame: pd.DataFrame, tmp_path: Path, suffix: str, column: str) -> None:
    asked = spec(write(frame.assign(**{column: [[1.0, 2.0]] * 200}), tmp_path / f"d{suffix}"))
    for audited in (model(), model(frame[["a", "b"]])):
        with pytest.raises(DataError):
            load_data(asked, audited)
    with pytest.raises(DataError):
        Stream(asked, audited).count_by_group()


def test_a_number_that_is_none_is_a_missing_group_when_streamed_too(frame: pd.DataFrame, tmp_path: Path) -> None:
    audited = model(frame[["a", "b"]])
    table = pa.Table.from_pandas(frame.assign(a=[np.nan, 1.0, 2.0, 1.5] * 50), preserve_index=False)
    column = pa.array([float("nan"), 1.0, None, 1.5] * 50, from_pandas=False)
    table = table.set_column(table.schema.get_field_index("a"), "a", column)
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    counts, notes = Stream(spec(str(tmp_path / "d.parquet"), sensitive=("a",)), audited).count_by_group()
    sizes = dict(zip([g for (g,) in counts.groups], counts.sizes().tolist(), strict=True))
    assert sizes == {MISSING: 100, "1": 50, "1.5": 50}
    assert any("a (100)" in note for note in notes)


def test_missing_categories_are_a_group_and_no_neighbour() -> None:
    groups = pd.DataFrame({"g": pd.Categorical(["a", None, "b", "b"]), "h": ["x", "y", None, "x"]})
    data = AuditData(X=np.zeros((4, 1)), sensitive_features=groups)
    assert data.sensitive_features is not None
    assert data.sensitive_features["g"].tolist() == ["a", MISSING, "b", "b"]
    assert list(data.sensitive_features["g"].cat.categories) == ["a", "b", MISSING]
    assert data.sensitive_features["h"].tolist() == ["x", "y", MISSING, "x"]
    counts = count_groups(
        np.zeros(3, int), None, [(np.array([-1, 0, 1]), ["a", MISSING])], features=("g",), classes=("0", "1")
    )
    assert counts.groups == (("a",), (MISSING,)) and counts.sizes().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        ("1.0", "1"),
        (True, "True"),
        ("true", "True"),
        ("a b", "a b"),
        (0.5, "0.5"),
        ("001", "001"),
        ("nan", "nan"),
        ("1e3", "1e3"),
    ],
)
def test_a_label_has_one_spelling(typed: object, name: str) -> None:
    assert label_name(typed) == name


def test_a_level_is_known_however_its_file_spells_it() -> None:
    fitted = fit_tabular(pd.DataFrame({"b": ["true", "false", "true"]}))
    for values in (["True", "False"], [True, False], ["true", "false"]):
        np.testing.assert_array_equal(fitted.encode(pd.DataFrame({"b": values})), [[0, 1], [1, 0]])


def test_labels_that_are_no_class_are_named() -> None:
    with pytest.raises(DataError, match="'maybe'.*--classes"):
        encode_labels(pd.Series(["yes", "maybe"]), ["no", "yes"], "y")


def test_missing_labels_are_noted_and_kept_for_selection_rates(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[:9, "y"] = None
    data = load_data(spec(write(frame, tmp_path / "d.csv")), model())
    assert data.y_true is not None and (data.y_true < 0).sum() == 10
    assert any("10 rows of d.csv have no label" in note for note in data.notes)


def test_a_single_class_target_is_noted(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = load_data(spec(write(frame.assign(y="yes"), tmp_path / "d.csv")), model())
    assert any("one class only (yes)" in note for note in data.notes)


def test_missing_feature_values_are_noted(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[:4, "a"] = None
    data = load_data(spec(write(frame, tmp_path / "d.csv")), model(frame[["a", "b"]]))
    assert any("a (5)" in note and "preprocessing" in note for note in data.notes)


def test_the_favourable_label_is_implied_for_0_1_and_booleans_only() -> None:
    assert favourable(None, ["0", "1"]) == 1
    assert favourable(None, ["False", "True"]) == 1
    assert favourable(None, ["no", "yes"]) is None
    assert favourable("no", ["no", "yes"]) == 0
    with pytest.raises(UsageError, match="did you mean 'yes'"):
        favourable("yess", ["no", "yes"])


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"target": "Y"}, UsageError, "did you mean 'y'"),
        ({"sensitive": ("six",)}, UsageError, "did you mean 'sex'"),
        ({"features": ("aa",)}, UsageError, "did you mean 'a'"),
        ({"classes": ("no", "yes", "perhaps")}, UsageError, "2 outputs"),
        ({"sensitive_file": "side.csv"}, UsageError, "--join-on"),
    ],
)
def test_what_does_not_fit_says_what_would(
    frame: pd.DataFrame, tmp_path: Path, change: dict[str, object], kind: type[AuditorError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        load_data(spec(write(frame, tmp_path / "d.csv"), **change), model())


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: f.drop(columns="a"), "needs the feature 'a'"),
        (lambda f: f.assign(y=None), "every label is missing"),
        (lambda f: f.assign(a=np.nan), "'a' of d.csv is empty"),
        (lambda f: f.head(0), "no rows"),
    ],
)
def test_data_that_cannot_be_used(frame: pd.DataFrame, tmp_path: Path, spoil: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_data(spec(write(spoil(frame), tmp_path / "d.csv")), model())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("d.csv", b"", "is empty"),
        ("d.csv", b"a,a\n1,2\n", "two columns named 'a'"),
        ("d.parquet", b"PAR1 not really", "is a Parquet file that is cut short"),
        ("d.jsonl", b"[1, 2", "line 1 is no JSON object"),
        ("d.csv.gz", b"\x1f\x8b", "no whole gzip file"),
        ("d.csv.bz2", b"BZh", "unpack it"),
        ("d.xlsx", b"PK", "must end in"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AuditorError, match=says):
        open_table(tmp_path / name)


def test_a_ragged_csv_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match="row 3 .* has 1 cell") as caught:
        open_table(tmp_path / "d.csv").read(["a", "b"], {})
    assert "\n" not in str(caught.value)


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "d.csv")
    with pytest.raises(UsageError, match="not a regular file"):
        open_table(tmp_path / "d.csv")


def test_overlap_is_counted_aloud_and_nothing_is_left_out(frame: pd.DataFrame, tmp_path: Path) -> None:
    train = pd.concat([frame.head(30), frame.assign(a=frame["a"] + 100).tail(50)])
    path, other = write(frame, tmp_path / "d.csv"), write(train, tmp_path / "t.csv")
    data = load_data(spec(path, train=other), model())
    assert len(data.evaluation) == 200 and data.members is not None and len(data.members) == 80
    assert any("30 of 200 evaluation rows stand in the training file too" in note for note in data.notes)
    whole = write(frame.assign(a=1, y="yes"), tmp_path / "whole.csv")
    holes = write(frame.assign(a=[None] + [1] * 199, y="yes"), tmp_path / "holes.csv")
    assert any("stand in the training file" in n for n in load_data(spec(whole, train=holes), model()).notes)


def test_training_rows_need_no_groups(frame: pd.DataFrame, tmp_path: Path) -> None:
    other = write(frame.assign(a=frame["a"] + 100).drop(columns="sex"), tmp_path / "t.csv")
    data = load_data(spec(write(frame, tmp_path / "d.csv"), train=other), model())
    assert data.sensitive_features is not None and data.evaluation.sensitive_features is not None
    assert data.evaluation.sensitive_features["sex"].astype(str).tolist() == frame["sex"].tolist()


def test_groups_may_lie_in_a_file_of_their_own(frame: pd.DataFrame, tmp_path: Path) -> None:
    keyed = frame.assign(id=np.arange(len(frame)) + 10)
    side = keyed[["id", "sex"]].sample(frac=1.0, random_state=0)
    asked = spec(
        write(keyed.drop(columns="sex"), tmp_path / "d.csv"),
        sensitive_file=write(side, tmp_path / "side.csv"),
        join_on="id",
    )
    data = load_data(asked, model())
    assert data.sensitive_features is not None
    assert data.sensitive_features["sex"].astype(str).tolist() == frame["sex"].tolist()
    twice = write(pd.concat([side, side.head(1)]), tmp_path / "twice.csv")
    with pytest.raises(DataError, match="twice"):
        load_data(spec(asked.path, sensitive_file=twice, join_on="id"), model())


def test_keys_match_as_text_and_missing_ones_match_nobody(frame: pd.DataFrame, tmp_path: Path) -> None:
    keyed = frame.assign(id=[f"{i:05d}" for i in range(len(frame))])
    side = pd.concat([keyed[["id", "sex"]].tail(-3), pd.DataFrame({"id": [None, None], "sex": ["m", "f"]})])
    keyed.loc[3:4, "id"] = None
    asked = spec(
        write(keyed.drop(columns="sex"), tmp_path / "d.csv"),
        sensitive_file=write(side, tmp_path / "side.csv"),
        join_on="id",
    )
    data = load_data(asked, model())
    assert data.sensitive_features is not None
    assert data.sensitive_features["sex"].tolist() == [MISSING] * 5 + frame["sex"].tolist()[5:]
    assert f"5 of 200 rows have no entry in side.csv and are the group {MISSING}." in data.notes


def test_the_evaluation_file_decides_what_the_features_are(frame: pd.DataFrame, tmp_path: Path) -> None:
    numbered = frame.assign(code=np.arange(200))
    repeated = frame.assign(a=frame["a"] + 100, code=7)
    path = write(numbered, tmp_path / "d.csv")
    data = load_data(spec(path, train=write(repeated, tmp_path / "t.csv")), model(features=None))
    assert isinstance(data.X, pd.DataFrame) and list(data.X.columns) == ["a", "b", "sex"]
    path = write(repeated, tmp_path / "d.csv")
    data = load_data(spec(path, train=write(numbered, tmp_path / "t.csv")), model(features=None))
    assert isinstance(data.X, pd.DataFrame) and list(data.X.columns) == ["a", "b", "sex", "code"]
    lacking = write(repeated.drop(columns="b"), tmp_path / "t.csv")
    with pytest.raises(DataError, match="t.csv' has no column 'b', which is a feature in d.csv"):
        load_data(spec(path, train=lacking), model(features=None))


def test_a_continuous_group_is_binned_as_asked(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["age"] = np.arange(len(frame)) % 70
    frame.loc[0, "age"] = None
    asked = spec(write(frame, tmp_path / "d.csv"), sensitive=("age", "sex"), bins=("age=18,60",))
    data = load_data(asked, model())
    assert data.sensitive_features is not None
    expected = [
        "(missing)" if np.isnan(a) else "< 18" if a < 18 else "[18, 60)" if a < 60 else ">= 60" for a in frame["age"]
    ]
    assert data.sensitive_features["age"].astype(str).tolist() == expected


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_continuous_group_is_refused_with_the_bins_to_copy(
    frame: pd.DataFrame, tmp_path: Path, suffix: str, streamed: bool
) -> None:
    frame["age"] = np.arange(len(frame)) % 70 + 18
    frame["in, come"] = np.random.default_rng(0).lognormal(10, 1, len(frame)).round(2)
    frame["grade"] = np.arange(len(frame)) % 20
    frame["street"] = [f"street {i % 60}" for i in range(len(frame))]
    path, audited = write(frame, tmp_path / f"d{suffix}"), model(frame[["a", "b"]])
    read = (lambda *asked: Stream(*asked).count_by_group()) if streamed else load_data
    with pytest.raises(
        UsageError, match=r"'age' holds 70 different numbers.* --bins age=[\d,]+, or --bins age=values "
    ):
        read(spec(path, sensitive=("sex", "age")), audited)
    with pytest.raises(UsageError, match=r"--bins 'in, come=\d+,\d+,\d+', or --bins 'in, come=values'"):
        read(spec(path, sensitive=("in, come",)), audited)
    read(spec(path, sensitive=("grade", "street")), audited)


def test_the_line_of_the_refusal_is_taken(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["in, come"] = np.random.default_rng(0).lognormal(10, 1, len(frame)).round(2)
    path = write(frame, tmp_path / "d.csv")
    with pytest.raises(UsageError) as caught:
        load_data(spec(path, sensitive=("in, come",)), model())
    said = shlex.split(str(caught.value))
    rules = [said[i + 1].rstrip(",") for i, word in enumerate(said) if word == "--bins"]
    groups = [
        load_data(spec(path, sensitive=("in, come",), bins=(rule,)), model()).sensitive_features for rule in rules
    ]
    assert groups[0] is not None and groups[1] is not None
    assert groups[0]["in, come"].value_counts().min() > 30 and groups[0]["in, come"].nunique() == 4
    assert groups[1]["in, come"].nunique() == frame["in, come"].nunique()


@pytest.mark.parametrize("streamed", [True, False])
def test_cells_that_are_too_small_are_counted(frame: pd.DataFrame, tmp_path: Path, streamed: bool) -> None:
    frame = pd.concat([frame] * 10, ignore_index=True)
    frame["job"] = ["common" if i % 4 else f"job {i // 4 % 59}" for i in range(len(frame))]
    path, audited = write(frame, tmp_path / "d.parquet"), model(frame[["a", "b"]])
    asked = spec(path, sensitive=("job", "sex"))
    notes = Stream(asked, audited).count_by_group()[1] if streamed else load_data(asked, audited).notes
    cells = frame.groupby(["job", "y"]).size().unstack(fill_value=0)
    small = int((cells < 30).to_numpy().sum())
    assert small > 100 and cells.size == 120
    assert any(f"{small} of the 120 cells of 60 groups of job by 2 labels have fewer than 30 rows" in n for n in notes)
    assert any("groups of job x sex by 2 labels" in n for n in notes)
    assert none_of("groups of sex" in n for n in notes)


def test_edges_are_decades_of_an_age_and_else_quartiles_of_two_digits() -> None:
    for values, edges in (
        (np.arange(17.0, 91.0), "30,40,50,60,70,80"),
        (np.arange(0.0, 121.0), "20,40,60,80,100"),
        (np.arange(18.0, 66.0), "30,40,50,60"),
        (np.arange(0.0, 2_000_001.0), "500000,1000000,1500000"),
        (np.linspace(-1.0, 1.0, 401), "-0.5,0,0.5"),
        (np.array([0.0] * 900 + list(range(0, 100_000, 1_000))), "quantiles:4"),
        (np.array([np.inf, -np.inf]), "quantiles:4"),
    ):
        assert suggested_edges(values) == edges
        rule = parse_bin_rule(f"x={edges}")
        codes, labels = bin_values(values, rule)
        if rule.quantiles != 4:
            assert set(codes.tolist()) == set(range(len(labels)))


def test_whole_numbers_are_binned_as_all_others_are() -> None:
    rng = np.random.default_rng(0)
    made: list[Callable[[int], npt.NDArray[np.int64]]] = [
        lambda n: rng.integers(0, 7, n),
        lambda n: rng.integers(0, 60, n),
        lambda n: rng.poisson(0.3, n),
    ]
    for i in range(60):
        values = made[i % 3](int(rng.integers(1, 90))).astype(float)
        for n_bins in (2, 10):
            rule = parse_bin_rule(f"x=quantiles:{n_bins}")
            codes, labels = bin_values(values, rule)
            # The same order of numbers that are not whole, which are looked up one by one.
            halves, same = bin_values(values / 2.0 + 0.25, rule)
            np.testing.assert_array_equal(codes, halves)
            assert [label[0] for label in labels] == [label[0] for label in same]


def test_columns_that_name_rows_are_recognised() -> None:
    n = 50
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "row": np.arange(1, n + 1),
            "uuid": [f"id-{i:05d}" for i in range(n)],
            "age": rng.integers(18, 90, n),
            "score": rng.normal(size=n),
            "zip": rng.choice(["a", "b"], n),
        }
    )
    assert id_like(frame) == ["row", "uuid"]


def test_a_model_without_names_of_its_own_gets_every_other_column(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = write(frame.assign(id=np.arange(len(frame))), tmp_path / "d.csv")
    data = load_data(spec(path), model(features=None))
    assert isinstance(data.X, pd.DataFrame) and list(data.X.columns) == ["a", "b", "sex"]
    assert any("id" in note and "left out" in note for note in data.notes)


def test_rows_and_labels_must_be_as_many() -> None:
    with pytest.raises(DataError, match="y_true has 2 rows, X has 3"):
        AuditData.from_arrays(np.zeros((3, 1)), [0, 1], classes=[0, 1])


def test_too_many_combinations_of_groups_are_refused_not_allocated() -> None:
    many = np.arange(3000)
    with pytest.raises(ValueError, match="bin or drop"):
        count_groups(
            np.zeros(3000, int), None, [(many, list(map(str, many)))] * 2, features=("a", "b"), classes=("0", "1")
        )


def test_parquet_with_a_dictionary_column_reads_as_text(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = pa.Table.from_pandas(frame)
    index = table.schema.get_field_index("sex")
    table = table.set_column(index, "sex", table.column("sex").dictionary_encode())
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    data = load_data(spec(str(tmp_path / "d.parquet")), model())
    assert data.sensitive_features is not None
    assert data.sensitive_features["sex"].astype(str).tolist() == frame["sex"].tolist()


def _encoded(make: Callable[[Any], Any], column: Any, y: Any) -> EstimatorModel:
    """A classifier of column b as this encoding gives it, and of a."""
    X = pd.DataFrame({"a": np.arange(len(column)) % 7 / 7.0, "b": column})
    fitted = make(DecisionTreeClassifier(max_depth=3, random_state=0)).fit(X, y)
    return EstimatorModel(
        fitted, classes=["no", "yes"], features=("a", "b"), threshold=None, provenance=Provenance(format="t")
    )


def _columnwise(*steps: Any, columns: Any = ("b",)) -> Callable[[Any], Any]:
    chosen = list(columns) if isinstance(columns, tuple) else columns
    return lambda tree: make_pipeline(
        ColumnTransformer([("b", make_pipeline(*steps), chosen)], remainder="passthrough"), tree
    )


_NEW_TAKEN = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
ENCODINGS: dict[str, Callable[[Any], Any]] = {
    "one_hot": _columnwise(_NEW_TAKEN),
    "by_place": _columnwise(_NEW_TAKEN, columns=(1,)),
    "by_mask": _columnwise(_NEW_TAKEN, columns=(False, True)),
    "infrequent": _columnwise(OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=2)),
    "ordinal": _columnwise(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
    "target": _columnwise(TargetEncoder()),
    "after_filling": _columnwise(SimpleImputer(strategy="most_frequent"), _NEW_TAKEN),
    "whole_table": lambda tree: make_pipeline("passthrough", _NEW_TAKEN, tree),
    "searched": lambda tree: GridSearchCV(_columnwise(_NEW_TAKEN)(tree), {"decisiontreeclassifier__max_depth": [2]}),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_values_that_are_all_new_to_an_encoder_are_refused(encoding: str, tmp_path: Path) -> None:
    """Truth values that were texts when the model was fitted, and are none in the file."""
    truth = np.random.default_rng(0).random(200) < 0.5
    y = np.where(truth, "yes", "no")
    known = _encoded(ENCODINGS[encoding], np.where(truth, "True", "False").astype(object), y)
    gaps = pd.Series(truth, dtype=object).mask(np.arange(200) % 10 == 0)
    rows = pd.DataFrame({"a": np.arange(200) % 7 / 7.0, "b": gaps, "y": y})
    path = write(rows, tmp_path / "d.csv")
    says = r"Column 'b' of d.csv: 180 of 180 values are new.*\(here (True|False), there 'False'\), or .*--predict"
    with pytest.raises(DataError, match=says):
        load_data(spec(path, sensitive=()), known)
    text = write(rows.assign(b=np.where(truth, "True", "False")), tmp_path / "text.parquet")
    assert none_of("new to the model" in note for note in load_data(spec(text, sensitive=()), known).notes)


@pytest.mark.parametrize("n_new", [0, 1, 99, 100, 200])
def test_values_that_are_new_to_an_encoder_are_counted(n_new: int, tmp_path: Path) -> None:
    y = np.where(np.arange(200) % 2, "yes", "no")
    known = _encoded(ENCODINGS["one_hot"], y.astype(object), y)
    rows = pd.DataFrame({"a": np.arange(200) % 7 / 7.0, "b": y, "y": y})
    rows.loc[: n_new - 1, "b"] = "perhaps"
    notes = load_data(spec(write(rows, tmp_path / "d.csv"), sensitive=()), known).notes
    expected = f"{n_new} of 200 values are new to the model"
    assert [expected in note for note in notes if "new to" in note] == [True] * (n_new > 0)
    assert [("spelled" in note) == (n_new >= 100) for note in notes if "new to" in note] == [True] * (n_new > 0)


def test_rows_that_an_encoder_refuses_are_left_out_and_named(tmp_path: Path) -> None:
    y = np.where(np.arange(200) % 2, "yes", "no")
    known = _encoded(_columnwise(OneHotEncoder()), y.astype(object), y)
    rows = pd.DataFrame({"a": np.arange(200) % 7 / 7.0, "b": ["?"] * 3 + y[3:].tolist(), "y": y})
    data = load_data(spec(write(rows, tmp_path / "d.csv"), sensitive=()), known)
    assert len(data) == 197 and list(data.unreadable) == [f"Row {i} of d.csv: b is '?'." for i in (1, 2, 3)]
    assert sum("3 of 200 values are new" in note and "in no number here" in note for note in data.notes) == 1
    np.testing.assert_array_equal(known.decisions(data), y[3:] == "yes")
    record = data_record(data)
    (found,) = files_result(record)
    assert (
        record.n_rows == 197
        and found.not_run is not None
        and found.not_run.startswith("3 files or rows could not be read or")
    )


def test_an_encoder_that_refuses_most_rows_is_asked_about_none(tmp_path: Path) -> None:
    y = np.where(np.arange(200) % 2, "yes", "no")
    known = _encoded(_columnwise(OneHotEncoder()), y.astype(object), y)
    rows = pd.DataFrame({"a": np.arange(200) % 7 / 7.0, "b": ["?"] * 101 + y[101:].tolist(), "y": y})
    with pytest.raises(DataError, match=r"101 of 200 values are new.*OneHotEncoder refuses.*spelled as in training"):
        load_data(spec(write(rows, tmp_path / "d.csv"), sensitive=()), known)


def test_values_that_are_new_to_a_bundle_are_counted(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": np.arange(20.0), "b": ["u", "v"] * 10, "y": ["no", "yes"] * 10})
    model = AuditedModel(
        lambda X: np.full(len(X), 0.5),
        classes=["no", "yes"],
        features=("a", "b"),
        preprocessing=fit_tabular(rows[["a", "b"]]),
    )
    rows.loc[3, "b"] = "w"
    notes = load_data(spec(write(rows, tmp_path / "d.csv"), sensitive=()), model).notes
    assert sum("Column 'b' of d.csv: 1 of 20 values are new to the model" in note for note in notes) == 1


@pytest.mark.parametrize(
    "make",
    [
        _columnwise(FunctionTransformer(lambda table: table.astype(str)), _NEW_TAKEN),
        _columnwise(SimpleImputer(missing_values="?", strategy="constant", fill_value="no"), _NEW_TAKEN),
    ],
    ids=["changed_before", "filled_before"],
)
def test_an_encoder_that_gets_other_values_is_left_alone(make: Callable[[Any], Any], tmp_path: Path) -> None:
    y = np.where(np.arange(200) % 2, "yes", "no")
    known = _encoded(make, y.astype(object), y)
    rows = pd.DataFrame({"a": np.arange(200) % 7 / 7.0, "b": "?", "y": y})
    notes = load_data(spec(write(rows, tmp_path / "d.csv"), sensitive=()), known).notes
    assert none_of("new to the model" in note for note in notes)
