"""Membership inference with shadow models in an audit: what it finds, what it says, what it does not accuse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from torch import nn

from auditor.core.errors import DataError, NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import MLP, BiLSTMText
from auditor.models.torch_model import TorchModel
from auditor.run.checks.contract import check_probe
from auditor.statistics.estimate import Undefined
from auditor.statistics.rank_estimates import AreaUnderCurve
from auditor.training.retrain_recipe import blueprint_of
from probes.privacy.membership.attack_results import CHEAP, WITH_SHADOWS
from probes.privacy.membership.membership_inference import MembershipInference
from probes.privacy.membership.shadow_models import Shadows, blind_auc, pool_of, train_shadows
from tests.quantifiers import all_of
from tests.statistics.worlds import misses, most_misses

Floats = npt.NDArray[np.float64]
NAMES = [f"x{i}" for i in range(6)]


def table(n: int, seed: int) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Rows whose labels are half noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, len(NAMES))).astype(np.float32)
    return pd.DataFrame(X, columns=NAMES), (X[:, 0] + 1.5 * rng.normal(size=n) > 0).astype(np.int64)


def fitted(
    X: pd.DataFrame, y: npt.NDArray[np.int64], *, hidden: int = 32, epochs: int = 40, seed: int = 0
) -> TorchModel:
    """A network trained on all rows, with its architecture and recipe."""
    recipe = Recipe(learning_rate=1e-2, epochs=epochs, batch_size=32)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = MLP(len(NAMES), [hidden], 2)
    inputs, labels = torch.from_numpy(X.to_numpy(copy=True)), torch.from_numpy(y)
    optimizer = torch.optim.Adam(module.parameters(), lr=recipe.learning_rate)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(y), generator=generator), recipe.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return TorchModel(
        module,
        classes=[0, 1],
        architecture={"name": "mlp", "args": {"n_features": len(NAMES), "hidden": [hidden], "n_outputs": 2}},
        recipe=recipe,
    )


def audit_rows(n: int, seed: int, groups: Sequence[str] = ()) -> AuditData:
    """n rows, the first half members."""
    X, y = table(n, seed)
    sensitive = None if not groups else {"group": [groups[i % len(groups)] for i in range(n)]}
    return AuditData.from_arrays(X, y, classes=[0, 1], is_member=np.arange(n) < n // 2, sensitive_features=sensitive)


def measure(model: AuditedModel, data: AuditData, **options: Any) -> list[Measurement]:
    """All measurements under a fixed seed."""
    return MembershipInference(**options).measure(model, data, np.random.default_rng(0))


def of(found: list[Measurement], method: str, metric: str, **at: object) -> Measurement:
    """The one measurement of a method and metric, of no group."""
    (one,) = [
        m for m in found if (m.method, m.metric) == (method, metric) and not m.group and (not at or dict(m.at) == at)
    ]
    return one


@pytest.fixture(scope="module")
def leaky() -> tuple[TorchModel, AuditData]:
    """An over-fitted network and its rows."""
    data = audit_rows(600, 0, ("a", "b", "c"))
    assert data.members is not None
    X = data.members.X
    assert isinstance(X, pd.DataFrame) and data.members.y_true is not None
    return fitted(X, data.members.y_true, hidden=64, epochs=60), data


@pytest.fixture(scope="module")
def all_found(leaky: tuple[TorchModel, AuditData]) -> list[Measurement]:
    """All attacks on it."""
    return measure(*leaky, methods="all", n_shadows=16, n_queries=6)


# ---- what it finds -------------------------------------------------------------------------------------------------


def test_every_attack_beats_chance_on_an_overfitted_model(all_found: list[Measurement]) -> None:
    for method in MembershipInference.methods:
        low, _ = of(all_found, method, "attack_auc").estimate.bounds(0.025)
        assert low > 0.5, method
    plain = of(all_found, "loss_threshold", "attack_auc").estimate.value
    for method in ("lira_online", "rmia", "difficulty_calibration"):
        assert of(all_found, method, "attack_auc").estimate.value > plain + 0.01


def test_the_default_is_the_cheap_attacks_rmia_and_bavaria(leaky: tuple[TorchModel, AuditData]) -> None:
    found = measure(*leaky)
    assert tuple(dict.fromkeys(m.method for m in found)) == ("", *CHEAP, "rmia", "bavaria")
    assert MembershipInference(methods="lira_online,rmia").wanted == ("lira_online", "rmia")


def test_shadow_models_say_what_an_attacker_must_know(all_found: list[Measurement]) -> None:
    detail = of(all_found, "lira_online", "attack_auc").detail
    assert "300 members and 300 non-members" in detail
    assert "threat model: an attacker who sees the probability of the true label" in detail
    assert "trains 16 shadow models on 300 rows each" in detail
    assert (
        "the target's own architecture (mlp) trained by its own recipe (adam, learning rate 0.01, 60 epochs" in detail
    )
    assert "independent, given the audited model and the shadow models" in detail
    assert "the first 4 are the reference models" in of(all_found, "rmia", "attack_auc").detail
    assert (
        "half of the non-members, which are not attacked" in of(all_found, "quantile_regression", "attack_auc").detail
    )
    assert "sees decisions only" in of(all_found, "label_only", "attack_auc").detail


def test_one_figure_holds_every_curve(all_found: list[Measurement]) -> None:
    (figure,) = [m.figure for m in all_found if m.figure is not None]
    assert figure.kind == "roc" and len(figure.series) == len(MembershipInference.methods)


def test_groups_are_attacked_by_the_strongest_attack_that_was_asked_for(all_found: list[Measurement]) -> None:
    groups = [m for m in all_found if m.group]
    assert {m.method for m in groups} == {"bavaria"}
    each = ("attack_auc", "true_positive_rate_at_fpr", "discovered_members", "discovered_share")
    assert sorted((m.metric, m.group["group"]) for m in groups) == sorted((x, g) for x in each for g in "abc")
    (gap,) = [m for m in all_found if m.metric == "true_positive_rate_at_fpr_difference"]
    assert (gap.method, gap.sensitive) == ("bavaria", ("group",)) and 0.0 <= gap.estimate.value <= 1.0
    assert all_of(m.n_samples == 200 for m in groups)


def test_the_most_exposed_rows_are_named_by_number(leaky: tuple[TorchModel, AuditData]) -> None:
    """A training row far out, with the label that no other row there has, is one of the ten of 300."""
    _, data = leaky
    y = np.asarray(data.y_true).copy()
    X = data.X.copy()
    assert isinstance(X, pd.DataFrame)
    X.iloc[41] = [9.0, 0, 0, 0, 0, 0]
    y[41] = 0  # against the rule, and far out
    odd = AuditData.from_arrays(X, y, classes=[0, 1], is_member=data.is_member)
    assert odd.members is not None and isinstance(odd.members.X, pd.DataFrame) and odd.members.y_true is not None
    target = fitted(odd.members.X, odd.members.y_true, epochs=80)
    found = measure(target, odd, methods="lira_online", n_shadows=16)
    detail = of(found, "lira_online", "true_positive_rate_at_no_false_positive").detail
    assert "the most exposed rows of --train, counted from 1 after the header" in detail
    listed = detail.split("score as high: ")[1].split(";")[0].split(", ")
    assert len(listed) == 10 and any(entry.startswith("42 (") for entry in listed)
    assert "9.0" not in detail


def test_without_false_positives_is_the_share_above_every_non_member(all_found: list[Measurement]) -> None:
    found = of(all_found, "lira_online", "true_positive_rate_at_no_false_positive")
    one_percent = of(all_found, "lira_online", "true_positive_rate_at_fpr", false_positive_rate=0.01)
    assert found.n_samples == one_percent.n_samples == 600 and found.estimate.value <= one_percent.estimate.value
    assert "its false positive rate is at most 0.0099 at 95 % confidence" in found.detail


def test_the_same_seed_gives_the_same_and_the_checkpoint_changes_nothing(
    leaky: tuple[TorchModel, AuditData], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": "lira_online", "n_shadows": 4}
    plain, kept, read = (measure(*leaky, **options, checkpoint=c) for c in (None, str(tmp_path), str(tmp_path)))
    assert plain == kept
    assert [m.estimate for m in read] == [m.estimate for m in plain]
    assert "4 of 4 models were read from the checkpoint folder" in of(read, "lira_online", "attack_auc").detail


# ---- surrogates ----------------------------------------------------------------------------------------------------


def test_a_model_of_another_kind_gets_a_surrogate_that_is_stated() -> None:
    data = audit_rows(400, 1)
    assert data.members is not None
    model = LogisticRegression().fit(data.members.X, np.asarray(data.members.y_true))
    audited = AuditedModel.from_callable(lambda X: model.predict_proba(X), classes=[0, 1])
    detail = of(measure(audited, data, methods="rmia"), "rmia", "attack_auc").detail
    assert "4 shadow models" in detail
    assert "a surrogate architecture, the target's being unknown: mlp of 64 and 32 units" in detail
    assert "the default recipe, its own being unknown" in detail


def test_blueprints_of_modules() -> None:
    X = np.zeros((4, 6), np.float32)
    own = TorchModel(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), classes=[0, 1])
    blueprint = blueprint_of(own, X)
    assert "own architecture (Sequential)" in blueprint.described and not blueprint.known
    torch.manual_seed(0)
    fresh = blueprint.make()
    assert not torch.equal(next(fresh.parameters()), next(own.module.parameters()))

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(6, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    # A parameter that no layer can draw anew would keep what the target learned.
    assert "a surrogate architecture" in blueprint_of(TorchModel(Bare(), classes=[0, 1]), X).described
    images = blueprint_of(
        AuditedModel.from_callable(lambda X: np.full((len(X), 2), 0.5), classes=[0, 1]),
        np.zeros((2, 16, 16, 3), np.uint8),
    )
    assert images.make()(images.encode(np.zeros((2, 16, 16, 3), np.uint8))).shape == (2, 2)
    texts = AuditedModel.from_callable(lambda X: np.full((len(X), 2), 0.5), classes=[0, 1])
    with pytest.raises(NotApplicableError, match="save it as a bundle"):
        blueprint_of(texts, np.asarray(["a", "b"], object))
    private = TorchModel(MLP(6, [4], 2), classes=[0, 1], recipe=Recipe(epsilon=1.0))
    assert "without its DP-SGD" in blueprint_of(private, X).described


def test_shadows_hold_loss_and_odds_of_the_true_label(leaky: tuple[TorchModel, AuditData]) -> None:
    pool = pool_of(*leaky)
    shadows = train_shadows(leaky[0], pool, 4, np.random.default_rng(0))
    assert shadows.loss.shape == (4, 600) and (shadows.inside.sum(axis=1) == 300).all()
    np.testing.assert_allclose(shadows.loss, np.log1p(np.exp(-shadows.log_odds)), rtol=1e-9)
    # They fit their own half, and only that.
    hit = shadows.loss < np.log(2)
    assert hit[shadows.inside].mean() > hit[~shadows.inside].mean() + 0.1


def test_the_fit_of_shadow_models_is_said_beside_that_of_the_model(leaky: tuple[TorchModel, AuditData]) -> None:
    pool = pool_of(*leaky)
    inside = np.zeros((2, len(pool.labels)), bool)
    inside[0, ::2] = inside[1, 1::2] = True
    loss = np.where(inside, 0.25, 1.5)
    said = Shadows(loss=loss, log_odds=-loss, inside=inside, threat_model="").fit(pool)
    assert "0.25 on rows they learned and 1.5 on others" in said
    assert f"{pool.members.mean():.3g} on members and {pool.non_members.mean():.3g} on non-members" in said


def test_texts_of_a_bundle_get_shadow_models_of_their_own_kind() -> None:
    """A recurrent network is trained one by one, and the threat model says so."""
    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice(list("abcdef"), 5)) for _ in range(400)]
    texts = list(dict.fromkeys(words))[:120]
    module = BiLSTMText(7, 2, 4, 4, 4)
    model = TorchModel(
        module,
        classes=[0, 1],
        encoder=lambda rows: torch.tensor([[1 + "abcdef".index(w) for w in text.split()] for text in rows]),
        architecture={
            "name": "bilstm_text",
            "args": {"n_words": 7, "n_outputs": 2, "embedding_dim": 4, "hidden_size": 4, "dense": 4},
        },
        recipe=Recipe(epochs=2),
    )
    data = AuditData.from_arrays(texts, [0, 1] * 60, classes=[0, 1], is_member=np.arange(120) < 60)
    found = of(
        measure(model, data, methods="difficulty_calibration", n_shadows=4), "difficulty_calibration", "attack_auc"
    )
    assert "own architecture (bilstm_text)" in found.detail and "trained one by one, because vmap" in found.detail
    assert found.n_samples == 120


# ---- the files -----------------------------------------------------------------------------------------------------


def test_files_that_differ_without_the_model_are_remarked_on() -> None:
    data = audit_rows(800, 6)
    assert isinstance(data.X, pd.DataFrame)
    model = AuditedModel.from_callable(lambda X: np.full((len(X), 2), 0.5), classes=[0, 1])
    options: dict[str, Any] = {"methods": "quantile_regression"}
    assert "told apart" not in of(measure(model, data, **options), "quantile_regression", "attack_auc").detail
    shifted = AuditData.from_arrays(
        data.X.assign(x3=data.X.x3 + 1.0 * np.asarray(data.is_member)),
        data.y_true,
        classes=[0, 1],
        is_member=data.is_member,
    )
    detail = of(measure(model, shifted, **options), "quantile_regression", "attack_auc").detail
    assert "the two files can be told apart without asking the model" in detail


def test_the_blind_baseline_is_not_made_by_chance() -> None:
    model = AuditedModel.from_callable(lambda X: np.full((len(X), 2), 0.5), classes=[0, 1])
    missed = 0
    for seed in range(40):
        estimate = blind_auc(pool_of(model, audit_rows(240, seed)), np.random.default_rng(seed))
        assert isinstance(estimate, AreaUnderCurve)
        low, high = estimate.bounds(0.025)
        missed += not low <= 0.5 <= high
    assert missed <= most_misses(worlds=40)


# ---- the contract --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_shadow_attacks_keep_the_contract(leaky: tuple[TorchModel, AuditData]) -> None:
    X, y = table(1_100, 77)
    probe = MembershipInference(methods=("lira_online", "rmia", "label_only"), n_shadows=8, n_queries=3)
    criterion = Criterion(metric="attack_auc", direction="at_most", bound=0.6, source="t", set_by="t", set_at="t")
    honest = fitted(X, y, epochs=2)
    check_probe(
        probe,
        ideal_model=honest,
        ideal_data=audit_rows(2200, 78),
        violating_model=leaky[0],
        violating_data=leaky[1],
        criteria=[criterion],
        # Each world would train shadow models anew; error rates and power have tests of their own.
        worlds=0,
        key="membership_inference",
    )


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": "lira"}, "methods must be auto, all or out of"),
        ({"methods": ()}, "not none"),
        ({"n_shadows": 7}, "n_shadows must be even"),
        ({"n_shadows": 2, "n_references": 2}, "at least 4"),
        ({"n_references": 80}, "at most n_shadows"),
        ({"n_queries": 0}, "n_queries must be a whole number"),
        ({"checkpoint": "here"}, "absolute path"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MembershipInference(**options)


def test_a_label_that_the_model_does_not_have_is_named() -> None:
    data = audit_rows(40, 2)
    strange = AuditData(X=data.X, y_true=np.full(40, 2, np.int64), classes=("0", "1"), is_member=data.is_member)
    model = AuditedModel.from_callable(lambda X: np.full((len(X), 2), 0.5), classes=[0, 1])
    with pytest.raises(DataError, match="class 2, and the model has 2 classes"):
        measure(model, strange)


def test_a_model_of_labels_only_says_which_attack_is_left() -> None:
    data = audit_rows(400, 3)
    model = AuditedModel.from_callable(lambda X: np.eye(2)[(X.x0.to_numpy() > 0).astype(int)], classes=[0, 1])
    found = measure(model, data, methods="all", n_queries=3)
    for method in (*WITH_SHADOWS, "quantile_regression"):
        estimate = of(found, method, "attack_auc").estimate
        assert isinstance(estimate, Undefined) and "labels without confidence" in estimate.reason
    assert "labels without confidence" in of(found, "loss_threshold", "attack_auc").detail
    assert np.isfinite(of(found, "label_only", "attack_auc").estimate.value)


def test_too_few_rows_say_how_many_it_takes() -> None:
    data = audit_rows(30, 4)
    model = AuditedModel.from_callable(lambda X: np.full((len(X), 2), 0.5), classes=[0, 1])
    found = measure(model, data, methods="all", n_queries=3)
    assert "at least 20 members and as many non-members" in of(found, "lira_online", "attack_auc").detail
    assert "at least 80 non-members" in of(found, "quantile_regression", "attack_auc").detail
    assert "100 are needed" in of(found, "loss_threshold", "true_positive_rate_at_no_false_positive").too_few
    for m in found:
        if m.method in WITH_SHADOWS:
            assert isinstance(m.estimate, Undefined)


def test_texts_have_no_quantiles_and_groups_unknown_of_members_are_left_out() -> None:
    texts = [f"text {i}" for i in range(200)]
    groups = ["(missing)"] * 100 + ["a", "b"] * 50
    data = AuditData.from_arrays(
        texts, [0, 1] * 100, classes=[0, 1], is_member=np.arange(200) < 100, sensitive_features={"g": groups}
    )
    model = AuditedModel.from_callable(lambda X: np.random.default_rng(0).dirichlet([1, 1], len(X)), classes=[0, 1])
    model.check_repeatable = lambda *_: None  # type: ignore[method-assign]
    found = measure(model, data)
    assert "columns of a table" in of(found, "quantile_regression", "attack_auc").detail
    assert not [m for m in found if m.group]


@pytest.mark.parametrize("medium", ["image", "sound", "text"])
def test_a_method_for_tables_is_not_applicable_to_media(medium: str) -> None:
    rng = np.random.default_rng(0)
    X: Any = {
        "image": rng.integers(0, 256, (200, 2, 2, 3)).astype(np.uint8),
        "sound": rng.integers(-99, 99, (200, 256)).astype(np.int16),
        "text": [f"text {i}" for i in range(200)],
    }[medium]
    # Worse on members than on others, all but certainly: a doubt about the files, which is not the reason here.
    labels = [0] * 100 + [1] * 100
    data = AuditData.from_arrays(X, labels, classes=[0, 1], is_member=np.arange(200) < 100)
    model = AuditedModel.from_callable(lambda X: np.full(len(X), 0.8), classes=[0, 1])
    result = ProbeResult(
        probe="membership_inference",
        pillar="privacy",
        citation="",
        measurements=tuple(measure(model, data, methods="auto")),
    )
    findings = judge([result], load_criteria())[0]
    own = [f for f in findings if f.measurement is not None and f.measurement.method == "quantile_regression"]
    assert len(own) == 5 and {f.outcome for f in own} == {Outcome.NOT_APPLICABLE}
    assert {f.reason for f in own} == {own[0].reason} and "reads the columns of a table" in own[0].reason
    others = [f for f in findings if f.measurement is not None and f.measurement.method == "loss_threshold"]
    # But for a rate among fewer than one of these rows.
    assert [f.metric for f in others if f.outcome is Outcome.NOT_APPLICABLE] == ["true_positive_rate_at_fpr"]
    assert len(others) == 5


# ---- error rates ---------------------------------------------------------------------------------------------------


def judged(found: list[Measurement], metric: str, bound: float) -> list[Judgement]:
    """The findings of one metric at most ``bound``, each as a judgement of its own at 5 %."""
    criterion = Criterion(metric=metric, direction="at_most", bound=bound, source="t", set_by="t", set_at="t")
    findings: list[Judgement] = []
    for m in found:
        if m.metric == metric and not m.group:
            result = ProbeResult(probe="membership_inference", pillar="privacy", citation="", measurements=(m,))
            findings += [f for f in judge([result], [criterion], Family(error_rate=0.05))[0] if f.criterion is not None]
    return findings


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("worlds", [25, 100])
def test_exchangeable_members_are_not_called_a_leak_by_any_attack(worlds: int) -> None:
    """A model of other rows; the bound is 0.5, which is the truth.

    Every world trains shadow models, so there are few, a quarter of them in the quick ring: of all, a bound missed
    twice as often is seen one time in eight by their number alone. So an attack's areas must also lie around 0.5, all
    together: off it by half a standard error each, they are seen 98 times in 100. The bound itself has 2,000 worlds in
    test_loss_threshold.py.
    """
    X, y = table(200, 10_000)
    model = fitted(X, y, hidden=8, epochs=10)
    model.recipe = Recipe(learning_rate=1e-2, epochs=4, batch_size=32)
    probe = MembershipInference(methods="all", n_shadows=8, n_queries=3)
    areas: dict[str, list[AreaUnderCurve]] = {method: [] for method in MembershipInference.methods}
    for seed in range(worlds):
        found = probe.measure(model, audit_rows(260, seed), np.random.default_rng(seed))
        for m in found:
            if m.metric == "attack_auc" and m.method and not m.group:
                assert isinstance(m.estimate, AreaUnderCurve)
                areas[m.method].append(m.estimate)
    assert all_of(len(own) == worlds for own in areas.values())
    fails = {method: misses(own, 0.5)[0] for method, own in areas.items()}
    assert binom.sf(most_misses(worlds=100), 100, 0.10) > 0.12
    assert max(fails.values()) <= most_misses(worlds=worlds), fails
    off = {method: sum((a.centre - 0.5) / a.standard_error_at(0.5) for a in own) for method, own in areas.items()}
    assert max(off.values()) < 3.0 * worlds**0.5, off


@pytest.mark.slow
def test_a_memorising_model_fails_under_shadow_attacks_where_the_profile_bound_is() -> None:
    fails = 0
    for seed in range(5):
        data = audit_rows(600, 500 + seed)
        assert data.members is not None and isinstance(data.members.X, pd.DataFrame)
        model = fitted(data.members.X, np.asarray(data.members.y_true), seed=seed)
        found = measure(model, data, methods="rmia")
        fails += any(f.outcome is Outcome.FAIL for f in judged(found, "attack_auc", 0.55))
    assert fails == 5
