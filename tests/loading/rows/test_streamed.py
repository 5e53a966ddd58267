"""An audit of rows that stream by, against the same audit of the same rows in memory."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.group_counts import FeatureCounts, GroupCounts
from auditor.data.preprocessing import fit_tabular
from auditor.data.row_keys import KeyDigest, digest_of_keys, keys_of
from auditor.data.row_sample import RowSample
from auditor.data.score_counts import Asked
from auditor.judging.measurement import Alike, Measurement
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows import table_files
from auditor.loading.rows.load_rows import load_data
from auditor.loading.rows.new_values import NewValues
from auditor.loading.rows.streamed_rows import Stream, why_not_streamed
from auditor.loading.rows.table_files import open_table
from auditor.models.audited_model import AuditedModel
from auditor.run.probe import Streamed, StreamedProbe
from auditor.run.run_audit import alike_in_counts, ask, generator_for
from auditor.statistics.estimate import Estimate, Undefined
from auditor.statistics.rank_estimates import AreaUnderCurve
from probes import PROBES
from probes.fairness.proxy_association import auc_of_counts, macro_auc
from tests.quantifiers import all_of
from tests.statistics.worlds import misses, most_misses

N = 3_000
STREAMED: dict[str, StreamedProbe] = {
    name: kind() for name, kind in PROBES.items() if hasattr(kind, "measure_streamed")
}


@cache
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    a, sex = rng.normal(size=N), rng.choice(["f", "m", None], N, p=[0.5, 0.45, 0.05])
    label = np.where(rng.random(N) < 1 / (1 + np.exp(-a)), "yes", "no")
    label[rng.random(N) < 0.05] = ""
    of = {"a": a, "b": rng.choice(["u", "v"], N), "y": label, "sex": sex, "race": rng.choice([*"xyz"], N)}
    return pd.DataFrame(of)


def model(steepness: float = 1.0) -> AuditedModel:
    """One whose answer on a row is the same in every batch."""
    return AuditedModel(
        lambda X: 1.0 / (1.0 + np.exp(-steepness * (np.asarray(X["a"], float) + 0.3 * (X["b"] == "u")))),
        classes=["no", "yes"],
        features=("a", "b"),
        preprocessing=fit_tabular(frame()[["a", "b"]]),
    )


def spec(path: Path, **more: Any) -> DataSpec:
    columns = {"target": "y", "positive": "yes", "sensitive": ("sex", "race"), "stream": True} | more
    return DataSpec(path=str(path), **columns)


def write(rows: pd.DataFrame, path: Path, group: int = N) -> Path:
    rows = rows.assign(y=rows["y"].replace("", None))
    if path.suffix == ".parquet":
        rows.to_parquet(path, row_group_size=group)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pandas(rows, preserve_index=False)
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=group)
    else:
        rows.to_csv(path, index=False)
    return path


def streamed(path: Path, audited: AuditedModel, **more: Any) -> Streamed:
    stream = Stream(spec(path, **more), audited)
    told = stream.make_counters(reduce(Asked.__or__, [probe.stream_needs for probe in STREAMED.values()]))
    counts, _ = stream.count_by_group(collector=told)
    stream.settle(told.scores)
    assert told.sample is not None
    kept = Undefined(reason=told.sample.why_not) if told.sample.why_not else told.sample.rows()
    return Streamed(counts, told.scores, told.features, audited, kept)


def key(m: Measurement) -> str:
    return repr((m.metric, m.method, m.sensitive, sorted(m.group.items()), sorted(m.at.items())))


def apart(exact: Estimate, found: Estimate) -> float:
    """By how much the values of two estimates of one kind differ, beyond what the second says that they may."""
    parts = [*getattr(found, "parts", ()), found]
    error = 2.0 * max(getattr(part, "grid", 0.0) for part in parts)
    same = np.isnan(exact.value) and np.isnan(found.value)
    return 0.0 if same else abs(exact.value - found.value) - error


# What is counted is the same to the last digit, whatever it is of.
OF_COUNTS = {
    "proportion", "rate_change", "weighted_sum", "worst_difference", "worst_ratio", "ratio_to_largest", "exact",
}  # fmt: skip


def test_a_streamed_audit_says_what_one_in_memory_says(tmp_path: Path) -> None:
    """Counts exactly, sketches within the error that they state, and no number more or fewer."""
    path, audited = write(frame(), tmp_path / "rows.parquet", 700), model()
    data = load_data(spec(path), audited)
    by = streamed(path, audited)
    kinds, on_grid = set(), 0
    for name, probe in STREAMED.items():
        if name == "proxy_association":
            continue
        exact = {key(m): m for m in ask(probe, audited, data, generator_for(0, name)).measurements}
        found = {key(m): m for m in probe.measure_streamed(by)}
        assert exact and exact.keys() == found.keys()
        for k, m in exact.items():
            own = found[k]
            assert own.estimate.kind == m.estimate.kind and own.n_samples == m.n_samples and own.ideal == m.ideal
            assert apart(m.estimate, own.estimate) <= 1e-6, k
            assert own.figure == m.figure and own.too_few == m.too_few
            if own.estimate.kind in OF_COUNTS:
                assert own.estimate == m.estimate and own.detail == m.detail, k
            elif m.estimate.kind == "area_under_curve":
                assert own.estimate.lower(0.01) <= m.estimate.lower(0.01) <= m.estimate.upper(0.01)
                assert m.estimate.upper(0.01) <= own.estimate.upper(0.01)
                on_grid += own.estimate.grid > 0.0
            kinds.add(own.estimate.kind)
    assert kinds >= {"area_under_curve", "bounded_mean", "calibration_error", "worst_distance", *OF_COUNTS}
    assert on_grid > 10


@pytest.fixture(scope="module")
def said_before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Measurement]]:
    by = streamed(write(frame(), tmp_path_factory.mktemp("whole") / "rows.parquet"), model())
    return {name: {key(m): m for m in probe.measure_streamed(by)} for name, probe in STREAMED.items()}


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".csv"])
def test_neither_order_nor_parts_nor_format_change_a_digit(
    ending: str, said_before: dict[str, dict[str, Measurement]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditor.loading.rows.table_files.BLOCK_BYTES", 20_000)
    shuffled = frame().sample(frac=1.0, random_state=1)
    after = streamed(write(shuffled, tmp_path / f"other{ending}", 170), model())
    for name, probe in STREAMED.items():
        found, before = {key(m): m for m in probe.measure_streamed(after)}, said_before[name]
        assert found.keys() == before.keys()
        for k, m in found.items():
            # All of few rows: sums over them, as in memory, are in their order.
            if name == "proxy_association" and m.at["from"] != "feature":
                one, other = (estimate.model_dump(exclude={"kind"}) for estimate in (m.estimate, before[k].estimate))
                assert one == pytest.approx(other, rel=1e-9)
            else:
                assert m == before[k]


def test_proxies_of_many_numbers_are_those_of_memory_and_of_single_features_within_their_errors(tmp_path: Path) -> None:
    """Of single features the halves are others than in memory: the numbers are estimates of the same."""
    rows = frame().assign(a=frame()["a"] + 1.5 * (frame()["sex"] == "f"))
    path, audited = write(rows, tmp_path / "rows.parquet", 700), model()
    probe = STREAMED["proxy_association"]
    exact = {key(m): m for m in ask(probe, audited, load_data(spec(path), audited), generator_for(0, "p")).measurements}
    found = {key(m): m for m in probe.measure_streamed(streamed(path, audited))}
    assert exact.keys() == found.keys()
    values = {}
    for k, m in found.items():
        if m.at["from"] != "feature":
            assert m == exact[k] and isinstance(m.estimate, AreaUnderCurve)
            continue
        (low, high), (lower, upper) = m.estimate.bounds(1e-4), exact[k].estimate.bounds(1e-4)
        assert max(low, lower) < min(high, upper)
        values[m.sensitive[0], m.at["feature"]] = m.estimate
    assert values["sex", "a"].bounds(1e-4)[0] > 0.6
    for other in (("sex", "b"), ("race", "a"), ("race", "b")):
        low, high = values[other].bounds(1e-4)
        assert low < 0.5 < high


def of_many(by: Streamed) -> list[Measurement]:
    return [m for m in STREAMED["proxy_association"].measure_streamed(by) if m.at["from"] != "feature"]


def test_rows_that_are_too_many_are_sampled_whatever_their_order_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interval of the sample is about what all rows say, and wider."""
    rows = frame().assign(a=frame()["a"] + 1.5 * (frame()["sex"] == "f"))
    rare = ["rare1", "rare2", "rare3", "rare4"]
    rows.loc[[5, 900, 1_500, 2_990], "race"] = rare
    exact = {key(m): m for m in of_many(streamed(write(rows, tmp_path / "all.parquet"), model()))}
    monkeypatch.setattr("auditor.data.row_sample.MOST_ROWS", 800)
    monkeypatch.setattr("auditor.loading.rows.table_files.BLOCK_BYTES", 20_000)
    first = of_many(streamed(write(rows, tmp_path / "first.parquet", 700), model()))
    again = write(rows.sample(frac=1.0, random_state=1), tmp_path / "again.csv")
    assert sorted(map(repr, first)) == sorted(map(repr, of_many(streamed(again, model()))))
    assert {key(m) for m in first} == exact.keys()
    for m in first:
        of_all, own = exact[key(m)].estimate, m.estimate
        assert isinstance(of_all, AreaUnderCurve) and isinstance(own, AreaUnderCurve)
        assert m.n_samples == 800 and "of 800 of the 3,000 rows" in m.detail
        assert own.standard_error > 1.5 * of_all.standard_error
        assert own.lower(1e-3) < of_all.centre < own.upper(1e-3)
        # Whether one of their rows is kept or not, nobody is left out without a word.
        if m.sensitive == ("race",):
            assert f"too few rows to take part: {', '.join(rare)}" in m.detail
    # Where too few copies can be counted to draw among them, every source says that it was not asked.
    monkeypatch.setattr("auditor.data.row_sample._MOST_CONTENTS", 10)
    thrice = pd.concat([rows.head(1_000)] * 3)
    refused = of_many(streamed(write(thrice, tmp_path / "thrice.parquet", 500), model()))
    assert {key(m) for m in refused} == exact.keys()
    assert all_of("copies of one another" in getattr(m.estimate, "reason", "") for m in refused)


@pytest.mark.slow
def test_the_interval_of_a_sample_holds_what_is_true_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The score is yes or no, and tells the group rightly in 7 of 10 pairs."""
    monkeypatch.setattr("auditor.data.row_sample.MOST_ROWS", 500)
    probe = STREAMED["proxy_association"]
    found = []
    for world in range(60):
        rng = np.random.default_rng(world)
        sex = rng.integers(0, 2, 3_000)
        # Other numbers in each world: the hash of a row is the same in all.
        told = np.where(rng.random(3_000) < np.where(sex, 0.7, 0.3), 1.0, -1.0) * (1.0 + rng.random())
        sample = RowSample(("sex",), ("no", "yes"), 1)
        for some in np.array_split(np.arange(3_000), 3):
            X = pd.DataFrame({"a": told[some], "b": "u"})
            sample.add(X, keys_of(X, None, None, None), None, [(sex[some], ["f", "m"])])
        assert sample.why_not == ""
        table = np.bincount(sex, minlength=2)[:, None, None] * np.eye(3, 2, dtype=np.int64)[:1]
        counts = GroupCounts(("sex",), ("no", "yes"), (("f",), ("m",)), table)
        by = Streamed(counts, cast(Any, None), FeatureCounts(("sex",)), model(), sample.rows())
        found += [m.estimate for m in probe.measure_streamed(by) if m.at["from"] == "score"]
    assert len(found) == 60 and sum(misses(found, 0.7)) <= most_misses(worlds=60)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_an_area_of_levels_is_that_of_their_rows(k: int) -> None:
    rng = np.random.default_rng(k)
    counts = rng.integers(0, 40, (12, k)) + np.eye(12, k, dtype=np.int64) * 30
    scores = rng.dirichlet(np.ones(k), 12).round(1)
    at = np.repeat(np.repeat(np.arange(12), k), counts.ravel())
    label = np.repeat(np.tile(np.arange(k), 12), counts.ravel())
    exact, by_group = macro_auc(scores, label, at)
    found, each = auc_of_counts(scores, counts)
    one, other = (estimate.model_dump(exclude={"kind"}) for estimate in (exact, found))
    assert other == pytest.approx(one, rel=1e-9) and each == pytest.approx(by_group)


def proxy(values: Any, sex: Any, parts: int = 1, order: Any = slice(None)) -> Any:
    """The estimate of what a feature tells of a group, from counts of rows in an order and in parts."""
    levels = FeatureCounts(("sex",))
    rows, codes = pd.DataFrame({"x": np.asarray(values)[order]}), np.asarray(sex, np.int64)[order]
    for some in np.array_split(np.arange(len(rows)), parts):
        levels.add(rows.iloc[some], [(codes[some], ["f", "m"])])
    none = Undefined(reason="none is kept")
    by = Streamed(SimpleNamespace(n=len(rows)), cast(Any, None), levels, model(), none)  # type: ignore[arg-type]
    (found,) = [m for m in STREAMED["proxy_association"].measure_streamed(by) if m.at["from"] == "feature"]
    return found.estimate


@pytest.mark.parametrize(("apart", "levels"), [(0.4, [0.0, 1.0]), (0.0, [0.0, 1.0]), (0.0, ["u", "v"])])
def test_rows_of_few_different_contents_have_an_interval_that_holds_the_truth(apart: float, levels: list[Any]) -> None:
    """Two levels and two groups are four different rows: none of the four may go to one half as a whole."""
    found = []
    for world in range(200):
        rng = np.random.default_rng(world)
        sex = rng.random(500) < 0.5
        values = np.asarray(levels)[(rng.random(500) < np.where(sex, 0.5 + apart, 0.5 - apart)).astype(int)]
        found.append(proxy(values, sex))
    assert sum(misses(found, 0.5 + apart)) <= most_misses(worlds=200)


def test_a_frequent_number_is_a_level_of_its_own_as_in_memory() -> None:
    """Below the mode is one group, all of it and no other; a hole says something too."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random(4_000) < 0.72, 0.0, rng.normal(2.0, 0.3, 4_000))
    sex = rng.random(4_000) < 0.095
    values[sex] = -1.0 - rng.integers(0, 20, sex.sum())
    assert proxy(values, sex).value == 1.0
    values[sex] = np.nan
    assert proxy(values, sex).value == 1.0


def test_numbers_that_differ_little_for_their_size_are_told_apart() -> None:
    sex = np.arange(2_000) % 2 == 1
    years = 2012 + np.arange(2_000) % 4 + 4 * sex
    assert proxy(years, sex).value == proxy(years + 1.7e9, sex).value == 1.0


def test_too_many_numbers_lose_bits_that_no_order_decides_and_where_they_hide_much_it_is_undefined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("auditor.data.group_counts._MOST_LEVELS", 200)
    rng = np.random.default_rng(0)
    sex = rng.random(3_000) < 0.5
    values = np.where(rng.random(3_000) < 0.3, 0.0, np.exp(rng.normal(sex, 1.0)) * rng.choice([-1.0, 1.0], 3_000))
    values[rng.random(3_000) < 0.05] = np.nan
    first = proxy(values, sex)
    assert first.bounds(0.001)[0] > 0.5 and first.bounds(0.001)[1] < 0.75
    for parts, order in [(1, np.argsort(values)), (7, np.argsort(-np.abs(values))), (40, rng.permutation(3_000))]:
        assert proxy(values, sex, parts, order) == first
    # Rows of a few seconds, among others of all magnitudes: what is left of the seconds says nothing.
    hidden = np.where(rng.random(3_000) < 0.8, 1.7e9 + sex, np.exp(rng.normal(0.0, 30.0, 3_000)))
    for parts in (1, 9):
        found = proxy(hidden, sex, parts)
        assert isinstance(found, Undefined) and "too close" in found.reason


def test_ids_are_no_groups_before_any_level_is_counted_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = frame().assign(sex=[f"id {i}" for i in range(N)])
    monkeypatch.setattr(FeatureCounts, "add", lambda *_: pytest.fail("counted by thousands of groups"))
    with pytest.raises(DataError, match="more than .* groups"):
        streamed(write(rows, tmp_path / "rows.parquet"), model())


def test_a_model_that_answers_all_alike_is_seen_to(tmp_path: Path) -> None:
    by = streamed(write(frame(), tmp_path / "rows.parquet"), model(0.0))
    found = STREAMED["performance"].measure_streamed(by)
    assert alike_in_counts(by.counts, found, by.scores) == (Alike(answer="scores", n=N),)
    # With scores that differ it is the decisions alone.
    by.scores._values.add(0.6)
    assert alike_in_counts(by.counts, found, by.scores) == (Alike(answer="decisions", n=N),)


def test_a_model_whose_answers_depend_on_their_batch_is_refused(tmp_path: Path) -> None:
    moody = AuditedModel(
        lambda X: np.full(len(X), 0.4 if len(X) > 1_000 else 0.6),
        classes=["no", "yes"],
        features=("a", "b"),
        preprocessing=fit_tabular(frame()[["a", "b"]]),
    )
    with pytest.raises(ModelError, match="differently when asked again in a smaller batch"):
        streamed(write(frame(), tmp_path / "rows.parquet"), moody)


def test_without_labels_or_groups_it_says_what_is_left(tmp_path: Path) -> None:
    path = write(frame(), tmp_path / "rows.parquet")
    without = streamed(path, model(), target=None)
    metrics = {m.metric for m in STREAMED["score_fairness"].measure_streamed(without)}
    assert "score_wasserstein" in metrics and "roc_auc" not in metrics
    with pytest.raises(Exception, match="Needs true labels"):
        STREAMED["performance"].measure_streamed(without)
    alone = streamed(path, model(), sensitive=())
    assert {m.metric for m in STREAMED["performance"].measure_streamed(alone)} >= {"roc_auc", "log_loss"}
    for name in ("score_fairness", "adverse_impact"):
        with pytest.raises(Exception, match="Needs a sensitive feature"):
            STREAMED[name].measure_streamed(alone)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"cluster": "b"}, "--cluster needs all rows at once"),
        ({"bins": ("a=0,1",)}, "--bins needs"),
        ({"train": "other.csv"}, "--train needs"),
        ({"path": "rows.npz"}, "A .npz file is read whole: give .csv"),
        ({}, ""),
    ],
)
def test_what_cannot_stream_says_why(more: dict[str, Any], said: str) -> None:
    asked = replace(spec(Path("rows.csv")), **more)
    assert said in why_not_streamed(asked, model()) and bool(said) == bool(why_not_streamed(asked, model()))


def test_a_model_of_unknown_columns_cannot_stream() -> None:
    bare = AuditedModel(lambda X: np.zeros(len(X)), classes=["no", "yes"])
    assert "add --features a,b" in why_not_streamed(spec(Path("rows.csv")), bare)
    assert why_not_streamed(replace(spec(Path("rows.csv")), features=("a",)), bare) == ""


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_an_estimator_answers_rows_that_stream_by_as_in_memory(ending: str, tmp_path: Path) -> None:
    """Columns of text, whole numbers, truth values, and of numbers that are whole until late in the file."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    import auditor

    rows = frame().assign(y=np.where(frame()["a"] > 0, 1, 0), n=np.arange(N) % 5, t=np.arange(N) % 3 > 0)
    rows["late"] = rows["n"].where(rows.index < N - 9, rows["n"] + 0.5)
    X = rows[["a", "b", "n", "t", "late"]]
    names = make_column_transformer((OneHotEncoder(), ["b", "n", "t"]), remainder="passthrough")
    joblib.dump(make_pipeline(names, LogisticRegression()).fit(X, rows["y"]), tmp_path / "m.joblib")
    path = write(rows, tmp_path / f"rows{ending}")
    asked = DataSpec(path=str(path), target="y", sensitive=("sex",), stream=True)
    estimator = auditor.load_model(tmp_path / "m.joblib")
    assert why_not_streamed(asked, estimator) == ""
    data = load_data(asked, estimator)
    decided = np.bincount(estimator.decisions(data), minlength=2)
    counts, _ = Stream(asked, estimator).count_by_group()
    assert counts.table.sum(axis=(0, 1)).tolist() == decided.tolist() and min(decided) > 100
    # Of rows that its encoder refuses, neither counts any.
    write(rows.assign(b=rows["b"].where(rows.index % 50 > 0, "?")), path)
    new = NewValues(estimator, path.name, most=3)
    counts, notes = Stream(asked, estimator).count_by_group(new=new)
    data = load_data(asked, estimator)
    assert counts.n == len(data) == N - N // 50 and new.n_refused == len(data.unreadable) == N // 50
    assert list(data.unreadable[:3]) == new.refused and "Row 51 of " in new.refused[1]
    assert sum("its OneHotEncoder refuses them" in note for note in notes) == 1


def test_the_types_of_columns_in_parts_are_those_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "BLOCK_BYTES", 300)
    n = 200
    late = {name: ["1"] * (n - 1) for name in ("float", "text", "gap", "truth", "day", "quoted")}
    late |= {"none": ["NA"] * (n - 1), "only_truths": ["true"] * (n - 1), "first_none": [""] * (n - 1)}
    last = ["0.5", "a,b", "", "true", "2020-01-01", "2", "", "False", "7"]
    rows = pd.DataFrame({name: [*values, end] for (name, values), end in zip(late.items(), last, strict=True)})
    rows["day"] = rows["day"].replace("1", "2019-12-31")
    rows.to_csv(tmp_path / "rows.csv", index=False, quotechar='"')
    file = open_table(tmp_path / "rows.csv")
    found, whole = file.types(file.columns), file.read(file.columns, {}).schema
    assert len(list(file.batches(file.columns, found))) > 3
    for name in file.columns:
        expected = pa.float64() if name in ("gap", "first_none") else whole.field(name).type
        assert found[name] == expected, name


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_boosted_trees_stream_by_and_answer_as_in_memory(library: str, tmp_path: Path) -> None:
    import auditor

    made: Any = pytest.importorskip(library, reason=f"{library} is not installed")
    rows = frame().assign(y=np.where(frame()["a"] > 0, 1, 0), n=np.arange(N) % 5)
    X = rows[["a", "b", "n"]].assign(b=rows["b"] if library == "catboost" else pd.Categorical(rows["b"]))
    if library == "xgboost":
        made.XGBClassifier(n_estimators=3, enable_categorical=True, n_jobs=1).fit(X, rows["y"]).save_model(
            tmp_path / "m.json"
        )
    elif library == "lightgbm":
        fitted = made.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(X, rows["y"])
        fitted.booster_.save_model(tmp_path / "m.json")
    else:
        fitted = made.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False, thread_count=1)
        fitted.fit(X, rows["y"], cat_features=["b"]).save_model(tmp_path / "m.json")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    spec = DataSpec(path=str(tmp_path / "rows.csv"), target="y", sensitive=("sex",))
    trees = auditor.load_model(tmp_path / "m.json")
    data = load_data(spec, trees)
    streamed = replace(spec, stream=True)
    assert why_not_streamed(streamed, trees) == ""
    counts, _ = Stream(streamed, trees).count_by_group()
    groups = data.sensitive_features
    assert groups is not None
    told = {name: int(n) for name, n in zip(*np.unique(trees.decisions(data), return_counts=True), strict=True)}
    assert dict(enumerate(counts.table.sum(axis=(0, 1)).tolist())) == told


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_no_more_than_some_rows_are_held(ending: str, tmp_path: Path) -> None:
    """16 MB of numbers in parts of 0.4."""
    table = pa.table({name: np.random.default_rng(0).normal(size=1_000_000) for name in "ab"})
    path = tmp_path / f"rows{ending}"
    if ending == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=25_000, use_dictionary=False)
    else:
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=25_000)
    del table
    at_first, most, rows = pa.total_allocated_bytes(), 0, 0
    for batch in open_table(path).batches(["a", "b"], {}):
        most, rows = max(most, pa.total_allocated_bytes() - at_first), rows + batch.num_rows
    assert rows == 1_000_000 and most < 4 << 20


def test_the_digest_of_keys_in_parts_is_that_of_all() -> None:
    keys = np.random.default_rng(0).integers(0, 1 << 63, 5_000, np.uint64) * np.uint64(2)
    keys[:9] = [0, 0, 1, (1 << 64) - 1, 1 << 63, 1 << 58, (1 << 58) - 1, 5, 5]
    for parts in ([keys], np.array_split(keys[::-1], 9), [keys[:0], keys]):
        digest = KeyDigest()
        for part in parts:
            digest.add(part)
        assert digest.hexdigest() == digest_of_keys(keys)
    assert KeyDigest().hexdigest() == digest_of_keys(keys[:0]) != digest_of_keys(keys)


def test_the_same_flag_for_rows_and_for_none_is_refused() -> None:
    from auditor.run.scan import data_spec
    from auditor.run.scan_options import ScanOptions

    for more in ({"include_rows": True, "data": __file__}, {"predictions": __file__}):
        with pytest.raises(UsageError, match="needs all rows at once, and --stream counts them one by one"):
            data_spec(ScanOptions(stream=True, **more))  # type: ignore[arg-type]
    assert data_spec(ScanOptions(stream=True, data=__file__)).stream
