"""Performance against scikit-learn and fairlearn, by hand, and by simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome
from auditor.models.audited_model import AuditedModel
from auditor.models.regression_model import AuditedRegressor
from auditor.run.run_audit import ask, no_data
from probes.performance import performance
from probes.performance.classification_performance import Answered, skill
from probes.performance.language_performance import plain_sentences, word_order
from probes.performance.performance import Performance
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, areas_of, misses, most_misses, normal_shift
from tests.toys.models import criterion


def measured(model: Any, data: AuditData, **options: Any) -> list[Measurement]:
    return Performance(**options).measure(model, data, np.random.default_rng(0))


def value(found: list[Measurement], metric: str, **group: str) -> float:
    [m] = [m for m in found if m.metric == metric and dict(m.group) == group and not m.at]
    return m.estimate.value


def classified(k: int, n: int = 600, *, sharp: float = 2.0) -> tuple[AuditedModel, AuditData, np.ndarray, np.ndarray]:
    """A model of k classes that is right more often than not; its probabilities (n, k), and each row's group."""
    rng = np.random.default_rng(k)
    truth = rng.choice(k, n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    logits = rng.normal(size=(n, k)) + sharp * np.eye(k)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    groups = rng.choice(["a", "b", "c"], n)
    names = [f"c{i}" for i in range(k)]
    frame = pd.DataFrame(p, columns=[f"p{i}" for i in range(k)])
    data = AuditData.from_arrays(
        frame, [names[t] for t in truth], classes=names, positive=names[-1], sensitive_features={"g": list(groups)}
    )
    return AuditedModel.from_callable(lambda X: X.to_numpy(), classes=names), data, p, groups


def ece(confidence: np.ndarray, hit: np.ndarray) -> float:
    """The slow way: bin by bin."""
    total = 0.0
    for b in range(10):
        own = (confidence >= b / 10) & ((confidence < (b + 1) / 10) | (b == 9))
        if own.any():
            total += own.mean() * abs(hit[own].mean() - confidence[own].mean())
    return total


def test_two_classes_as_scikit_learn_and_fairlearn_have_them() -> None:
    model, data, p, groups = classified(2)
    truth, decided = data.y_true, (p[:, 1] >= 0.5).astype(int)
    found = measured(model, data)
    frame = MetricFrame(
        metrics={"accuracy": accuracy_score, "balanced_accuracy": balanced_accuracy_score},
        y_true=truth, y_pred=decided, sensitive_features=groups,
    )  # fmt: skip
    scored = MetricFrame(
        metrics={"roc_auc": roc_auc_score, "log_loss": log_loss},
        y_true=truth,
        y_pred=p[:, 1],
        sensitive_features=groups,
    )
    for by in (frame, scored):
        for metric in by.by_group.columns:
            assert value(found, metric) == pytest.approx(by.overall[metric], abs=1e-12)
            for level in "abc":
                assert value(found, metric, g=level) == pytest.approx(by.by_group.loc[level, metric], abs=1e-12)
    assert value(found, "expected_calibration_error") == pytest.approx(ece(p[:, 1], truth == 1))
    own = groups == "b"
    assert value(found, "expected_calibration_error", g="b") == pytest.approx(ece(p[own, 1], truth[own] == 1))
    base = max(np.mean(truth == 0), np.mean(truth == 1))
    assert value(found, "base_rate") == pytest.approx(base)
    assert value(found, "accuracy_over_base_rate") == pytest.approx(accuracy_score(truth, decided) - base)


def test_more_classes_as_scikit_learn_has_them() -> None:
    model, data, p, groups = classified(4)
    truth, decided = data.y_true, p.argmax(axis=1)
    found = measured(model, data)
    assert value(found, "accuracy") == pytest.approx(accuracy_score(truth, decided))
    assert value(found, "balanced_accuracy") == pytest.approx(balanced_accuracy_score(truth, decided))
    assert value(found, "adjusted_balanced_accuracy") == pytest.approx(
        balanced_accuracy_score(truth, decided, adjusted=True)
    )
    assert value(found, "log_loss") == pytest.approx(log_loss(truth, p))
    assert value(found, "expected_calibration_error") == pytest.approx(ece(p.max(axis=1), truth == decided))
    own = groups == "a"
    assert value(found, "log_loss", g="a") == pytest.approx(log_loss(truth[own], p[own], labels=range(4)))
    assert "roc_auc" not in {m.metric for m in found}


def test_labels_in_place_of_scores() -> None:
    _, data, p, _ = classified(2)
    names = np.asarray(data.classes)
    decided = p.argmax(axis=1)
    model = AuditedModel.from_callable(lambda X: names[X.to_numpy().argmax(axis=1)], classes=names)
    found = measured(model, data)
    assert {m.metric for m in found} == {
        "accuracy", "base_rate", "accuracy_over_base_rate", "balanced_accuracy", "adjusted_balanced_accuracy",
    }  # fmt: skip
    # Of decisions of two classes, the area under the curve is the balanced accuracy.
    assert value(found, "balanced_accuracy") == pytest.approx(roc_auc_score(data.y_true, decided))
    assert value(found, "adjusted_balanced_accuracy") == pytest.approx(2 * roc_auc_score(data.y_true, decided) - 1)


def test_a_toy_by_hand() -> None:
    # Labels a a a b; decided a a b b: accuracy 3/4, recalls 2/3 and 1.
    model = AuditedModel.from_callable(lambda X: X["p"].to_numpy(), classes=("a", "b"))
    data = AuditData.from_arrays(
        pd.DataFrame({"p": [0.1, 0.2, 0.6, 0.9]}), ["a", "a", "a", "b"], classes=("a", "b"), positive="b"
    )
    found = measured(model, data)
    assert value(found, "accuracy") == 0.75
    assert value(found, "base_rate") == 0.75 and value(found, "accuracy_over_base_rate") == 0.0
    assert value(found, "balanced_accuracy") == pytest.approx(5 / 6)
    assert value(found, "log_loss") == pytest.approx(-math.log(0.9 * 0.8 * 0.4 * 0.9) / 4)
    assert math.isnan(value(found, "roc_auc"))
    assert found[0].metric == "roc_auc" and found[0].chance == 0.5


def test_rows_without_a_label_do_not_count() -> None:
    model, data, _, _ = classified(3)
    assert data.y_true is not None
    some = np.arange(len(data)) % 3 > 0
    holed = AuditData(
        X=data.X, y_true=np.where(some, data.y_true, -1), classes=data.classes, positive=data.positive,
        sensitive_features=data.sensitive_features,
    )  # fmt: skip
    for a, b in zip(measured(model, holed), measured(model, data.take(some)), strict=True):
        assert (a.metric, a.group, a.estimate) == (b.metric, b.group, b.estimate)


@pytest.mark.parametrize("classes", [2, 3])
def test_one_class_alone_has_no_skill_to_show(classes: int) -> None:
    model, data, _, _ = classified(classes)
    assert data.y_true is not None
    [first, *_] = measured(model, data.take(data.y_true == 1))
    assert first.chance is not None and math.isnan(first.estimate.value)


def test_what_is_missing_is_named() -> None:
    model, data, _, _ = classified(2)
    for rows in (no_data(), AuditData(X=data.X, classes=data.classes), data.take(np.zeros(len(data), bool))):
        with pytest.raises(NotApplicableError, match="--target COLUMN"):
            measured(model, rows)
    number: Any = AuditedRegressor.from_callable(lambda X: np.zeros(len(X)))
    with pytest.raises(NotApplicableError, match="--target COLUMN"):
        measured(number, AuditData(X=data.X))


@pytest.mark.parametrize("options", [{"bins": 1}, {"bins": 101}, {"n_samples": 1}, {"n_samples": 2.5}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Performance(**options)


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_numbers_as_scikit_learn_has_them() -> None:
    rng = np.random.default_rng(0)
    truth = rng.lognormal(size=500)
    predicted = truth + rng.normal(size=500)
    groups = rng.choice(["a", "b"], 500)
    data = AuditData.for_regression(pd.DataFrame({"p": predicted}), truth, sensitive_features={"g": groups.tolist()})
    model: Any = AuditedRegressor.from_callable(lambda X: X["p"].to_numpy())
    found = measured(model, data)
    assert value(found, "mean_absolute_error") == pytest.approx(mean_absolute_error(truth, predicted))
    assert value(found, "root_mean_squared_error") == pytest.approx(math.sqrt(mean_squared_error(truth, predicted)))
    assert value(found, "r_squared") == pytest.approx(r2_score(truth, predicted))
    own = groups == "a"
    assert value(found, "mean_absolute_error", g="a") == pytest.approx(mean_absolute_error(truth[own], predicted[own]))
    # The slow way: three standard deviations, and the best number out of many.
    limit = 3 * truth.std()
    best = min(np.minimum(((truth - c) / limit) ** 2, 1).mean() for c in np.linspace(0, truth.max(), 4_001))
    own_loss = np.minimum(((truth - predicted) / limit) ** 2, 1).mean()
    assert value(found, "error_gain") == pytest.approx(best - own_loss, abs=1e-4)
    assert all_of(m.too_few for m in found if m.metric != "error_gain")


@pytest.mark.parametrize("draw", ["normal", "lognormal", "mostly zero"])
def test_no_single_number_gains_on_the_best_one(draw: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.lognormal(sigma=1.5, size=400) if draw != "normal" else rng.normal(size=400)
    if draw == "mostly zero":
        truth = np.where(rng.random(400) < 0.7, 0.0, truth)
    for number in (truth.mean(), np.median(truth), truth.min(), 0.3 * truth.mean(), truth.max() + 5.0):
        [gain, *_] = performance.measure_predictions(truth, np.full(400, number))
        # The candidates are a grid.
        assert gain.estimate.value <= 1e-4 and gain.estimate.bounds(0.05)[0] < 0.0


def test_numbers_that_are_nearly_right_show_skill_whatever_the_target_looks_like() -> None:
    rng = np.random.default_rng(0)
    rare = np.where(rng.random(1_000) < 0.9, 0.0, rng.lognormal(4.0, 0.5, 1_000))
    for truth in (rng.normal(size=1_000), rng.lognormal(sigma=1.0, size=1_000), rare):
        predicted = truth + 0.5 * truth.std() * rng.normal(size=1_000)
        [gain, *_] = performance.measure_predictions(truth, predicted)
        assert gain.estimate.bounds(0.005)[0] > 0.0
        # Off by a constant, they are worse than the mean.
        [gain, *_] = performance.measure_predictions(truth, predicted + 5.0 * truth.std())
        assert gain.estimate.bounds(0.005)[1] < 0.0


def test_numbers_that_do_not_differ_have_nothing_to_predict() -> None:
    [gain, *_] = performance.measure_predictions(np.ones(20), np.arange(20.0))
    assert math.isnan(gain.estimate.value)


# ---- language ------------------------------------------------------------------------------------------------------


def test_the_sentences_are_what_they_should_be() -> None:
    found = plain_sentences()
    assert len(set(found)) == len(found) == 64
    assert all_of(sentence.endswith(".") and 7 <= len(sentence.split()) <= 15 for sentence in found)


def test_a_model_that_knows_the_texts_and_one_that_knows_nothing() -> None:
    from tests.probes.privacy.memorization.toys import parrot

    texts = plain_sentences()[:30]
    data = AuditData(X=np.asarray(texts, object))
    knows, blind = (measured(parrot(told), data) for told in (texts, []))
    assert value(knows, "word_order_accuracy") == 1.0
    assert value(knows, "perplexity") < 10.0
    # By hand: every character is as likely as any other of 72.
    assert value(blind, "perplexity") == pytest.approx(72.0, rel=1e-5)
    assert 0.2 < value(blind, "word_order_accuracy") < 0.8
    for found, shown in ((knows, Outcome.PASS), (blind, Outcome.INCONCLUSIVE)):
        result = ask(Performance(), parrot(texts if found is knows else []), data, np.random.default_rng(0))
        [first] = [
            f
            for f in judge([result], [criterion("word_order_accuracy", "at_least", 0.5)])[0]
            if f.criterion is not None
        ]
        assert first.outcome is shown


@pytest.mark.parametrize("blank", [[], [" ", "\n"]])
def test_rows_without_a_word_are_no_way_around_the_question(blank: list[str]) -> None:
    from tests.probes.privacy.memorization.toys import parrot

    found = measured(parrot([]), AuditData(X=np.asarray(blank, object)))
    [order] = [m for m in found if m.metric == "word_order_accuracy" and not m.at]
    assert "64 plain English sentences of this tool" in order.detail
    assert {m.metric for m in found} >= {"sense_accuracy", "word_order_accuracy"}


def test_the_words_alone_are_no_skill() -> None:
    """A model that knows how frequent words are and nothing of their order throws a coin."""
    from types import SimpleNamespace

    import torch
    from torch import Tensor, nn

    from auditor.models.language_model import AuditedLanguageModel
    from tests.probes.privacy.memorization.toys import char_tokenizer

    tokenizer = char_tokenizer()
    counts = torch.ones(len(tokenizer))
    for sentence in plain_sentences():
        for token in tokenizer(sentence, add_special_tokens=False).input_ids:
            counts[token] += 1

    class Unigram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(len(tokenizer), 2)
            self.config = SimpleNamespace(model_type="unigram")

        def get_input_embeddings(self) -> nn.Module:
            return self.table

        def get_output_embeddings(self) -> None:
            return None

        def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
            return SimpleNamespace(logits=counts.log().expand(*input_ids.shape, len(tokenizer)))

    model = AuditedLanguageModel(Unigram(), tokenizer, objective="causal", batch_tokens=8192)
    shares = [word_order(model, no_data(), 64, np.random.default_rng(seed)).estimate.value for seed in range(20)]
    assert value(measured(model, no_data()), "perplexity") < 30.0
    assert abs(np.mean(shares) - 0.5) < 3.3 * 0.5 / math.sqrt(20 * 64)


def test_a_network_that_was_never_trained_shows_no_skill_of_words_in_any_order() -> None:
    """Its likelihoods lie about that of a uniform guess: which side of it a text is on may not choose what counts."""
    from auditor.models.language_model import AuditedLanguageModel
    from tests.toys.language import WORDS, causal_tokenizer, tiny

    rng = np.random.default_rng(0)
    texts = np.asarray([" ".join(rng.choice(WORDS, 18)) for _ in range(300)], object)
    shares = [
        value(
            Performance(n_samples=300).measure(
                AuditedLanguageModel(tiny("gpt2", seed, initializer_range=0.02), causal_tokenizer()),
                AuditData(X=texts),
                np.random.default_rng(seed),
            ),
            "word_order_accuracy",
        )
        for seed in range(4)
    ]
    assert abs(np.mean(shares) - 0.5) < 3.3 * 0.5 / math.sqrt(4 * 300), shares


def test_perplexity_by_hand_and_by_group() -> None:
    from tests.probes.privacy.memorization.toys import parrot

    texts = ["abcdefgh", "hgfedcba", "aaaabbbb", "abcdefgh abcdefgh"]
    data = AuditData(X=np.asarray(texts, object), sensitive_features=pd.DataFrame({"g": ["x", "x", "y", "y"]}))
    model = parrot(texts[:1], 3.0)
    found = measured(model, data)
    each = [model.token_log_probabilities(model.encode([text]))[0] for text in texts]
    losses = np.asarray([-np.nansum(p) for p in each])
    n = np.asarray([np.isfinite(p).sum() for p in each])
    assert value(found, "perplexity") == pytest.approx(math.exp(losses.sum() / n.sum()))
    assert value(found, "perplexity", g="y") == pytest.approx(math.exp(losses[2:].sum() / n[2:].sum()))


# ---- the promise about errors --------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize(
    ("k", "n", "recall"), [(2, 40, 0.5), (2, 200, 0.5), (3, 60, 1 / 3), (5, 100, 0.2), (4, 40, 0.9)]
)
def test_bounds_of_recognition_hold(k: int, n: int, recall: float) -> None:
    """At chance, where answers are drawn without looking, and away from it."""
    rng = np.random.default_rng(1_000 * k + n)
    truth = np.repeat(np.arange(k), n // k)
    estimates = []
    for _ in range(WORLDS):
        other = (truth + rng.integers(1, k, truth.size)) % k
        decided = np.where(rng.random(truth.size) < recall, truth, other)
        rows = Answered(truth, decided, np.eye(k)[decided], k - 1)
        estimates.append(skill(rows, with_scores=False).estimate)
    below, above = misses(estimates, (recall * k - 1.0) / (k - 1.0))
    assert max(below, above) <= most_misses()


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["constant guess", "base rates", "one class"])
def test_answers_without_looking_rarely_show_skill(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    estimates = []
    for _ in range(WORLDS):
        truth = rng.choice(3, 90, p=[0.7, 0.2, 0.1])
        decided = {
            "constant guess": rng.integers(0, 3, 90), "base rates": rng.choice(3, 90, p=[0.7, 0.2, 0.1]),
            "one class": np.zeros(90, np.int64),
        }[kind]  # fmt: skip
        estimates.append(skill(Answered(truth, decided, np.eye(3)[decided], 2), with_scores=False).estimate)
    assert misses(estimates, 0.0)[0] <= most_misses()


@pytest.mark.parametrize(("m", "n"), [(20, 20), (10, 190), (100, 100)])
def test_scores_without_information_rarely_show_skill(m: int, n: int) -> None:
    rng = np.random.default_rng(m)
    normal = areas_of(rng.normal(size=(WORLDS, m)), rng.normal(size=(WORLDS, n)))
    rounded = areas_of(rng.integers(0, 2, (WORLDS, m)).astype(float), rng.integers(0, 2, (WORLDS, n)).astype(float))
    for worlds in (normal, rounded):
        assert max(misses(worlds, 0.5)) <= most_misses()


@pytest.mark.grid
@pytest.mark.parametrize("target", ["normal", "lognormal", "mostly zero"])
@pytest.mark.parametrize("n", [30, 200])
def test_numbers_without_information_rarely_show_skill(target: str, n: int) -> None:
    """Predictions from the target's own distribution, near the mean, and of the right spread: no gain, whatever n."""
    rng = np.random.default_rng(n)

    def draw(size: tuple[int, int]) -> np.ndarray:
        if target == "normal":
            return rng.normal(size=size)
        values = rng.lognormal(sigma=1.0, size=size)
        return np.where(rng.random(size) < 0.6, 0.0, values) if target == "mostly zero" else values

    truth, other = draw((WORLDS // 4, n)), draw((WORLDS // 4, n))
    for shrunk in (0.0, 0.1, 1.0):
        predicted = truth.mean() + shrunk * (other - truth.mean())
        shown = sum(performance._gain(t, p)[0].bounds(0.05)[0] > 0.0 for t, p in zip(truth, predicted, strict=True))
        assert shown <= most_misses(0.05, WORLDS // 4)


def test_the_bounds_of_a_gain_hold_at_the_bound() -> None:
    """Normal numbers predicted with twice the slope that the correlation allows: as good as the mean, by construction.

    Large errors count less, so the truth is a little off 0; it is found in a hundred times as many rows.
    """
    rng = np.random.default_rng(0)

    def world(n: int) -> tuple[np.ndarray, np.ndarray]:
        x, noise = rng.normal(size=(2, n))
        return 0.5 * x + math.sqrt(0.75) * noise, 1.0 * x

    truth = performance._gain(*world(400_000))[0].value
    assert abs(truth) < 0.002
    bounds = [performance._gain(*world(100))[0].bounds(0.05) for _ in range(WORLDS)]
    assert max(sum(low > truth for low, _ in bounds), sum(high < truth for _, high in bounds)) <= most_misses()


def test_the_stated_power() -> None:
    for metric, power in Performance.skill_power.items():
        rng = np.random.default_rng(0)
        half = power.n // 2
        if metric == "roc_auc":
            shift = normal_shift(power.effect)
            seen = areas_of(rng.normal(shift, 1.0, (WORLDS // 4, half)), rng.normal(size=(WORLDS // 4, half)))
        else:
            recall = 0.5 + power.effect / 2.0
            truth = np.repeat([0, 1], half)
            seen = []
            for _ in range(WORLDS // 4):
                decided = np.where(rng.random(power.n) < recall, truth, 1 - truth)
                seen.append(skill(Answered(truth, decided, np.eye(2)[decided], 1), with_scores=False).estimate)
        shown = np.mean([estimate.bounds(0.05)[0] > 0.5 * (metric == "roc_auc") for estimate in seen])
        assert 0.75 < shown < 0.95, (metric, shown)
