"""The mitigations of fairlearn and AIF360 that the benchmark of mitigations runs beside ours, on the same rows.

Those that need tensorflow (AIF360's AdversarialDebiasing) or a program of their own (its PrejudiceRemover,
DisparateImpactRemover), and its slow ones (MetaFairClassifier, GerryFairClassifier, OptimPreproc) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.data.audit_data import AuditData
from auditor.models.torch_model import TorchModel
from benchmarks.debiasing_data import Split

Chances = npt.NDArray[np.float64]
# A name of the setting, and the chances of the favourable decision on the rows to choose by and to judge on.
Made = tuple[str, Chances, Chances]
BOUNDS = (0.01, 0.05)
ALPHAS = (1.0,)
# As many as ours takes at least: two networks take longer than one.
FEWEST_EPOCHS = 60


def encoded(plain: TorchModel, of: Split) -> list[npt.NDArray[np.float32]]:
    """The three parts as the network reads them."""
    return [plain.encode(rows.X).numpy() for rows in (of.train, of.validation, of.test)]


def group(rows: AuditData) -> npt.NDArray[Any]:
    """(n,) the group of each row."""
    assert rows.sensitive_features is not None
    return rows.sensitive_features.iloc[:, 0].to_numpy()


def logistic(seed: int) -> Any:
    """The learner of the peers that take one."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver="liblinear", random_state=seed)


def fairlearn_exponentiated_gradient(plain: TorchModel, of: Split, seed: int) -> Iterator[Made]:
    """Mixtures of logistic regressions, as what is to be expected of them."""
    from fairlearn.reductions import EqualizedOdds, ExponentiatedGradient

    x, v, t = encoded(plain, of)
    for bound in BOUNDS:
        peer = ExponentiatedGradient(logistic(seed), EqualizedOdds(difference_bound=bound))
        peer.fit(x, of.train.y_true, sensitive_features=group(of.train))
        yield f"difference_bound={bound}", peer._pmf_predict(v)[:, 1], peer._pmf_predict(t)[:, 1]


def fairlearn_grid_search(plain: TorchModel, of: Split, seed: int) -> Iterator[Made]:
    """The best logistic regression of a grid."""
    from fairlearn.reductions import EqualizedOdds, GridSearch

    x, v, t = encoded(plain, of)
    for weight in (0.5,):
        peer = GridSearch(logistic(seed), EqualizedOdds(), constraint_weight=weight, grid_size=100)
        peer.fit(x, of.train.y_true, sensitive_features=group(of.train))
        yield f"constraint_weight={weight}", np.asarray(peer.predict(v), float), np.asarray(peer.predict(t), float)


def fairlearn_threshold_optimizer(plain: TorchModel, of: Split, seed: int) -> Iterator[Made]:
    """Thresholds over the same network, as what is to be expected of them."""
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.base import BaseEstimator

    def scores(rows: AuditData) -> Any:
        return plain.predict_proba(rows.X)

    class Network(BaseEstimator):  # type: ignore[misc]
        """The plain network as an estimator, of its probabilities."""

        classes_ = np.array([0, 1])

        def fit(self, X: Any, y: Any) -> Network:
            return self

        def predict_proba(self, X: Any) -> Any:
            return np.asarray(X)

    peer = ThresholdOptimizer(
        estimator=Network(), constraints="equalized_odds", prefit=True, predict_method="predict_proba"
    )
    peer.fit(scores(of.train), of.train.y_true, sensitive_features=group(of.train))
    found = [peer._pmf_predict(scores(rows), sensitive_features=group(rows))[:, 1] for rows in (of.validation, of.test)]
    yield "default", found[0], found[1]


def fairlearn_correlation_remover(plain: TorchModel, of: Split, seed: int) -> Iterator[Made]:
    """Logistic regression on what is left of the columns."""
    from fairlearn.preprocessing import CorrelationRemover

    parts = encoded(plain, of)
    levels = np.unique(group(of.train))
    sides = [(group(rows) == levels[1]).astype(np.float64) for rows in (of.train, of.validation, of.test)]
    for alpha in (1.0,):
        peer = CorrelationRemover(sensitive_feature_ids=[parts[0].shape[1]], alpha=alpha)
        whole = [np.column_stack([x, s]) for x, s in zip(parts, sides, strict=True)]
        learner = logistic(seed).fit(peer.fit_transform(whole[0]), of.train.y_true)
        v, t = (np.asarray(learner.predict(peer.transform(x)), float) for x in whole[1:])
        yield f"alpha={alpha}", v, t


def fairlearn_adversarial(plain: TorchModel, of: Split, seed: int) -> Iterator[Made]:
    """Adversarial classifiers of the same size, for as many epochs."""
    from fairlearn.adversarial import AdversarialFairnessClassifier

    assert plain.recipe is not None
    epochs = max(plain.recipe.epochs, FEWEST_EPOCHS)
    x, v, t = encoded(plain, of)
    for alpha in ALPHAS:
        peer = AdversarialFairnessClassifier(
            backend="torch", predictor_model=[64, "relu", 32, "relu"], adversary_model=[],
            constraints="equalized_odds", alpha=alpha, epochs=epochs, batch_size=plain.recipe.batch_size,
            learning_rate=plain.recipe.learning_rate, shuffle=True, random_state=seed,
        ).fit(x, of.train.y_true, sensitive_features=group(of.train))  # fmt: skip
        yield f"alpha={alpha}", *(np.asarray(peer.predict(rows), float).ravel() for rows in (v, t))


# ---- AIF360 --------------------------------------------------------------------------------------------------------


def dataset(rows: AuditData, levels: npt.NDArray[Any], scores: Chances | None = None, decided: Any = None) -> Any:
    """Rows as AIF360 takes them, of the label and the group alone; with the scores and decisions of a model."""
    import pandas as pd
    from aif360.datasets import BinaryLabelDataset

    frame = pd.DataFrame({"group": (group(rows) == levels[1]).astype(float), "label": rows.y_true})
    made = BinaryLabelDataset(
        favorable_label=1, unfavorable_label=0, df=frame, label_names=["label"], protected_attribute_names=["group"]
    )
    if scores is not None:
        made.scores = np.asarray(scores, float).reshape(-1, 1)
        made.labels = np.asarray(scores >= 0.5 if decided is None else decided, float).reshape(-1, 1)
    return made


def _ordered(of: Split) -> npt.NDArray[Any]:
    """The two groups, that with the larger share of favourable labels last."""
    names = np.unique(group(of.train))
    y = of.train.y_true
    assert y is not None and len(names) == 2
    rates = [y[group(of.train) == name].mean() for name in names]
    return names if rates[1] >= rates[0] else names[::-1]


_SIDES: dict[str, Any] = {"unprivileged_groups": [{"group": 0.0}], "privileged_groups": [{"group": 1.0}]}


def aif360_reweighing(plain: TorchModel, of: Split, seed: int) -> Iterator[Made]:
    """Logistic regression on weighted rows."""
    from aif360.algorithms.preprocessing import Reweighing

    x, v, t = encoded(plain, of)
    weighted = Reweighing(**_SIDES).fit_transform(dataset(of.train, _ordered(of)))
    learner = logistic(seed).fit(x, of.train.y_true, sample_weight=weighted.instance_weights)
    yield "default", np.asarray(learner.predict(v), float), np.asarray(learner.predict(t), float)


def _postprocessed(peer: Any, plain: TorchModel, of: Split) -> tuple[Chances, Chances]:
    """What a post-processing of the plain network's scores, fitted on the training rows, decides."""
    levels = _ordered(of)
    scored = [plain.predict_proba(rows.X)[:, 1] for rows in (of.train, of.validation, of.test)]
    train, v, t = (dataset(rows, levels, s) for rows, s in zip((of.train, of.validation, of.test), scored, strict=True))
    peer.fit(dataset(of.train, levels), train)
    found = [np.asarray(peer.predict(rows).labels, float).ravel() for rows in (v, t)]
    return found[0], found[1]


def aif360_equalized_odds(plain: TorchModel, of: Split, seed: int) -> Iterator[Made]:
    """Decisions of the same network, some changed at random."""
    from aif360.algorithms.postprocessing import EqOddsPostprocessing

    yield "default", *_postprocessed(EqOddsPostprocessing(**_SIDES, seed=seed), plain, of)


def aif360_reject_option(plain: TorchModel, of: Split, seed: int) -> Iterator[Made]:
    """The same network, decided otherwise near its threshold."""
    from aif360.algorithms.postprocessing import RejectOptionClassification

    for bound in (0.05,):
        peer = RejectOptionClassification(
            **_SIDES, num_class_thresh=30, num_ROC_margin=15, metric_name="Statistical parity difference",
            metric_ub=bound, metric_lb=-bound,
        )  # fmt: skip
        yield f"bound={bound}", *_postprocessed(peer, plain, of)


PEERS: dict[str, Callable[[TorchModel, Split, int], Iterator[Made]]] = {
    "fairlearn ExponentiatedGradient": fairlearn_exponentiated_gradient,
    "fairlearn GridSearch": fairlearn_grid_search,
    "fairlearn ThresholdOptimizer": fairlearn_threshold_optimizer,
    "fairlearn CorrelationRemover": fairlearn_correlation_remover,
    "fairlearn AdversarialFairnessClassifier": fairlearn_adversarial,
    "AIF360 Reweighing": aif360_reweighing,
    "AIF360 EqOddsPostprocessing": aif360_equalized_odds,
    "AIF360 RejectOptionClassification": aif360_reject_option,
}
