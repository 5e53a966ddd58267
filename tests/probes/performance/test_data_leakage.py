"""Leakage in the rows: counts against pandas, and planted overlaps and columns found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.profiles import DATA_PROFILE
from auditor.models.audited_model import Provenance
from auditor.models.recorded_model import NoModel
from auditor.report.first_page import first_page
from auditor.run.probe import blank_result
from probes.performance.data_leakage import DataLeakage
from probes.performance.row_copies import copies_of
from tests.report.samples import report_of

CRITERIA = load_criteria(DATA_PROFILE)
NONE = NoModel(classes=("0", "1"), features=(), provenance=Provenance(format="no model", loaded_by="nothing"))


def people(n: int, seed: int, values: int = 0) -> pd.DataFrame:
    """Rows of two numbers and a job; ``values``: how many a number has, 0 for any number."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, values, (n, 2)).astype(float) if values else rng.normal(size=(n, 2))
    frame = pd.DataFrame(numbers, columns=["a", "b"]).assign(job=rng.choice(["Clerk", "cook"], n))
    return frame.assign(
        sex=rng.choice(["f", "m"], n), label=(frame.a + frame.a.std() * rng.normal(size=n) > frame.a.mean()) + 0
    )


def rows_of(frame: pd.DataFrame, features: tuple[str, ...] = ("a", "b", "job")) -> AuditData:
    return AuditData.from_arrays(
        frame[list(features)], frame.label, classes=("0", "1"), sensitive_features=frame[["sex"]]
    )


def measured(train: pd.DataFrame, test: pd.DataFrame | None = None, *more: str) -> list[Measurement]:
    features = ("a", "b", "job", *more)
    rows = rows_of(train, features)
    data = rows if test is None else rows_of(test, features).with_members(rows)
    return DataLeakage().measure(NONE, data, np.random.default_rng(0))


def value(found: list[Measurement], metric: str, copies: str, group: dict[str, str] | None = None) -> float:
    own = [m for m in found if m.metric == metric and m.at == {"copies": copies} and dict(m.group) == (group or {})]
    return own[0].estimate.value


@pytest.mark.parametrize(("copies", "told"), [(1, False), (200, True)])
def test_copies_are_told_on_the_first_page_where_they_are_more_than_chance_makes(copies: int, told: bool) -> None:
    train = people(2000, 0)
    test = pd.concat([people(1000, 1), train.head(copies)], ignore_index=True)
    found = replace(blank_result(DataLeakage()), measurements=tuple(measured(train, test)))
    report = report_of([found]).model_copy(update={"questions": {found.probe: DataLeakage.questions}})
    shown = " ".join(each.sentence for each in first_page(report).shown)
    assert ("overlap" in shown.lower()) == told, shown


def test_counts_are_those_of_pandas() -> None:
    train, test = people(600, 0, values=20), people(300, 1, values=20)
    columns = ["a", "b", "job"]
    found = measured(train, test)
    repeated = train.duplicated(columns, keep=False).mean()
    shared = test[columns].merge(train[columns].drop_duplicates(), how="left", indicator=True)._merge.eq("both")
    assert value(found, "duplicate_rate", "exact") == pytest.approx(repeated) and 0.0 < repeated < 1.0
    assert value(found, "overlap_rate", "exact") == pytest.approx(shared.mean())
    excess = value(found, "excess_overlap_rate", "exact")
    assert excess == pytest.approx(shared.mean() - repeated, abs=1e-2)
    of = [m for m in found if m.metric == "excess_overlap_rate" and m.at == {"copies": "exact"}]
    assert of[0].too_few and Outcome.FAIL not in outcomes(found)
    for sex in ("f", "m"):
        own = shared[(test.sex == sex).to_numpy()].mean()
        assert value(found, "overlap_rate", "exact", {"sex": sex}) == pytest.approx(own)


def test_a_near_copy_is_one_in_other_digits_and_another_case() -> None:
    train = people(200, 0)
    near = train.head(50).assign(a=lambda f: f.a * (1 + 1e-9), job=lambda f: f.job.str.upper() + "!")
    found = measured(train, pd.concat([people(150, 1), near], ignore_index=True))
    assert value(found, "overlap_rate", "exact") == 0.0
    assert value(found, "overlap_rate", "near") == pytest.approx(0.25)


def test_texts_repeat_by_their_words() -> None:
    texts = np.asarray(["Good day", "good day!", "bad day", "bad day"], object)
    data = AuditData.from_arrays(texts, [0, 0, 1, 1], classes=("0", "1"))
    found = DataLeakage().measure(NONE, data, np.random.default_rng(0))
    assert (value(found, "duplicate_rate", "exact"), value(found, "duplicate_rate", "near")) == (0.5, 1.0)
    assert value(found, "duplicate_rate", "similar") == 1.0
    assert {m.metric for m in found} == {"duplicate_rate"}


def sentences(n: int, seed: int) -> list[str]:
    """Texts of 40 words out of 5,000."""
    return [" ".join(f"w{i}" for i in own) for own in np.random.default_rng(seed).integers(0, 5_000, (n, 40))]


def changed(text: str, words: int) -> str:
    """The text with as many of its last words as that replaced."""
    return " ".join([*text.split()[: 40 - words], *(f"other{i}" for i in range(words))])


def test_similar_texts_are_those_that_share_most_runs_of_words() -> None:
    train = sentences(400, 0)
    # 38 runs each: 34 of 42 are shared with 4 words changed, and 30 of 46 with 8.
    test = [changed(train[0], 4), changed(train[1], 8), train[2].upper() + "!", *sentences(197, 1)]
    rows = [
        AuditData.from_arrays(np.asarray(texts, object), np.arange(len(texts)) % 2, classes=("0", "1"))
        for texts in (train, test)
    ]
    found = DataLeakage().measure(NONE, rows[1].with_members(rows[0]), np.random.default_rng(0))
    assert value(found, "overlap_rate", "similar") == 2 / 200 and value(found, "duplicate_rate", "similar") == 0.0
    assert value(found, "overlap_rate", "near") == 1 / 200 and value(found, "overlap_rate", "exact") == 0.0


def test_similar_texts_are_found_as_comparing_all_pairs_finds_them() -> None:
    rng = np.random.default_rng(3)
    train = sentences(150, 0)
    train += [changed(train[i], int(k)) for i, k in enumerate(rng.integers(0, 10, 60))]
    test = [
        changed(train[int(i)], int(k)) for i, k in zip(rng.integers(0, 150, 60), rng.integers(0, 10, 60), strict=True)
    ]

    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return set(zip(words, words[1:], words[2:], strict=False))

    def alike(a: str, b: str) -> bool:
        return len(runs(a) & runs(b)) >= 0.8 * len(runs(a) | runs(b))

    copies = dict(copies_of(np.asarray(train, object), np.asarray(test, object), "text"))["similar"]
    repeated = [any(alike(a, b) for j, b in enumerate(train) if j != i) for i, a in enumerate(train)]
    shared = [any(alike(a, b) for b in train) for a in test]
    assert copies.repeated.tolist() == repeated and 0 < sum(repeated) < len(train)
    assert (copies.original >= 0).tolist() == shared and 0 < sum(shared) < len(test)


def test_rows_one_column_apart_are_those_of_pandas() -> None:
    train, test = people(300, 0, values=8), people(200, 1, values=8)
    columns = ["a", "b", "job"]
    found = measured(train, test)
    parts = [[c for c in columns if c != left] for left in columns]
    repeated = np.any([train.duplicated(part, keep=False) for part in parts], axis=0)
    shared = np.any(
        [
            test[part].merge(train[part].drop_duplicates(), how="left", indicator=True)._merge.eq("both")
            for part in parts
        ],
        axis=0,
    )
    assert value(found, "duplicate_rate", "one column apart") == pytest.approx(repeated.mean())
    assert value(found, "overlap_rate", "one column apart") == pytest.approx(shared.mean())


def test_pictures_that_look_the_same_are_found() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (40, 24, 24, 3)).astype(np.uint8)
    brighter = np.clip(pictures[:4].astype(int) + 3, 0, 255).astype(np.uint8)
    rows = [
        AuditData.from_arrays(own, np.arange(len(own)) % 2, classes=("0", "1"))
        for own in (pictures[:30], np.concatenate([pictures[30:], brighter]))
    ]
    found = DataLeakage().measure(NONE, rows[1].with_members(rows[0]), np.random.default_rng(0))
    assert value(found, "overlap_rate", "similar") == pytest.approx(4 / 14)
    assert value(found, "overlap_rate", "exact") == 0.0 == value(found, "duplicate_rate", "similar")


def test_what_recalling_gains_is_what_it_would_do_to_an_accuracy() -> None:
    train, test = people(2_000, 0), people(900, 1)
    test = pd.concat([test, train.head(100)], ignore_index=True)
    test.loc[900:919, "label"] = 1 - test.loc[900:919, "label"]
    usual = int(test.label.mean() > 0.5)
    # A model that recalls the label of a copy, and gives every other row the most frequent one.
    by_features = train.set_index(["a", "b", "job"]).label
    answers = [int(by_features.get(tuple(row), usual)) for row in test[["a", "b", "job"]].itertuples(index=False)]
    gain = (np.asarray(answers) == test.label).mean() - (test.label == usual).mean()
    assert value(measured(train, test), "recall_gain", "exact") == pytest.approx(gain) and gain > 0.0


def test_a_column_that_decides_alone_is_named() -> None:
    train = people(800, 0).assign(closed=lambda f: np.where(f.label == 1, "paid", "open"))
    strongest = [m for m in measured(train, None, "closed") if m.metric == "strongest_feature_auc"]
    assert strongest[0].estimate.value == 1.0 and strongest[0].detail.startswith("closed,")
    clean = [m for m in measured(people(800, 0)) if m.metric == "strongest_feature_auc"]
    assert 0.6 < clean[0].estimate.value < 0.9 and clean[0].detail.startswith("a,")


def outcomes(found: list[Measurement]) -> list[Outcome]:
    result = ProbeResult(probe="data_leakage", pillar="performance", citation="", measurements=tuple(found))
    return [f.outcome for f in judge([result], CRITERIA)[0]]


@pytest.mark.grid(by=lambda world, block: world)
@pytest.mark.parametrize("world", ["clean", "few values", "overlap", "column"])
@pytest.mark.parametrize("block", range(4))
def test_planted_faults_fail_and_clean_rows_do_not(world: str, block: int) -> None:
    """0.5 % of 4,000 test rows stand in the training rows, or a column is filled in after the label; 20 worlds."""
    failed = 0
    for seed in range(20 * block, 20 * block + 20):
        values = 300 if world == "few values" else 0
        train, test = people(6_000, seed, values), people(4_000, 10_000 + seed, values)
        more: tuple[str, ...] = ()
        if world == "overlap":
            test = pd.concat([test.iloc[20:], train.sample(20, random_state=seed)], ignore_index=True)
        if world == "column":
            more = ("closed",)
            late = np.random.default_rng(seed).random(6_000) < 0.01
            train = train.assign(closed=np.where(late, 1 - train.label, train.label))
            test = test.assign(closed=test.label)
        failed += Outcome.FAIL in outcomes(measured(train, test, *more))
    assert failed <= 3 if world in ("clean", "few values") else failed >= 18


def test_rows_without_test_rows_have_no_overlap() -> None:
    metrics = {m.metric for m in measured(people(100, 0))}
    assert metrics == {"duplicate_rate", "strongest_feature_auc"}
