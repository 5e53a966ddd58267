"""What each probe with planted controls sees, and at how many rows, in worlds of which the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.measurement import Planted, Twins
from auditor.judging.planted import together, why_alarmed, why_unseen
from auditor.judging.planting import Planting
from auditor.judging.profiles import DATA_PROFILE
from auditor.run.planted.measure_twins import with_planted
from auditor.run.probe import make_probe
from auditor.run.run_audit import ask, generator_for
from probes.table import PROBES

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

World = Callable[[int, int], "tuple[AuditedModel, AuditData]"]
SIZES = (500, 5_000, 50_000)
# Planted and clean twins are dealt by so many seeds, 8 or more and 3 or more of each.
_SEEDS = 5


def classifier(n: int, seed: int) -> tuple[AuditedModel, AuditData]:
    """A model that decides by one feature, the same for everybody, and rows of which it learned from half."""
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"income": rng.normal(size=n)})
    y = (X.income + rng.normal(size=n) > 0).astype(int).to_numpy()
    groups = {"sex": rng.choice(["f", "m"], n), "team": rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])}
    model = AuditedModel.from_callable(
        lambda X: 1.0 / (1.0 + np.exp(-X["income"].to_numpy())), classes=[0, 1], features=["income"]
    )
    members = np.arange(n) < n // 2
    return model, AuditData.from_arrays(
        X, y, classes=[0, 1], sensitive_features=pd.DataFrame(groups), is_member=members
    )


def told_of_sex(n: int, seed: int) -> tuple[AuditedModel, AuditData]:
    """The classifier and its rows, of which it is told the sex as well, and decides without it."""
    from probes.probe_inputs import as_frame

    model, data = classifier(n, seed)
    groups = data.sensitive_features
    assert groups is not None
    X = as_frame(data.X).assign(sex=groups.sex)
    asked = model.from_callable(model.predict_proba, classes=[0, 1], features=[*X.columns])
    return asked, replace(data, X=X, sensitive_features=groups[["sex"]])


def regressor(n: int, seed: int) -> tuple[AuditedModel, AuditData]:
    """A model that predicts numbers between 0 and 1, the same for everybody, and rows."""
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.regression_model import AuditedRegressor

    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"income": rng.uniform(size=n)})
    groups = pd.DataFrame({"sex": rng.choice(["f", "m"], n)})
    true = np.clip(X.income + rng.normal(0.0, 0.1, n), 0.0, 1.0).to_numpy()
    model = AuditedRegressor.from_callable(lambda X: X["income"].to_numpy())
    return model, AuditData.for_regression(X, true, sensitive_features=groups)


def rows_alone(n: int, seed: int) -> tuple[AuditedModel, AuditData]:
    """Rows without a model, half of them to learn from, with missing values, a column of texts, and no fault."""
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import Provenance
    from auditor.models.recorded_model import NoModel

    rng = np.random.default_rng(seed)
    X = pd.DataFrame({f"x{i}": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)) for i in range(3)})
    X = X.assign(note=[f"about {i}" for i in range(n)])
    groups = {"sex": rng.choice(["f", "m"], n), "team": rng.choice(["a", "b"], n)}
    members = np.arange(n) < n // 2
    data = AuditData.from_arrays(
        X, rng.integers(0, 2, n), classes=[0, 1], sensitive_features=pd.DataFrame(groups), is_member=members
    )
    return NoModel(classes=("0", "1"), features=tuple(X.columns), provenance=Provenance()), data


def logged(n: int, seed: int) -> tuple[AuditedModel, AuditData]:
    """The samples of an evaluation's log, of which nine in ten are right in either subject."""
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.data.audit_data_parts import LogSummary, Recorded
    from auditor.models.recorded_model import RecordedEvaluation

    rng = np.random.default_rng(seed)
    graded = np.column_stack([rng.random(n) < 0.9, np.zeros(n)]).astype(float)
    rows = AuditData(
        X=np.asarray([f"sample {i}" for i in range(n)], object),
        sensitive_features=pd.DataFrame({"subject": rng.choice(["law", "art"], n)}),
        recorded=Recorded(graded=graded),
    )
    return RecordedEvaluation(LogSummary()), rows


def detecting(n: int, seed: int) -> tuple[AuditedModel, AuditData]:
    """The answers of a detector that tells the files of three generators from real ones."""
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.twin_model import TwinModel

    rng = np.random.default_rng(seed)
    fake = rng.random(n) < 0.5
    made = np.where(fake, rng.choice(["blend", "lips", "voice"], n), "")
    rows = AuditData.from_arrays(
        pd.DataFrame({"file": np.arange(n)}),
        np.where(fake, "fake", "real"),
        classes=["real", "fake"],
        sensitive_features=pd.DataFrame({"generator": made}),
    )
    score = np.where(fake, rng.beta(8, 2, n), rng.beta(2, 8, n))
    model = AuditedModel(lambda X: np.zeros((len(X), 2)), classes=["real", "fake"])
    return TwinModel(model, rows, np.column_stack([1.0 - score, score])), rows


def language_model(n: int, seed: int) -> tuple[AuditedModel, AuditData]:
    """A language model of characters, to which texts of a length are about equally likely, and no rows."""
    from auditor.run.probe import no_data
    from probes.toy_language_model import ToyLanguageModel

    return ToyLanguageModel(seed), no_data()


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A probe's world and options, and the limits that its numbers are held to there: ``limits`` by metric.

    ``n_items``: how many the probe brings itself, which is then the only size that there is.
    """

    world: World
    options: Mapping[str, Any]
    limits: Mapping[str, float]
    at_least: bool = False
    n_items: int | None = None

    def criteria(self) -> list[Criterion]:
        """The limits as criteria; those of the tool's profile where there are none."""
        if not self.limits:
            return [*load_criteria(), *load_criteria(DATA_PROFILE)]
        direction: Any = "at_least" if self.at_least else "at_most"
        return [
            Criterion(metric=metric, direction=direction, bound=bound, source="", set_by="", set_at="")
            for metric, bound in self.limits.items()
        ]


_BY_SINGLE_FEATURES = {"intersections": False}
TOYS: Mapping[str, Toy] = {
    "performance": Toy(world=classifier, options={}, limits={"roc_auc": 0.6, "accuracy": 0.6}, at_least=True),
    "group_fairness": Toy(world=classifier, options=_BY_SINGLE_FEATURES, limits={}),
    "score_fairness": Toy(
        world=classifier,
        options=_BY_SINGLE_FEATURES,
        limits={"auc_difference": 0.05, "score_kolmogorov_smirnov": 0.1, "score_wasserstein": 0.05},
    ),
    "adverse_impact": Toy(
        world=classifier,
        options={**_BY_SINGLE_FEATURES, "methods": ["selection_rate"]},
        limits={"impact_ratio_min": 0.8},
        at_least=True,
    ),
    "counterfactual_fairness": Toy(world=told_of_sex, options={}, limits={"counterfactual_flip_rate": 0.05}),
    "regression_fairness": Toy(
        world=regressor,
        options={"value_range": [0.0, 1.0]},
        limits={"mean_prediction_difference": 0.05, "prediction_kolmogorov_smirnov": 0.1},
    ),
    "membership_inference": Toy(world=classifier, options={"methods": ["loss_threshold"]}, limits={"attack_auc": 0.55}),
    "representation": Toy(world=rows_alone, options={}, limits={}),
    "data_leakage": Toy(world=rows_alone, options={}, limits={"excess_overlap_rate": 0.002}),
    "personal_data": Toy(world=rows_alone, options={}, limits={"personal_data_rate": 0.01}),
    "detector_performance": Toy(
        world=detecting, options={}, limits={"auc": 0.75, "lowest_generator_auc": 0.75}, at_least=True
    ),
    "stereotype": Toy(world=language_model, options={}, limits={}, n_items=1_280),
    "recorded_evaluation": Toy(world=logged, options={}, limits={"accuracy_difference": 0.1}),
}


@dataclass(frozen=True, kw_only=True)
class Power:
    """What became of a probe's twins of one number at ``rows`` rows; ``limit``: what the number is held to."""

    probe: str
    metric: str
    of: str
    rows: int
    limit: float | tuple[float, float]
    twins: Twins

    @property
    def fault(self) -> str:
        """Why the probe does not tell, in a sentence, or ""."""
        return why_unseen(self.twins, self.twins) or why_alarmed(self.twins, self.twins)


def self_test(names: Sequence[str], sizes: Sequence[int] = SIZES, seed: int = 0) -> Iterator[Power]:
    """What each probe sees of faults that are planted at the bound plus 1.5 times the smallest effect, and whether it
    alarms without one."""
    for name in names:
        for n in sizes if (items := TOYS[name].n_items) is None else (items,):
            yield from _power(name, n, seed)


def _power(name: str, n: int, seed: int) -> Iterator[Power]:
    toy = TOYS[name]
    probe = make_probe(PROBES[name], dict(toy.options))
    model, data = toy.world(n, seed)
    answer = ask(probe, model, data, generator_for(seed, name))
    criteria = tuple(toy.criteria())
    worlds = [
        with_planted([(probe, answer)], model, data, Planting(criteria, Family(), seed + i), share=math.inf)[0]
        for i in range(_SEEDS)
    ]
    if not worlds[0].planted:
        unjudged = (m.too_few for m in answer.measurements if m.too_few and (m.metric in toy.limits or not toy.limits))
        none = Twins(why=answer.not_run or next(unjudged, "nothing is judged of so few rows"))
        yield Power(probe=name, metric=" and ".join(toy.limits), of="", rows=n, limit=math.nan, twins=none)
    for each in zip(*(result.planted for result in worlds), strict=True):
        first: Planted = each[0]
        twins = together([planted.twins for planted in each])
        yield Power(
            probe=name,
            metric=first.metric,
            of=" x ".join([*first.sensitive, *(f"{key} {value}" for key, value in first.at.items())]),
            rows=n,
            limit=first.bound,
            twins=replace(twins, value=first.twins.value, why=first.twins.why, rows=first.twins.rows),
        )
