"""Attribute inference: information on a person from the model beyond the rest of the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from auditor.core.errors import LacksOptionError, OtherKindError, UsageError, did_you_mean
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.group_counts import MISSING
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Power, Undefined
from auditor.statistics.rank_estimates import area_under_curve
from auditor.statistics.rates import Difference, Proportion
from auditor.statistics.values import bounded_mean

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

METHODS = ("without_model", "with_model", "with_answer", "fredrikson")
MOST_LEVELS = 10
FEWEST_ROWS = 40
_SMALLEST = 1e-9


@dataclass(frozen=True, eq=False)
class _Targets:
    """Rows to be attacked: the attribute's level (n,), and each attack's scores of the levels (n, n_levels).

    ``n_rows``: rows of the file that take part, those that the attacker learns from among them.
    """

    name: str
    level: IntArray
    scores: dict[str, FloatArray]
    n_rows: int

    def right(self, method: str) -> BoolArray:
        return np.asarray(self.scores[method].argmax(axis=1) == self.level, bool)


class AttributeInference(BaseProbe):
    """The gain from the model in guessing a sensitive attribute.

    The attacker knows a record but for one attribute, its label where there is one, and may ask the model. Levels of
    the attribute are its values, at most 10; a number with more is cut at its median. Rows without it take no part.

    - ``without_model``: gradient-boosted trees learn the attribute from the other columns and the label: imputation,
      which needs no model and is no leak of it
    - ``with_model``: the same trees, with the model's answers beside the columns: ``log p(y | x with the attribute set
      to v)`` for every level v where the attribute is a feature of the model, else its probabilities for the record
    - ``with_answer``: the same, and the model's probabilities for the record itself are known, such as a published
      score, with their distance from those with each v; only where the attribute is a feature of the model
    - ``fredrikson``: ``argmax_v P(v) p(y | x with v)``, no learning but of the prior P(v); only where the attribute is
      a feature of the model and labels are known

    Trees learn on half of the evaluation rows; the others are attacked, and the training rows where they are given.

    - ``attribute_inference_gain``: Of ``with_model``, ``with_answer`` and ``fredrikson``. What was learned from the
      model alone. Bounds of a mean of paired differences.

    attribute: the column, a feature or a --sensitive column. Raises NotApplicableError where none is named or a model
    takes no table, UsageError for a column that is not there.

    Sources: Fredrikson, Jha and Ristenpart, CCS 2015; Yeom et al., CSF 2018; Jayaraman and Evans, CCS 2022
    (arXiv:2209.01292).
    """

    name = "attribute_inference"
    pillar = "privacy"
    goal = "Does the model give away an attribute that the rest of the record does not?"
    citation = "Fredrikson et al., CCS 2015; Yeom et al., CSF 2018; Jayaraman and Evans, CCS 2022"
    methods = METHODS
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (AuditQuestion("inferred"),)
    ideal_when_same = {
        "attribute_inference_gain": "scores",
        "attribute_advantage": "scores",
    }
    # Attacked rows, and the true gain that is FAILed against a bound of 0.05 by one judgement at 5 %.
    power: ClassVar[Power] = Power(500, 0.14)
    untrusted_options = allow_untrusted("attribute")
    metrics = define_metrics(
        """
        attribute_inference_accuracy: share of attacked rows whose attribute the attacker guesses; [0, 1], no ideal; to
          be read beside the share of the commonest level, which is in the detail, and beside without_model; Fredrikson,
          Jha and Ristenpart, CCS 2015
        attribute_inference_auc: P(the attacker scores a row with the second of two levels above one with the first) +
          P(tie) / 2; [0, 1], no ideal; at 0.5 the guess says nothing, and without_model has what needs no model;
          Jayaraman and Evans, CCS 2022
        attribute_inference_gain: accuracy with the model less that of without_model on the same rows; [-1, 1], ideal 0;
          at 0.05 the model gives the attribute away in five rows of 100 where the rest of the record does not;
          Jayaraman and Evans, CCS 2022
        attribute_advantage: accuracy on training rows less that on rows that were not trained on, only with --train;
          [-1, 1], ideal 0; above 0 taking part in the training gives one's attribute away; Yeom et al., CSF 2018
        """
    )

    def __init__(self, *, attribute: str | None = None) -> None:
        if not (attribute is None or (isinstance(attribute, str) and attribute)):
            raise ValueError(f"attribute must be a column's name, not {attribute!r}")
        self.attribute = attribute

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Accuracy and gain of each attack; see the class."""
        import pandas as pd

        if self.attribute is None:
            raise LacksOptionError("Needs the attribute to infer: add --set attribute_inference.attribute=COLUMN.")
        if not isinstance(data.X, pd.DataFrame):
            raise OtherKindError("Needs a model of tables: texts and images have no columns to infer.")
        secret, is_feature = _column(data, self.attribute)
        level, names, remark = _levels(secret)
        known = np.flatnonzero(level >= 0)
        if known.size < level.size:
            remark += f", {level.size - known.size:,} of {level.size:,} rows without it left out"
        evaluation = known if data.is_member is None else known[~data.is_member[known]]
        trained = known[:0] if data.is_member is None else known[data.is_member[known]]
        if len(names) < 2 or evaluation.size < 2 * FEWEST_ROWS:
            why = (
                f"{self.attribute} has one level only"
                if evaluation.size >= 2 * FEWEST_ROWS
                else f"{2 * FEWEST_ROWS} evaluation rows with {self.attribute} are needed, not {evaluation.size}"
            )
            return [
                Measurement(
                    metric="attribute_inference_gain",
                    method="with_model",
                    estimate=Undefined(reason=why),
                    n_samples=0,
                    ideal=0.0,
                    detail=f"{self.attribute}{remark}",
                )
            ]
        # No seed splits the rows anew: whoever asks again learns from the same half.
        order, rng = data.order(self.name), data.generator(self.name)
        shuffled = order[np.isin(order, evaluation)]
        learned, attacked = np.sort(shuffled[: evaluation.size // 2]), np.sort(shuffled[evaluation.size // 2 :])
        values = _values(secret, level, len(names))
        columns = _encoded(data, self.attribute)
        answers = _answers(model, data, self.attribute, values, is_feature)
        likelihood = _likelihood(data, answers) if is_feature else None
        prior = np.bincount(level[learned], minlength=len(names)) / learned.size
        seen = {"without_model": columns}
        seen["with_model"] = np.column_stack([columns, answers if likelihood is None else likelihood])
        if likelihood is not None:
            seen["with_answer"] = np.column_stack([seen["with_model"], _own_answer(model, data, answers)])
        seed = int(rng.integers(2**31))
        learners = {method: _learn(x[learned], level[learned], seed) for method, x in seen.items()}
        groups = [("evaluation rows", attacked)] + ([("training rows", trained)] if trained.size >= FEWEST_ROWS else [])
        targets = []
        for name, rows in groups:
            scores = {method: _scores(learners[method], x[rows], len(names)) for method, x in seen.items()}
            if likelihood is not None and data.y_true is not None and bool((data.y_true[rows] >= 0).all()):
                scores["fredrikson"] = likelihood[rows] + np.log(np.maximum(prior, _SMALLEST))
            taking_part = evaluation.size if rows is attacked else rows.size
            targets.append(_Targets(name, level[rows], scores, taking_part))
        commonest = int(prior.argmax())
        detail = (
            f"{self.attribute}{remark}, {len(names)} levels, the commonest {names[commonest]} ({prior[commonest]:.1%})"
        )
        return [m for t in targets for m in _of_targets(t, detail)] + _advantages(targets, detail)


# ---- the attribute -------------------------------------------------------------------------------------------------


def _column(data: AuditData, name: str) -> tuple[pd.Series[Any], bool]:
    """The attribute's values, NaN where there is none, and whether it is a column that the model is given."""
    import pandas as pd

    assert isinstance(data.X, pd.DataFrame)
    if name in data.X.columns:
        return data.X[name], True
    groups = data.sensitive_features
    if groups is not None and name in groups.columns:
        own = groups[name].astype(object)
        return own.where(own != MISSING), False
    there = [str(c) for c in data.X.columns] + ([] if groups is None else [str(c) for c in groups.columns])
    raise UsageError(
        f"The data have no column {name!r} to infer{did_you_mean(name, there) or '.'} Name a feature, or a "
        "column given with --sensitive."
    )


def _levels(secret: pd.Series[Any]) -> tuple[IntArray, list[str], str]:
    """(n,) level of each row, -1 where it is missing; the levels' names; and what was done to make them."""
    import pandas as pd

    from auditor.data.preprocessing import label_name

    distinct = secret.dropna().unique()
    if len(distinct) > MOST_LEVELS:
        if not pd.api.types.is_numeric_dtype(secret):
            raise UsageError(
                f"The attribute {secret.name!r} has {len(distinct):,} levels: name one with at most {MOST_LEVELS}, or "
                "a number, which is cut at its median."
            )
        numbers = secret.astype(np.float64)
        cut = float(numbers.median())
        codes = np.where(numbers.isna(), -1, (numbers > cut).astype(int)).astype(np.int64)
        return codes, [f"at most {cut:g}", f"above {cut:g}"], f" cut at its median {cut:g}"
    ordered = sorted(distinct, key=lambda v: (str(type(v)), v))
    return (
        np.asarray(pd.Categorical(secret, categories=ordered).codes, np.int64),
        [label_name(v) for v in ordered],
        "",
    )


def _values(secret: pd.Series[Any], level: IntArray, n: int) -> list[object]:
    """What to set the attribute to for each level: its value, or of those that are cut together one in their middle.

    A value that is there, since a column of whole numbers holds no half.
    """
    in_order = [secret[level == k].dropna().sort_values() for k in range(n)]
    return [own.iloc[len(own) // 2] for own in in_order]


# ---- what the attacker has -----------------------------------------------------------------------------------------


def _encoded(data: AuditData, attribute: str) -> FloatArray:
    """(n, d) the other columns as numbers, categories as codes, and the label."""
    import pandas as pd

    assert isinstance(data.X, pd.DataFrame)
    columns = []
    for name in data.X.columns:
        if name == attribute:
            continue
        values = data.X[name]
        numeric = pd.api.types.is_numeric_dtype(values)
        columns.append(
            values.astype(np.float64).to_numpy()
            if numeric
            else pd.Categorical(values.astype("string")).codes.astype(np.float64)
        )
    if data.y_true is not None:
        columns.append(data.y_true.astype(np.float64))
    return np.column_stack(columns) if columns else np.zeros((len(data), 1))


def _answers(
    model: AuditedModel, data: AuditData, attribute: str, values: Sequence[object], is_feature: bool
) -> FloatArray:
    """(n, n_classes) log-probabilities of the records, or (n, n_levels, n_classes) with the attribute set to each."""
    import pandas as pd

    assert isinstance(data.X, pd.DataFrame)
    if not is_feature:
        return np.log(np.maximum(model.outputs(data), _SMALLEST))
    asked = []
    for value in values:
        X = data.X.copy()
        X[attribute] = pd.Series([value] * len(X), index=X.index, dtype=X[attribute].dtype)
        asked.append(model.predict_proba(X))
    return np.log(np.maximum(np.stack(asked, axis=1), _SMALLEST))


def _likelihood(data: AuditData, answers: FloatArray) -> FloatArray:
    """(n, n_levels) log p(y | x with v); without a label all that the model says, (n, n_levels * n_classes)."""
    if data.y_true is None:
        return answers.reshape(len(answers), -1)
    label = np.maximum(data.y_true, 0)
    return np.take_along_axis(answers, label[:, None, None], axis=2)[:, :, 0]


def _own_answer(model: AuditedModel, data: AuditData, answers: FloatArray) -> FloatArray:
    """(n, n_classes + n_levels) log-probabilities of the records as they are, and how far those with each level lie."""
    own = np.log(np.maximum(model.outputs(data), _SMALLEST))
    return np.column_stack([own, np.abs(answers - own[:, None, :]).sum(axis=2)])


def _learn(columns: FloatArray, level: IntArray, seed: int) -> object:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, early_stopping=False, random_state=seed
    ).fit(columns, level)


def _scores(learner: object, columns: FloatArray, n_levels: int) -> FloatArray:
    """(n, n_levels) probabilities; 0 for a level that was not there to learn."""
    scores = np.zeros((len(columns), n_levels))
    scores[:, learner.classes_] = learner.predict_proba(columns)  # type: ignore[attr-defined]
    return scores


# ---- what is measured ----------------------------------------------------------------------------------------------


def _of_targets(targets: _Targets, detail: str) -> list[Measurement]:
    n, at = targets.level.size, {"rows": targets.name}
    n_rows = targets.n_rows
    alone = targets.right("without_model")
    found = []
    for method in targets.scores:
        right = targets.right(method)
        k = int(right.sum())
        found.append(
            Measurement(
                metric="attribute_inference_accuracy",
                method=method,
                estimate=Proportion(successes=k, n=n),
                n_samples=n_rows,
                at=at,
                detail=f"{k:,} of {n:,} right; {detail}",
            )
        )
        if targets.scores[method].shape[1] == 2:
            score = targets.scores[method][:, 1] - targets.scores[method][:, 0]
            found.append(
                Measurement(
                    metric="attribute_inference_auc",
                    method=method,
                    estimate=area_under_curve(positives=score[targets.level == 1], negatives=score[targets.level == 0]),
                    n_samples=n_rows,
                    at=at,
                    detail=detail,
                )
            )
        if method != "without_model":
            found.append(
                Measurement(
                    metric="attribute_inference_gain",
                    method=method,
                    estimate=bounded_mean(right.astype(np.float64) - alone, low=-1.0, high=1.0),
                    n_samples=n_rows,
                    ideal=0.0,
                    at=at,
                    detail=f"accuracy {right.mean():.3f} with the model, {alone.mean():.3f} without; {detail}",
                )
            )
    return found


def _advantages(targets: Sequence[_Targets], detail: str) -> list[Measurement]:
    if len(targets) < 2:
        return []
    others, members = targets
    found = []
    for method in members.scores:
        if method == "without_model" or method not in others.scores:
            continue
        right = [t.right(method) for t in (members, others)]
        k, n = [int(r.sum()) for r in right], [r.size for r in right]
        found.append(
            Measurement(
                metric="attribute_advantage",
                method=method,
                estimate=Difference(successes=(k[0], k[1]), n=(n[0], n[1])),
                n_samples=others.n_rows + members.n_rows,
                ideal=0.0,
                detail=f"{k[0]:,} of {n[0]:,} training rows right, {k[1]:,} of {n[1]:,} others; {detail}",
            )
        )
    return found
