"""Training by weights and by persons: what the loss, the accuracy, the split and the bundle make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import beta
from torch import nn
from typer.testing import CliRunner

from auditor.core.errors import DataError, ModelError, NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec, TrainSpec
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Training
from auditor.statistics.rates import Proportion
from auditor.training.retrain_recipe import blueprint_of
from auditor.training.train_table import TrainedModel, train_table
from auditor.training.training_rows import WeightedShare, grouped_split, read_rows, weights_of
from cli.commands import app
from mitigations.rows.reweighing_and_resampling import Reweighing
from probes.attribution.randomization_tests import teach_shuffled
from probes.privacy.membership.membership_inference import MembershipInference
from tests.quantifiers import all_of, none_of


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """600 rows of 150 persons, of which those of weight 9 have the label turned round."""
    rng = np.random.default_rng(0)
    n = 600
    frame = pd.DataFrame({"x": rng.normal(size=n).round(4), "person": [f"p{i}" for i in rng.integers(0, 150, n)]})
    frame["fnlwgt"] = rng.choice([1.0, 9.0], n)
    frame["y"] = ((frame.x > 0) ^ (frame.fnlwgt == 9.0)).map({True: "yes", False: "no"})
    path = tmp_path_factory.mktemp("weighted") / "t.csv"
    frame.to_csv(path, index=False)
    return str(path)


@pytest.fixture
def spec(table: str) -> TrainSpec:
    return TrainSpec(data=table, target="y", positive="yes", epochs=8, hidden=(), learning_rate=0.1, batch_size=32)


@pytest.fixture(scope="module")
def weighted(table: str) -> TrainedModel:
    return train_table(
        TrainSpec(data=table, target="y", positive="yes", epochs=8, hidden=(), learning_rate=0.1, weight="fnlwgt")
    )


def slope(trained: TrainedModel) -> float:
    x = pd.DataFrame({"x": [-1.0, 1.0], "person": "p0", "fnlwgt": 1.0})
    low, high = trained.model.predict_proba(x)[:, 1]
    return float(high - low)


def test_the_heavy_rows_decide_what_is_learned(spec: TrainSpec, weighted: TrainedModel) -> None:
    heavy = pd.read_csv(spec.data).fnlwgt == 9.0
    plain = train_table(spec)
    assert abs(slope(plain)) < 0.3 and slope(weighted) < -0.4 and 0.4 < heavy.mean() < 0.6
    assert weighted.accuracy.value > 0.8 and plain.accuracy.value < 0.65


def test_the_loss_is_the_mean_of_the_weighted_losses(spec: TrainSpec) -> None:
    """Whole numbers as weights come to what as many copies of each row come to."""
    spec = replace(spec, features=("x",), epochs=1, batch_size=600, seed=3)
    one = train_table(replace(spec, weight="fnlwgt"))
    recipe = one.model.recipe
    assert recipe is not None and recipe.weight == "fnlwgt"
    frame = pd.read_csv(spec.data).iloc[one.train_rows]
    x, y = one.model.encode(frame), torch.tensor((frame.y == "yes").to_numpy(np.int64))
    start = train_table(replace(spec, learning_rate=1e-12)).model
    copies = torch.repeat_interleave(torch.arange(len(x)), torch.tensor(frame.fnlwgt.to_numpy(np.int64)))
    optimizer = torch.optim.Adam(start.module.parameters(), lr=0.1)
    nn.functional.cross_entropy(start.logits(x[copies]), y[copies]).backward()
    optimizer.step()
    for mine, theirs in zip(one.model.module.parameters(), start.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


def test_accuracy_and_the_commonest_class_are_weighted(weighted: TrainedModel) -> None:
    y = (weighted.test.y == "yes").to_numpy()
    w = weighted.test.fnlwgt.to_numpy()
    right = (weighted.model.predict_proba(weighted.test)[:, 1] >= 0.5) == y
    assert weighted.accuracy.value == pytest.approx(np.average(right, weights=w))
    heavy = pd.Series(weighted.train.fnlwgt).groupby(weighted.train.y).sum().idxmax() == "yes"
    assert weighted.majority_share == pytest.approx(np.average(y == heavy, weights=w))


def test_equal_weights_give_the_exact_interval_and_unequal_ones_a_wider() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.8
    equal = WeightedShare.from_rows(right, np.full(200, 3.0))
    exact = Proportion(successes=int(right.sum()), n=200).interval(0.95)
    assert equal.effective_n == pytest.approx(200) and equal.interval(0.95) == pytest.approx(exact, abs=1e-9)
    few = WeightedShare.from_rows(right, np.r_[np.full(20, 100.0), np.ones(180)])
    assert few.effective_n < 40 and np.diff(few.interval(0.95)) > 2 * np.diff(exact)
    perfect = WeightedShare.from_rows(np.ones(50, bool), np.r_[np.full(5, 100.0), np.ones(45)])
    low, high = perfect.interval(0.95)
    kish = 545.0**2 / (5 * 100.0**2 + 45)
    assert high == 1.0 and low == pytest.approx(beta.ppf(0.025, kish, 1)) and low < 0.6


def test_the_interval_of_a_weighted_share_holds_the_truth() -> None:
    """2,000 worlds of 150 rows, whose weights go with being right; the true share is that of the whole population."""
    rng = np.random.default_rng(1)
    weights = np.array([1.0, 2.0, 8.0])
    chance = np.array([0.9, 0.8, 0.6])
    truth = float(weights @ chance / weights.sum())
    missed = 0
    for _ in range(2_000):
        kind = rng.integers(0, 3, 150)
        low, high = WeightedShare.from_rows(rng.random(150) < chance[kind], weights[kind]).interval(0.95)
        missed += not low <= truth <= high
    assert missed / 2_000 < 0.06


@pytest.mark.parametrize(
    ("values", "said"),
    [([1, None], "nan"), ([1, -2], "-2"), (["1", "x"], "'x'"), ([1, np.inf], "inf"), ([0, 0], "is 0 in every row")],
)
def test_weights_that_are_none_are_refused(values: list[object], said: str) -> None:
    with pytest.raises(DataError, match=f"weight 'w'.*{said}"):
        weights_of(pd.Series(values), "w")


def test_no_person_is_in_both_halves_and_classes_are_drawn_alike(spec: TrainSpec) -> None:
    trained = train_table(replace(spec, group_column="person"))
    frame = pd.read_csv(spec.data)
    here, there = (set(frame.person.iloc[rows]) for rows in (trained.train_rows, trained.test_rows))
    assert here and there and not here & there and len(trained.train_rows) + len(trained.test_rows) == 600
    assert 0.25 < len(trained.test_rows) / 600 < 0.35
    assert trained.model.features == ("x",)
    assert trained.model.recipe is not None and trained.model.recipe.group_column == "person"
    assert "and none of 'person' in both" in " ".join(trained.notes)
    assert {"person", "fnlwgt"} <= set(trained.train.columns)


def test_groups_are_split_whole_by_their_commonest_class() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 200, 2_000)
    y = (groups % 4 == 0).astype(np.int64)
    kept, held = grouped_split(y, groups, 0.3, rng)
    assert set(groups[kept]).isdisjoint(groups[held]) and np.array_equal(np.sort(np.r_[kept, held]), np.arange(2_000))
    assert abs(len(held) / 2_000 - 0.3) < 0.02 and abs(y[held].mean() - y.mean()) < 0.03
    with pytest.raises(DataError, match="The 2 groups cannot be split"):
        grouped_split(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), 0.5, rng)
    with pytest.raises(DataError, match="cannot be split"):
        grouped_split(np.array([0, 1, 0, 1]), np.zeros(4, np.int64), 0.5, rng)


def test_rows_without_a_person_are_split_one_by_one_and_counted(spec: TrainSpec, tmp_path: Path) -> None:
    frame = pd.read_csv(spec.data)
    frame.loc[:99, "person"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    trained = train_table(replace(spec, data=str(tmp_path / "t.csv"), group_column="person", epochs=1))
    assert "100 rows without 'person' were split one by one." in trained.notes
    assert 0 < sum(row < 100 for row in trained.test_rows) < 100
    frame.assign(person="p").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="'person' holds one value only"):
        train_table(replace(spec, data=str(tmp_path / "t.csv"), group_column="person"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"weight": "y"}, "--weight 'y' is for no other use"),
        ({"weight": "fnlwgt", "features": ("x", "fnlwgt")}, "--weight 'fnlwgt' is for no other use"),
        ({"group_column": "person", "keep": ("person",)}, "--group-column 'person' is for no other use"),
        ({"group_column": "fnlwgt", "weight": "fnlwgt"}, "name the same column"),
        ({"weight": "fnlwgt", "dp_epsilon": 3.0}, "leave --weight or --dp-epsilon out"),
        ({"features": ("x",), "keep": ("fnlwgt",)}, "leave --keep out"),
        ({"drop": ("x",), "keep": ("x",)}, "named by --keep and by --drop"),
        ({"weight": "fnlwgd"}, "did you mean 'fnlwgt'"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(spec: TrainSpec, flags: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train_table(replace(spec, **flags))  # type: ignore[arg-type]


def test_a_weight_is_left_out_aloud_and_kept_where_it_is_named(spec: TrainSpec, tmp_path: Path) -> None:
    words = ["train", spec.data, "--target", "y", "--epochs", "1", "--hidden", "2", "--out", str(tmp_path / "m.pt")]
    plain = CliRunner().invoke(app, words)
    assert plain.exit_code == 0 and plain.stderr == (
        "auditor: 'fnlwgt' is left out, since it is the weight of a survey's rows by its name: --weight fnlwgt trains "
        "with it, and --keep fnlwgt learns from it.\n"
    )
    kept = CliRunner().invoke(app, [*words, "--keep", "fnlwgt"])
    assert kept.stderr == "" and "x, person, fnlwgt -> y" in kept.stdout
    used = CliRunner().invoke(app, [*words, "--weight", "fnlwgt", "--group-column", "person"])
    assert used.exit_code == 0 and used.stderr == "" and "t.csv: x -> y" in used.stdout
    assert "(95 % interval; weighted by fnlwgt)" in used.stdout and "(without the weights)" in used.stdout
    assert {"fnlwgt", "person"} <= set(pd.read_csv(tmp_path / "m.test.csv").columns)
    loaded = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    assert isinstance(loaded, TorchModel) and loaded.recipe is not None
    assert (loaded.recipe.weight, loaded.recipe.group_column) == ("fnlwgt", "person")


def test_a_private_training_says_whose_epsilon_it_is(spec: TrainSpec) -> None:
    private = train_table(replace(spec, group_column="person", dp_epsilon=5.0, epochs=1, dp_noise_seed=0))
    most = pd.Series(private.train.person).value_counts().max()
    assert f"Epsilon is that of one row, and up to {most} rows are of one 'person'" in " ".join(private.notes)


def test_what_cannot_train_with_weights_says_so(weighted: TrainedModel, tmp_path: Path) -> None:
    save(weighted.model, tmp_path / "m.pt")
    model = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    rng = np.random.default_rng(0)
    frame = pd.concat([weighted.train, weighted.test], ignore_index=True)
    data = AuditData.from_arrays(
        frame[["x"]].assign(person="p0"),
        frame.y,
        classes=["no", "yes"],
        sensitive_features={"g": rng.choice(["a", "b"], len(frame))},
        is_member=np.arange(len(frame)) < len(weighted.train),
    )
    said = "trained with the weights of the column 'fnlwgt'"
    with pytest.raises(NotApplicableError, match=said):
        blueprint_of(model, data.X)
    with pytest.raises(
        ModelError, match=f"{said}.*without --weight.*use threshold_optimizer, a post-processing mitigation"
    ):
        Reweighing().mitigate(model, data, rng, Training())
    assert said in str(teach_shuffled(model, data.members, rng))
    found = MembershipInference(n_shadows=4, n_references=4, methods=["loss_threshold", "rmia"]).measure(
        model, data, rng
    )
    known = {method: [m for m in found if m.method == method] for method in ("loss_threshold", "rmia")}
    assert any(np.isfinite(m.estimate.value) for m in known["loss_threshold"])
    assert none_of(np.isfinite(m.estimate.value) for m in known["rmia"])
    assert all_of(said in str(m) for m in known["rmia"])


def test_one_row_decides_no_column_of_a_private_training(spec: TrainSpec, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame({"y": rng.integers(0, 2, n), "x": rng.normal(size=n), "num": np.arange(1_000, 1_000 + n)})
    frame["case_id"] = rng.permutation(n)
    learned = []
    for change in (None, 1_001):
        one = frame.copy()
        if change is not None:
            one.loc[0, "num"] = change
        path = tmp_path / f"{change}.csv"
        one.to_csv(path, index=False)
        plain = replace(spec, data=str(path), target="y", positive=None, features=None)
        learned.append((read_rows(plain).features, read_rows(replace(plain, dp_epsilon=0.5)).features))
    assert learned[0][0] != learned[1][0]
    assert learned[0][1] == learned[1][1] == ("x", "num")
