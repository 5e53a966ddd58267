"""Out of distribution: the model's confidence on inputs unlike its training data.

Four published scores say how similar an input is to known ones: larger is more similar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from auditor.core.errors import DataError, NotApplicableError, OutputsError
from auditor.core.rows import FloatArray, IntArray, Rows, take_rows
from auditor.judging.measurement import Answer, AuditQuestion, Measurement, define_metrics
from auditor.run.option_parsers import names_in
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.run.run_audit import reason_of
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import TruePositiveRateAt, area_under_curve
from probes.probe_inputs import whole_number
from probes.robustness.out_of_distribution_inputs import CASES, internals_of, makers

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# What is added to the scatter of the features, so that a direction in which they never move can be divided by.
_RIDGE = 1e-6


def msp(probabilities: FloatArray) -> FloatArray:
    """(n,) maximum softmax probability of (n, n_classes). Source: Hendrycks and Gimpel, ICLR 2017."""
    return np.asarray(probabilities.max(axis=1), np.float64)


def energy(logits: FloatArray) -> FloatArray:
    """(n,) ``log sum over j of exp(z_j)`` of logits (n, n_classes), the negative energy. Source: Liu et al., NeurIPS
    2020."""
    return np.asarray(scipy.special.logsumexp(logits, axis=1), np.float64)


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """``-1/2 min over c of (x - mean_c)' S^-1 (x - mean_c)``, with S the scatter of the features about their class
    means, not divided by n, plus 1e-6 on its diagonal.

    Source: Lee et al., NeurIPS 2018.

    ``means`` (n_classes, d); ``whitening`` (d, d), W with ``W W' = S^-1``.
    """

    means: FloatArray
    whitening: FloatArray

    @classmethod
    def from_features(cls, features: FloatArray, labels: IntArray) -> Mahalanobis:
        """The detector fitted on features (n, d) of classes (n,); a class without rows has no mean."""
        own, place = np.unique(labels, return_inverse=True)
        means = np.stack([features[place == i].mean(axis=0) for i in range(own.size)])
        centred = features - means[place]
        values, vectors = np.linalg.eigh(centred.T @ centred + _RIDGE * np.eye(features.shape[1]))
        return cls(means, vectors / np.sqrt(np.maximum(values, _RIDGE)))

    def score(self, features: FloatArray) -> FloatArray:
        """(n,) scores of features (n, d)."""
        away = [np.square((features - mean) @ self.whitening).sum(axis=1) for mean in self.means]
        return np.asarray(-0.5 * np.min(away, axis=0), np.float64)


@dataclass(frozen=True, eq=False)
class Nearest:
    """Minus the distance to the ``k``-th nearest known feature, all features at unit length. Source: Sun et al., ICML
    2022.

    ``known`` (n, d).
    """

    known: FloatArray
    k: int

    @classmethod
    def from_features(cls, features: FloatArray, k: int) -> Nearest:
        """The detector with known features (n, d); ``k`` is n if there are fewer."""
        return cls(_unit(features), min(k, len(features)))

    def score(self, features: FloatArray) -> FloatArray:
        """(n,) scores of features (n, d)."""
        own = _unit(features)
        # A feature of zeros has no direction and keeps its length, so not every length is one.
        squared = np.square(own).sum(axis=1)[:, None] + np.square(self.known).sum(axis=1) - 2.0 * own @ self.known.T
        return -np.sqrt(np.maximum(np.partition(squared, self.k - 1, axis=1)[:, self.k - 1], 0.0))


def _unit(features: FloatArray) -> FloatArray:
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), np.float64)


# The share of the rows that the threshold lets through.
_LET_THROUGH = 0.95
# Rows of either half, and inputs of a built-in case: a pass of a text or a picture costs a thousand rows of a table.
_SIZES = {"tabular": (2_000, 1_000), "text": (500, 250), "image": (100, 100), "audio": (100, 100)}
GIVEN = "given"
# More strange inputs at the very threshold than that, and what lies beyond it is not to be told.
_MOST_TIED = 0.05


class OutOfDistribution(BaseProbe):
    """The rate of out-of-distribution inputs with more confidence than the least certain 5 % of the rows.

    Of scores that are larger the more an input is like the rows (``method``), and of strange inputs (``case``):
    ``confident_ood_rate`` and ``ood_auroc``.

    - ``confident_ood_rate``: The false positive rate at a true positive rate of 95 %, rows being the positives. The
      threshold is estimated from rows, and its own error is part of the interval
      (:class:`auditor.statistics.rank_estimates.TruePositiveRateAt` with the parts turned round, equal scores counting
      as confident). Where more than 5 % of the strange inputs have exactly the threshold's score, as those of a model
      that says labels alone, it is not judged.

    Methods, each a number of its own: the best of several would be a detector that nobody has.

    - ``msp``: the largest probability, what the model itself says of its confidence
    - ``energy`` (networks with a logit a class): log of the sum of the logits' exponentials
    - ``mahalanobis`` and ``knn`` (networks): distance from the classes' means, and from the ``k``-th nearest row, in
      the features that the last layer reads, or in the logits. What a detector built on the network could see.

    Cases: ``given``, the inputs of ``ood``, those of them that are not among the rows, each once; and built-in ones,
    see :func:`probes.robustness.out_of_distribution_inputs.makers`: to notice those that lie far away is the least that
    can be asked.

    An input that the model refuses, by an error or without a number, is left out and counted in the detail.

    Scores are fitted, and strange inputs made, from the training rows where they are there, else from one half of the
    rows; the others set the threshold. Which half is which the rows decide, and no seed.

    ood: a file of rows or a folder of media, all of which are strange; column: of a table of texts, where it has
    several. methods, cases: ``auto`` (all that apply), or names. k: neighbours. n_samples: rows at most, of either
    half, and inputs of ``ood``; by default 2,000, 500 texts or 100 images. n_strange: inputs of a built-in case; by
    default 1,000, 250 texts or 100 images.

    Raises NotApplicableError where a method or case asked for does not apply, DataError for inputs that cannot be read.

    Sources: Hendrycks and Gimpel, ICLR 2017; Liu et al., NeurIPS 2020; Lee et al., NeurIPS 2018; Sun et al., ICML 2022;
    the rate: Liang et al., ICLR 2018.
    """

    name = "out_of_distribution"
    pillar = "robustness"
    goal = "Is the model less sure of inputs unlike any that it learned from?"
    citation = "Hendrycks and Gimpel, ICLR 2017; Liang et al., ICLR 2018"
    methods = ("msp", "energy", "mahalanobis", "knn")
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (AuditQuestion("unlike"),)
    untrusted_options = allow_untrusted("column", "methods", "cases", "k", "n_samples", "n_strange", reads=("ood",))
    metrics = define_metrics(
        """
        confident_ood_rate: share of strange inputs whose score reaches the threshold that 95 % of the rows reach
          (FPR95); [0, 1], ideal 0; at 0.3 three of ten strange inputs pass for ordinary ones, and a model that knows
          nothing of strangeness has 0.95; Liang et al., ICLR 2018
        ood_auroc: P(score of a row > score of a strange input) + P(tie) / 2; [0, 1], ideal 1; at 0.9 the score tells a
          row from a strange input in 9 of 10 pairs; Hendrycks and Gimpel, ICLR 2017
        """
    )

    def __init__(
        self,
        *,
        ood: str | Rows | None = None,
        column: str | None = None,
        methods: str | Sequence[str] = "auto",
        cases: str | Sequence[str] = "auto",
        k: int = 10,
        n_samples: int | None = None,
        n_strange: int | None = None,
    ) -> None:
        self.ood = ood
        self.column = column
        self.wanted = _names("methods", methods, self.methods)
        self.cases = _names("cases", cases, (*CASES, GIVEN))
        whole_number("k", k, 1)
        whole_number("n_samples", n_samples, 2)
        whole_number("n_strange", n_strange, 2)
        self.k = k
        self.n_samples = n_samples
        self.n_strange = n_strange

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation rows and out-of-distribution inputs; see the class for their definitions."""
        if not model.can_be_asked:
            raise NotApplicableError("Needs the model itself: strange inputs are rows that it has not answered yet.")
        rows, (most, n) = data.evaluation, _SIZES[data.modality]
        most, n = self.n_samples or most, self.n_strange or n
        known, held, whose = _parted(data, most)
        made = makers(known)
        # Every case gets draws of its own, so that one more case does not change another's numbers.
        generators = dict(zip(CASES, rng.spawn(len(CASES)), strict=True))
        given, said = (None, "") if self.ood is None else self._strange_inputs(model, data, most)
        there = [*made, *([GIVEN] if given is not None else [])]
        cases = _applying(
            "cases", self.cases, there, f"needs rows of another kind, or --ood FILE; here are {data.modality} rows"
        )
        scores = _Scores.from_rows(model, known, self.k)
        methods = _applying("methods", self.wanted, scores.methods, "needs a network with a logit for each class")
        threshold = scores.of_rows(take_rows(rows.X, held), lambda: model.outputs(rows)[held])
        basis = f"{len(held):,} rows set the threshold; {whose}"
        found: list[Measurement] = []
        for case in cases:
            X = given if case == GIVEN and given is not None else made[case](n, generators[case])
            strange, refused = scores.of_strange(X)
            about = "; ".join(filter(None, (said if case == GIVEN else "", refused, basis)))
            for method in methods:
                of = scores.what if method in _OF_FEATURES else ""
                found += _measure_case(
                    case, method, threshold[method], strange[method], ", ".join(filter(None, (about, of)))
                )
        return found

    def _strange_inputs(self, model: AuditedModel, data: AuditData, most: int) -> tuple[Rows, str]:
        """The user's inputs that are not among the rows, each once, ``most`` at most, and a word on the others."""
        from auditor.data.row_keys import keys_of, order_of
        from auditor.loading.rows.unlabelled_rows import read_unlabelled

        if self.ood is None:
            raise NotApplicableError("Needs strange inputs: add --ood FILE.")
        X = read_unlabelled(self.ood, model, data, self.column) if isinstance(self.ood, str) else self.ood
        if not len(X):
            raise DataError("The strange inputs are none at all: give some with --ood FILE.", code="AUD-DATA-EMPTY")
        # A copy shows nothing that its like did not show.
        own, first = np.unique(keys_of(X, None, None, None), return_index=True)
        new = first[~np.isin(own, keys_of(data.X, None, None, None))]
        if not new.size:
            raise DataError(
                f"All {len(X):,} inputs of --ood stand among the rows too: give inputs of another kind.",
                code="AUD-DATA-VALUES",
            )
        left = len(X) - new.size
        said = f"{left:,} inputs that stand among the rows, or a second time, were left out" if left else ""
        X = take_rows(X, np.sort(new))
        order = order_of(keys_of(X, None, None, None), "out_of_distribution")
        return take_rows(X, order[:most]), said


_OF_FEATURES = ("mahalanobis", "knn")
# Inputs that are asked one by one, where the model raises an error on some of them.
_ONE_BY_ONE = 200


def _names(option: str, value: str | Sequence[str], known_names: Sequence[str]) -> tuple[str, ...] | None:
    """An option's names, None for all that apply. Raises ValueError for one that is none."""
    named = tuple(names_in(value)) if isinstance(value, str) else tuple(value)
    unknown = [name for name in named if name not in (*known_names, "auto")]
    if unknown or not named:
        raise ValueError(
            f"{option} must be auto or out of {', '.join(known_names)}, not {', '.join(unknown) or 'none'}"
        )
    return None if "auto" in named else named


def _applying(option: str, names: Sequence[str] | None, available_names: Sequence[str], reason: str) -> list[str]:
    if names is None:
        return list(available_names)
    for name in names:
        if name not in available_names:
            raise NotApplicableError(
                f"{option}: {name} {reason}. To this model and data apply: {', '.join(available_names)}."
            )
    return [name for name in available_names if name in names]


def _parted(data: AuditData, most: int) -> tuple[AuditData, IntArray, str]:
    """Rows that scores are fitted on, the places of the evaluation rows that set the threshold, and whose they are."""
    rows, members = data.evaluation, data.members
    order = rows.order("out_of_distribution")
    if members is not None:
        known, held = members.take(members.order("out_of_distribution")[:most]), order[:most]
        whose = f"fitted on {len(known):,} training rows"
    else:
        half = len(order) // 2
        known, held = rows.take(order[:half][:most]), order[half:][:most]
        whose = f"fitted on {len(known):,} others"
    if min(len(known), len(held)) < 2:
        raise NotApplicableError("Needs at least 4 rows: one half to learn from, and the other to set a threshold.")
    return known, held, whose


@dataclass(frozen=True, eq=False)
class _Scores:
    """What is made of a model's answers: scores by method, larger for what is more like the rows."""

    model: AuditedModel
    modality: str
    with_energy: bool = False
    mahalanobis: Mahalanobis | None = None
    nearest: Nearest | None = None
    what: str = ""

    @classmethod
    def from_rows(cls, model: AuditedModel, known_rows: AuditData, k: int) -> _Scores:
        """Fitted on known rows; of what is no network, there is its confidence alone."""
        from auditor.models.torch_model import TorchModel

        if not isinstance(model, TorchModel):
            return cls(model, known_rows.modality)
        inner = internals_of(model, known_rows.X, known_rows.modality)
        labels = model.decide(inner.probabilities, known_rows.positive)
        if known_rows.y_true is not None:
            labels = np.where(known_rows.y_true >= 0, known_rows.y_true, labels)
        usable = np.isfinite(inner.features).all(axis=1)
        if not usable.any():
            return cls(model, known_rows.modality, inner.logits is not None)
        features = inner.features[usable]
        return cls(
            model,
            known_rows.modality,
            inner.logits is not None,
            Mahalanobis.from_features(features, labels[usable]),
            Nearest.from_features(features, k),
            f"by {inner.what}",
        )

    @property
    def methods(self) -> list[str]:
        """Those that apply to this model, in order."""
        return ["msp", *(["energy"] * self.with_energy), *(_OF_FEATURES if self.mahalanobis is not None else ())]

    def of_rows(self, X: Rows, answers: Callable[[], FloatArray]) -> dict[str, FloatArray]:
        """Scores by method, each (n,), of rows; -inf for what is no number. ``answers``: gives the probabilities, where
        the model is no network."""
        from auditor.models.torch_model import TorchModel

        if not isinstance(self.model, TorchModel):
            found = {"msp": msp(answers())}
        else:
            inner = internals_of(self.model, X, self.modality)
            found = {"msp": msp(inner.probabilities)}
            # Inputs far enough away overflow, and have no distance.
            with np.errstate(all="ignore"):
                if self.with_energy and inner.logits is not None:
                    found["energy"] = energy(inner.logits)
                if self.mahalanobis is not None and self.nearest is not None:
                    found["mahalanobis"] = self.mahalanobis.score(inner.features)
                    found["knn"] = self.nearest.score(inner.features)
        return {name: np.where(np.isnan(values), -np.inf, values) for name, values in found.items()}

    def of_strange(self, X: Rows) -> tuple[dict[str, FloatArray], str]:
        """Scores by method of the strange inputs that the model answers, and a word on those that it refuses, by an
        error or without a number.

        What is refused is left out: the error may be that of a file as well as a model's caution, and shows neither.
        Where the model raises an error on all of them together, the first 200 are asked one by one.
        """
        whole = self._try(X)
        parts = [whole] if isinstance(whole, dict) else []
        asked, why = len(X), "no number"
        if isinstance(whole, Exception):
            asked = min(len(X), _ONE_BY_ONE)
            each = [self._try(take_rows(X, slice(i, i + 1))) for i in range(asked)]
            parts = [own for own in each if isinstance(own, dict)]
            why = next((reason_of(own) for own in each if isinstance(own, Exception)), why)
        none = [{name: np.empty(0) for name in self.methods}]
        found = {name: np.concatenate([own[name] for own in parts or none]) for name in self.methods}
        answered = np.isfinite(found["msp"])
        refused = asked - int(answered.sum())
        said = f"the model refused {refused:,} of {asked:,} others, which are left out ({why})" if refused else ""
        return {name: values[answered] for name, values in found.items()}, said

    def _try(self, X: Rows) -> dict[str, FloatArray] | Exception:
        try:
            return self.of_rows(X, lambda: self.model.predict_part(X))
        except (NotApplicableError, OutputsError):
            raise
        except Exception as error:  # whatever a foreign model raises on such inputs, it does not answer them
            return error


def _measure_case(case: str, method: str, rows: FloatArray, strange: FloatArray, about: str) -> list[Measurement]:
    rate, tied = confident_ood_rate(rows=rows, strange=strange)
    at: dict[str, str | float] = {"case": case}
    n, detail = len(rows) + len(strange), f"{len(strange):,} strange inputs; {about}"
    area = _area(rows, strange)
    # What a detector could see says nothing of a model that tells no rows apart.
    rests_on: Answer | None = "scores" if method in _OF_FEATURES else None
    return [
        Measurement(
            metric=metric,
            method=method,
            estimate=estimate,
            n_samples=n,
            ideal=ideal,
            at=at,
            detail=detail,
            too_few=tied if metric == "confident_ood_rate" else "",
            ideal_when_same=rests_on,
        )
        for metric, estimate, ideal in (("confident_ood_rate", rate, 0.0), ("ood_auroc", area, 1.0))
    ]


def _area(rows: FloatArray, strange: FloatArray) -> AnyEstimate:
    if not strange.size:
        return Undefined(reason="the model answers none of these inputs", inapplicable=True)
    # What only orders scores takes a number for those that are infinitely far.
    finite = np.concatenate([rows, strange])
    finite = finite[np.isfinite(finite)]
    least = float(finite.min()) - 1.0 if finite.size else 0.0
    return area_under_curve(positives=np.maximum(rows, least), negatives=np.maximum(strange, least))


def confident_ood_rate(*, rows: FloatArray, strange: FloatArray) -> tuple[TruePositiveRateAt, str]:
    """The share of out-of-distribution scores (m,) at or above the threshold that 95 % of the rows' scores (n,) reach;
    and the reason for not judging it, or "".

    Equal scores reach it: a model that gives all the same score lets everything through.
    """
    ordered, others = np.sort(rows)[::-1], np.sort(strange)
    estimate = TruePositiveRateAt(
        false_positive_rate=_LET_THROUGH,
        members_above=tuple((others.size - np.searchsorted(others, ordered, "left")).tolist()),
        n_positive=others.size,
        n_negative=ordered.size,
        joint=True,
    )
    threshold = ordered[min(int(_LET_THROUGH * ordered.size + 1e-9), ordered.size - 1)]
    equal = int((others == threshold).sum())
    if equal <= _MOST_TIED * others.size:
        return estimate, ""
    return estimate, (
        f"{equal:,} of the {others.size:,} strange inputs have the very score of the threshold, {threshold:.6g}: with "
        "so many equal scores nothing tells what is answered with more confidence from what is not."
    )
