"""fairlearn's reductions over networks: what is learned from weighted rows, what is kept, what is saved and refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import MLP, MOST_MEMBERS, MLPVote
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigation, Training
from mitigations.training.exponentiated_gradient import ExponentiatedGradient
from mitigations.training.fairlearn_reductions import LastLayer, reducible, weighted_logistic
from mitigations.training.grid_search import GridSearch
from mitigations.training.retraining import untrained
from tests.mitigations.planted_rows import biased_rows, run, trained
from tests.quantifiers import all_of, none_of

FloatArray = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def rows() -> AuditData:
    return biased_rows(1500, 1)


def linear(rows: AuditData, recipe: Recipe) -> TorchModel:
    """A network without a hidden layer, which is a logistic regression."""
    assert isinstance(rows.X, pd.DataFrame)
    preprocessing = fit_tabular(rows.X)
    arguments = {"n_features": preprocessing.width, "hidden": [], "n_outputs": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MLP(**arguments)  # type: ignore[arg-type]
    return TorchModel(
        module,
        classes=[0, 1],
        preprocessing=preprocessing,
        architecture={"name": "mlp", "args": arguments},
        recipe=recipe,
    )


@pytest.fixture(scope="module")
def model(rows: AuditData) -> TorchModel:
    return linear(rows, Recipe(epochs=12, batch_size=256, learning_rate=0.05))


def gaps(chances: FloatArray, rows: AuditData) -> list[float]:
    """Differences of the two groups' mean chances among favourable labels, and among the others."""
    assert rows.sensitive_features is not None and rows.y_true is not None
    b = (rows.sensitive_features.group == "b").to_numpy()
    return [
        abs(float(chances[b & (rows.y_true == v)].mean() - chances[~b & (rows.y_true == v)].mean())) for v in (1, 0)
    ]


def test_a_weighted_step_is_the_one_by_hand(rows: AuditData) -> None:
    few = rows.take(slice(60))
    old = linear(few, Recipe(optimizer="sgd", epochs=1, batch_size=60, learning_rate=0.3))
    task = reducible(old, few, np.random.default_rng(0), Training(), epochs=None, fingerprint={})
    rng = np.random.default_rng(2)
    labels, weights = rng.integers(2, size=60), rng.uniform(0.1, 3.0, 60)
    new = task.trainer(np.arange(60), labels, weights)
    begun = untrained(old, np.random.default_rng(task.trainer.seed), "cpu", task.trainer.recipe)
    W, b = (p.detach().double().numpy() for p in begun.module.parameters())
    x = old.encode(few.X).double().numpy()
    z = x @ W.T + b
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    wrong = (weights / weights.mean())[:, None] * (p - np.eye(2)[labels]) / 60
    layer = list(new.module.parameters())
    assert layer[0].detach().numpy() == pytest.approx(W - 0.3 * wrong.T @ x, abs=1e-5)
    assert layer[1].detach().numpy() == pytest.approx(b - 0.3 * wrong.sum(axis=0), abs=1e-5)


# The peer's own use of pandas.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_grid_search_keeps_what_fairlearn_keeps_of_logistic_regressions(rows: AuditData, model: TorchModel) -> None:
    from fairlearn.reductions import EqualizedOdds
    from fairlearn.reductions import GridSearch as Fairlearn
    from sklearn.linear_model import LogisticRegression

    assert rows.sensitive_features is not None
    x = model.encode(rows.X).numpy()
    peer = Fairlearn(LogisticRegression(C=1e4), EqualizedOdds(), grid_size=10)
    peer.fit(x, rows.y_true, sensitive_features=rows.sensitive_features.group)
    made = run(GridSearch(grid_size=10, learner="network"), model, rows)
    same = made.model.decisions(rows) == peer.predict(x)
    assert same.mean() > 0.97
    assert f"network {peer.best_idx_ + 1} of {len(peer.predictors_)}" in made.notes[0]
    plain = LogisticRegression(C=1e4).fit(x, rows.y_true).predict(x).astype(float)
    assert max(gaps(made.model.decisions(rows).astype(float), rows)) < 0.85 * max(gaps(plain, rows))


def test_grid_search_over_last_layers_narrows_the_gap_at_a_fraction_of_the_time(rows: AuditData) -> None:
    old = trained(rows)
    made = run(GridSearch(), old, rows)
    told = re.search(r"network \d+ of (\d+) \((\d+) learned\)", made.notes[0])
    assert told is not None and int(told[1]) >= 100 and int(told[2]) > 50
    test = biased_rows(4000, 2)
    before, after = (max(gaps(m.decisions(test).astype(float), test)) for m in (old, made.model))
    assert after < 0.75 * before, (before, after)
    first = next(iter(old.module.parameters()))
    assert torch.equal(first, next(iter(made.model.module.parameters())))  # type: ignore[attr-defined]


@pytest.mark.parametrize("learner", ["last_layer", "network"])
def test_the_mixture_keeps_to_its_constraint_and_is_what_decides(
    rows: AuditData, model: TorchModel, learner: Literal["last_layer", "network"]
) -> None:
    made = run(ExponentiatedGradient(difference_bound=0.02, learner=learner), model, rows)
    assert isinstance(made.model, TorchModel) and isinstance(made.model.module, MLPVote)
    chances = made.model.predict_proba(rows.X)[:, 1]
    # Each group deviates from all rows by at most the bound and what fairlearn's search leaves open.
    assert max(gaps(chances, rows)) < 0.08
    assert float(made.model.module.weights.sum()) <= 1.0 + 1e-6
    assert len(made.model.module.members) >= 2
    # The notes' figures, counted here.
    assert rows.y_true is not None
    majority = made.model.decide(made.model.outputs(rows), 1)
    assert f"majority rule: error {float((majority != rows.y_true).mean()):.4f}" in made.notes[0]
    drawn = float(np.where(rows.y_true == 1, 1.0 - chances, chances).mean())
    assert f"randomised rule: error {drawn:.4f}" in made.notes[0]
    # What is served is the rule with the promise, not the majority.
    served = made.model.decisions(rows)
    open_ = (chances > 0.0) & (chances < 1.0)
    assert f"{int(open_.sum()):,} of 1,500 rows" in made.notes[1] and open_.sum() > 50
    assert np.array_equal(served[~open_], chances[~open_] > 0.5)
    spread = float(np.sqrt((chances * (1.0 - chances))[open_].sum()))
    assert abs(float((served - chances)[open_].sum())) < 4.0 * spread
    assert not np.array_equal(served, majority)


def test_the_same_row_is_always_drawn_alike_and_the_majority_draws_nothing(rows: AuditData, model: TorchModel) -> None:
    made = run(ExponentiatedGradient(difference_bound=0.02), model, rows).model
    order = np.random.default_rng(0).permutation(len(rows))
    assert np.array_equal(made.decisions(rows)[order], made.decisions(rows.take(order)))
    # A changed row is another draw.
    assert isinstance(rows.X, pd.DataFrame)
    chances = made.predict_proba(rows.X)[:, 1]
    moved = replace(rows, X=rows.X.assign(other=rows.X.other + 1e-3))
    same = np.isclose(made.predict_proba(moved.X)[:, 1], chances) & (chances > 0.05) & (chances < 0.95)
    changed = (made.decisions(moved) != made.decisions(rows))[same]
    assert same.sum() > 50 and 0.0 < changed.mean() < 0.6
    voted = run(ExponentiatedGradient(difference_bound=0.02, rule="majority"), model, rows)
    assert np.array_equal(voted.model.decisions(rows), voted.model.predict_proba(rows.X)[:, 1] >= 0.5)
    assert "nothing is promised of the majority" in voted.notes[1]


def test_last_layers_are_logistic_regressions_of_the_layer_below(rows: AuditData) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(400, 3)) * [1.0, 5.0, 0.2], np.ones(400)])
    y, w = rng.integers(2, size=400), rng.uniform(0.1, 3.0, 400)
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=2000).fit(x[:, :3], y, sample_weight=w / w.mean())
    assert weighted_logistic(x, y, w) == pytest.approx([*peer.coef_[0], *peer.intercept_], abs=2e-4)
    old = trained(rows, epochs=3)
    for positive in (0, 1):
        task = reducible(
            old, replace(rows, positive=positive), np.random.default_rng(0), Training(), epochs=None, fingerprint={}
        )
        learned = LastLayer(task.trainer).estimator().fit(task.X, task.y, np.ones(len(rows)))
        whole = old.with_module(learned.member())
        decided = (whole.decide(whole.predict_proba(rows.X), positive) == positive).astype(int)
        assert (decided == learned.predict(task.X)).mean() > 0.999
        assert (decided == task.y).mean() > 0.75
    assert all_of(
        torch.equal(a, b)
        for a, b in zip(list(old.module.parameters())[:-2], list(whole.module.parameters())[:-2], strict=True)
    )


def test_a_vote_of_an_earlier_version_is_decided_by_the_majority(rows: AuditData, model: TorchModel) -> None:
    made = run(ExponentiatedGradient(max_iter=4), model, rows).model
    assert isinstance(made, TorchModel) and made.architecture is not None
    args = {k: v for k, v in made.architecture["args"].items() if k != "decision_seed"}
    earlier = MLPVote(**args)
    earlier.load_state_dict(made.module.state_dict())
    old = TorchModel(earlier.eval(), classes=[0, 1], preprocessing=made.preprocessing, outputs="probabilities")
    assert np.array_equal(old.decisions(rows), old.predict_proba(rows.X)[:, 1] >= 0.5)
    with pytest.raises(ValueError, match="decision_seed"):
        MLPVote(1, 4, [5], 1, decision_seed=-1)


@pytest.mark.parametrize("positive", [0, 1])
def test_a_vote_is_the_weighted_count(positive: int) -> None:
    generator = torch.Generator().manual_seed(0)
    module = MLPVote(3, 4, [5], positive, threshold=0.4)
    with torch.no_grad():
        for p in module.members.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
        module.weights.copy_(torch.tensor([0.4, 0.2, 0.25, 0.1]))
    x = torch.randn(50, 4, generator=generator)
    for row, said in zip(x, module(x), strict=True):
        chance = 0.1
        for weight, member in zip((0.4, 0.2, 0.25), module.members, strict=True):
            chance += weight * (float(torch.softmax(member(row[None]).detach(), dim=1)[0, positive]) >= 0.4)
        assert float(said[positive]) == pytest.approx(chance, abs=1e-6)
        assert float(said.sum()) == pytest.approx(1.0)
    assert len(set(module(x)[:, positive].tolist())) > 3
    with pytest.raises(ValueError, match="at most"):
        MLPVote(MOST_MEMBERS + 1, 4, [5], 1)


@pytest.mark.parametrize("positive", [0, 1])
def test_the_bundle_is_the_model(rows: AuditData, tmp_path: Path, positive: int) -> None:
    few = replace(rows.take(slice(400)), positive=positive)
    old = linear(few, Recipe(epochs=4, batch_size=100, learning_rate=0.05))
    for mitigation in (GridSearch(grid_size=4), ExponentiatedGradient(max_iter=4)):
        made = run(mitigation, old, few).model
        save(made, tmp_path / "m.pt")
        again = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
        assert np.allclose(again.predict_proba(rows.X), made.predict_proba(rows.X), atol=1e-6)
        assert np.array_equal(again.decisions(few), made.decisions(few))
    with pytest.raises(ModelError, match="how it was trained"):
        run(GridSearch(), made, few)


EVERY: list[Mitigation] = [
    GridSearch(grid_size=3, epochs=2),
    ExponentiatedGradient(max_iter=3, learner="network", epochs=2),
]


@pytest.mark.parametrize("mitigation", EVERY, ids=lambda m: m.name)
def test_the_seed_decides_and_an_interrupted_search_goes_on(
    rows: AuditData, model: TorchModel, mitigation: Mitigation, tmp_path: Path
) -> None:
    few = rows.take(slice(300))
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    state = torch.get_rng_state()

    class Stop(Exception):
        pass

    seen: list[str] = []

    def stop(words: str) -> None:
        seen.append(words)
        if words.startswith("network 2: epoch 1"):
            raise Stop

    def train(seed: int, progress=None, checkpoint: Path | None = None) -> FloatArray:  # type: ignore[no-untyped-def]
        training = Training(checkpoint=checkpoint, progress=progress)
        return mitigation.mitigate(model, few, np.random.default_rng(seed), training).model.predict_proba(rows.X)

    whole = train(1)
    with pytest.raises(Stop):
        train(1, stop, tmp_path / "c")
    # The first network is not trained again: its two epochs are in its checkpoint.
    again: list[str] = []
    assert np.array_equal(train(1, again.append, tmp_path / "c"), whole)
    assert seen[0].startswith("network 1: epoch 1") and none_of(words.startswith("network 1:") for words in again)
    assert np.array_equal(train(1), whole) and not np.array_equal(train(2), whole)
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mitigation", EVERY, ids=lambda m: m.name)
def test_what_cannot_be_done_is_refused(rows: AuditData, model: TorchModel, mitigation: Mitigation) -> None:
    with pytest.raises(ModelError, match="post-processing"):
        run(mitigation, AuditedModel.from_callable(lambda X: X.skill > 0, classes=[0, 1]), rows)
    with pytest.raises(UsageError, match="--sensitive"):
        run(mitigation, model, replace(rows, sensitive_features=None))
    assert rows.sensitive_features is not None
    with pytest.raises(DataError, match="one group only"):
        run(mitigation, model, rows.take((rows.sensitive_features.group == "a").to_numpy()))
    three = {"n_features": 3, "hidden": [], "n_outputs": 3}
    with pytest.raises(ModelError, match="two classes"):
        run(
            mitigation,
            TorchModel(
                MLP(**three),  # type: ignore[arg-type]
                classes=["a", "b", "c"],
                architecture={"name": "mlp", "args": three},
                recipe=Recipe(),
            ),
            rows,
        )


def test_other_networks_are_for_grid_search() -> None:
    from auditor.data.preprocessing import ImagePreprocessing
    from auditor.models.networks.architectures import SmallCNN

    rng = np.random.default_rng(0)
    group = rng.choice(["a", "b"], 80)
    y = rng.integers(2, size=80)
    pictures = rng.integers(0, 120, (80, 8, 8, 1)).astype(np.uint8)
    pictures[y == 1] += 90
    data = AuditData.from_arrays(pictures, y, classes=[0, 1], positive=1, sensitive_features={"group": list(group)})
    arguments = {"channels": 1, "n_outputs": 2, "width": 4}
    cnn = TorchModel(
        SmallCNN(**arguments),
        classes=[0, 1],
        preprocessing=ImagePreprocessing(size=(8, 8), mean=(0.5,), std=(0.25,)),
        architecture={"name": "small_cnn", "args": arguments},
        recipe=Recipe(epochs=2, batch_size=20),
    )
    with pytest.raises(ModelError, match="grid_search"):
        run(ExponentiatedGradient(), cnn, data)
    with pytest.raises(ModelError, match="learner=network"):
        run(GridSearch(learner="last_layer"), cnn, data)
    assert run(GridSearch(grid_size=2), cnn, data).model.predict_proba(pictures).shape == (80, 2)


def test_options_out_of_range_are_refused() -> None:
    for kind, options in (
        (GridSearch, {"constraint": "fairness"}),
        (GridSearch, {"grid_size": 1}),
        (GridSearch, {"grid_limit": 0.0}),
        (GridSearch, {"learner": "forest"}),
        (GridSearch, {"learner": "last_layer", "epochs": 3}),
        (GridSearch, {"constraint_weight": 1.5}),
        (ExponentiatedGradient, {"constraint": "equal_opportunity"}),
        (ExponentiatedGradient, {"difference_bound": -0.1}),
        (ExponentiatedGradient, {"eps": 0.0}),
        (ExponentiatedGradient, {"max_iter": 0}),
        (ExponentiatedGradient, {"learner": "network", "epochs": 0}),
        (ExponentiatedGradient, {"epochs": 3}),
        (ExponentiatedGradient, {"learner": "forest"}),
        (ExponentiatedGradient, {"rule": "lottery"}),
    ):
        with pytest.raises(ValueError):
            kind(**options)  # type: ignore[arg-type]
