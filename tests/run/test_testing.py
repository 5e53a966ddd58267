"""The contract is no rubber stamp: probes and mitigations that break a law are noticed, each by its law."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from auditor.core.errors import DataError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Measurement, Pillar, define_metrics
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.report.comparing.compare_audits import Comparison
from auditor.run.checks.contract import ContractViolation, check_mitigation, check_probe
from auditor.run.checks.error_rates import least_found, most_errors
from auditor.run.mitigation import Mitigated, Stage, Training
from auditor.run.probe import Need
from auditor.statistics.estimate import Exact, Power
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion
from mitigations import MITIGATIONS
from probes.fairness.change_since_reference import Change
from probes.fairness.group_fairness import GroupFairness
from tests.mitigations.planted_rows import biased_rows, trained
from tests.toys.models import criterion

BOUND = [criterion("unsure_share", "at_most", 0.15)]


def world(rng: np.random.Generator, n: int = 400, share: float = 0.02) -> tuple[AuditedModel, AuditData]:
    """Rows of which the model is unsure with a probability."""
    unsure = rng.random(n) < share
    model = AuditedModel.from_callable(lambda X: np.where(X["unsure"] > 0.5, 0.5, 0.9), classes=["0", "1"])
    group = np.where(rng.random(n) < 0.5, "a", "b").tolist()
    frame = pd.DataFrame({"unsure": unsure.astype(float)})
    y = rng.integers(0, 2, n)
    return model, AuditData.from_arrays(frame, y, classes=["0", "1"], sensitive_features={"group": group})


class Unsure:
    """The share of rows that the model is unsure of, honestly. Source: none."""

    name: ClassVar[str] = "unsure"
    pillar: ClassVar[Pillar] = "robustness"
    goal: ClassVar[str] = "On how many rows is the model unsure?"
    citation: ClassVar[str] = "none"
    methods: ClassVar[tuple[str, ...]] = ("share",)
    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER, Need.DATA)
    power: ClassVar[Power] = Power(200, 0.25)
    metrics = define_metrics("unsure_share: share of unsure rows; [0, 1], ideal 0; at 0.1 one row in ten")

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """One share."""
        unsure = model.outputs(data.evaluation).max(axis=1) < 0.6
        return [self.measured(self.estimate(int(unsure.sum()), len(unsure), rng), len(unsure))]

    def measured(self, estimate: AnyEstimate, n: int) -> Measurement:
        """The measurement of an estimate."""
        return Measurement(metric="unsure_share", estimate=estimate, n_samples=n, ideal=0.0)

    def estimate(self, k: int, n: int, rng: np.random.Generator) -> AnyEstimate:
        """What the broken ones break."""
        return Proportion(successes=k, n=n)


def check(probe: Any, criteria: Sequence[Criterion] = BOUND, **more: Any) -> None:
    ideal, violating = world(np.random.default_rng(0)), world(np.random.default_rng(1), share=0.4)
    given: dict[str, Any] = {
        "ideal_model": ideal[0],
        "ideal_data": ideal[1],
        "violating_model": violating[0],
        "violating_data": violating[1],
        "criteria": criteria,
    }
    check_probe(probe, **given | more)


MAKERS: dict[str, Any] = {
    "null": lambda rng: world(rng, 200, 0.05),
    "at_bound": lambda rng: world(rng, 200, 0.15),
    "power": lambda rng: world(rng, 200, 0.25),
}


def test_an_honest_probe_keeps_every_law() -> None:
    check(Unsure())
    check(Unsure(), **MAKERS)


# ---- uncertainty ---------------------------------------------------------------------------------------------------


class _Certain(Unsure):
    """Takes the share of its rows for the truth. Source: none."""

    def estimate(self, k: int, n: int, rng: np.random.Generator) -> AnyEstimate:
        """No uncertainty at all."""
        return Exact(known=k / n) if n else Proportion(successes=0, n=0)


class _CertainAndSilent(_Certain):
    """Says that it rests on no rows. Source: none."""

    def measured(self, estimate: AnyEstimate, n: int) -> Measurement:
        """Of no samples."""
        return super().measured(estimate, 0)


class _Declared(_Certain):
    """Says that its share is about the rows at hand. Source: none."""

    exact: ClassVar[dict[str, str]] = {"unsure_share": "It is about the rows at hand and about no others."}


class _DeclaredWithoutReason(_Certain):
    """Says that its share is exact, and not why. Source: none."""

    exact: ClassVar[dict[str, str]] = {"unsure_share": ""}


class _OfItsOwnDraws(Unsure):
    """Adds a number of its own draws, which it takes for certain. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """One share, and a mean of draws."""
        drawn = Measurement(metric="drawn", estimate=Exact(known=float(rng.random(10).mean())), n_samples=10)
        return [*super().measure(model, data, rng), drawn] if len(data) else super().measure(model, data, rng)


class _OfItsOwnRows(Unsure):
    """Brings its own prompts and takes the share among them for certain. Source: none."""

    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER,)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """One share of 60 prompts."""
        unsure = model.predict_proba(pd.DataFrame({"unsure": np.ones(60)})).max(axis=1) < 0.6
        return [self.measured(Exact(known=float(unsure.mean())), 60)]


class _Meddling(Unsure):
    """Puts the groups into another order once it has measured. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """One share."""
        found = super().measure(model, data, rng)
        if data.sensitive_features is not None:
            data.sensitive_features["group"] = data.sensitive_features["group"].to_numpy()[::-1]
        return found


class _MeddlingWithFeatures(Unsure):
    """Adds next to nothing to a feature once it has measured. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """One share."""
        found = super().measure(model, data, rng)
        if isinstance(data.X, pd.DataFrame) and len(data):
            data.X.iloc[0, 0] += 1e-6
        return found


def test_rows_that_a_probe_changes_are_noticed() -> None:
    """What it changes, the probes after it would measure."""
    with pytest.raises(ContractViolation, match="It changed sensitive_features of the rows that it was lent"):
        check(_Meddling())
    with pytest.raises(ContractViolation, match="leaves the rows as they were.*X changed"):
        check(_MeddlingWithFeatures())


class _Constant(Unsure):
    """Counts its classes, which no other rows would change. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """One share, and the number of classes."""
        classes = Measurement(metric="classes", estimate=Exact(known=2.0), n_samples=len(data))
        return [*super().measure(model, data, rng), classes]


@pytest.mark.parametrize("kind", [_Certain, _OfItsOwnDraws])
def test_a_number_that_moves_with_the_rows_needs_a_width(kind: type[Unsure]) -> None:
    with pytest.raises(ContractViolation, match="with no width, and .* on as many rows drawn from the same"):
        check(kind(), worlds=0)


def test_to_say_that_it_rests_on_no_rows_is_no_way_out() -> None:
    with pytest.raises(ContractViolation, match="No rows give no number"):
        check(_CertainAndSilent(), worlds=0)


def test_sixty_rows_known_for_certain_are_noticed() -> None:
    ideal, violating = world(np.random.default_rng(0), 60), world(np.random.default_rng(1), 60, share=0.4)
    given = {"ideal_model": ideal[0], "ideal_data": ideal[1]}
    given |= {"violating_model": violating[0], "violating_data": violating[1]}
    with pytest.raises(ContractViolation, match="unsure_share = .* with no width"):
        check(_Certain(), worlds=0, **given)


def test_what_is_declared_exact_or_never_moves_is_left_alone() -> None:
    check(_Declared(), worlds=0)
    check(_Constant(), worlds=0)
    with pytest.raises(ContractViolation, match="exact is .* not metrics and the reason of each"):
        check(_DeclaredWithoutReason(), worlds=0)


def test_a_probe_without_definitions_is_told_how_to_write_one() -> None:
    class InItsDocstring(Unsure):
        """Defines it where nobody reads.

        - ``unsure_share``: share of unsure rows; [0, 1], ideal 0; at 0.1 one row in ten

        Source: none.
        """

        metrics = ()

    with pytest.raises(ContractViolation, match=r"metrics defines no metric: write metrics = define_metrics\('name: "):
        check(InItsDocstring(), worlds=0)


def test_without_rows_to_draw_anew_the_width_must_be_there() -> None:
    model, data = world(np.random.default_rng(0))
    sure = AuditedModel.from_callable(lambda X: np.full(len(X), 0.9), classes=["0", "1"])
    none = AuditData(X=np.empty(0, object))
    given = {"ideal_model": sure, "ideal_data": none, "violating_model": model, "violating_data": none}
    with pytest.raises(ContractViolation, match="with no width over 60 samples"):
        check(_OfItsOwnRows(), worlds=0, **given)


# ---- error rates and power -----------------------------------------------------------------------------------------


class _TooNarrow(Unsure):
    """Counts every row a hundred times. Source: none."""

    def estimate(self, k: int, n: int, rng: np.random.Generator) -> AnyEstimate:
        """A tenth of the width."""
        return Proportion(successes=100 * k, n=100 * n)


class _AlwaysAsWide(Unsure):
    """Takes every share for one of fifty rows. Source: none."""

    def estimate(self, k: int, n: int, rng: np.random.Generator) -> AnyEstimate:
        """The same width for any number of rows."""
        return Proportion(successes=round(50 * k / n), n=50) if n else Proportion(successes=0, n=0)


class _Blind(Unsure):
    """Looks at ten of its rows. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """A share of ten rows."""
        rows = data.evaluation
        return super().measure(model, rows.take(slice(30)), rng)


class _Backwards(Unsure):
    """Bounds that narrow as they are to miss less often. Source: none."""

    def estimate(self, k: int, n: int, rng: np.random.Generator) -> AnyEstimate:
        """Levels taken for their complements."""
        return _Inverted(successes=k, n=n)


class _Inverted(Proportion):
    def bounds(self, alpha: float) -> tuple[float, float]:
        return super().bounds(0.5 - alpha)


def test_an_interval_that_is_too_narrow_raises_false_alarms() -> None:
    with pytest.raises(ContractViolation, match="holds the truth as often as it promises.*random subsets lie"):
        check(_TooNarrow())
    with pytest.raises(ContractViolation, match=r"5% of the worlds.*FAILs where nothing is wrong in \d+ of 100"):
        check(_TooNarrow(), **{**MAKERS, "null": lambda rng: world(rng, 20, 0.1)})
    with pytest.raises(ContractViolation, match=r"FAILs with the truth at the bound in \d+ of 100 worlds"):
        check(_TooNarrow(), **{**MAKERS, "null": lambda rng: world(rng, 400, 0.0)})


def test_a_false_pass_on_few_rows_is_noticed() -> None:
    class Trusting(Unsure):
        """Takes few rows for none that is unsure. Source: none."""

        def estimate(self, k: int, n: int, rng: np.random.Generator) -> AnyEstimate:
            """Nothing found in small samples."""
            return Proportion(successes=0, n=1000) if 0 < n < 100 else Proportion(successes=k, n=n)

    with pytest.raises(ContractViolation, match="PASSes of what FAILs on all rows"):
        check(Trusting(), null=MAKERS["null"])


def test_an_interval_that_never_shrinks_is_noticed() -> None:
    with pytest.raises(ContractViolation, match="An interval shrinks as rows come in"):
        check(_AlwaysAsWide())


def test_bounds_that_narrow_as_they_are_to_be_safer_are_noticed() -> None:
    with pytest.raises(ContractViolation, match="widen as they are to miss less often"):
        check(_Backwards(), worlds=0)


def test_power_that_is_not_there_is_noticed() -> None:
    ideal = world(np.random.default_rng(0), 400, 0.0)
    violating = world(np.random.default_rng(1), 400, 0.9)
    given = {"ideal_model": ideal[0], "ideal_data": ideal[1]}
    given |= {"violating_model": violating[0], "violating_data": violating[1]}
    check(_Blind(), worlds=60, **given)
    with pytest.raises(ContractViolation, match=r"found in 80% of the worlds that have it. Seen: a FAIL in \d+ of 60"):
        check(_Blind(), worlds=60, **given, power=MAKERS["power"])


def test_the_limits_are_those_of_a_test_at_one_in_a_thousand() -> None:
    # By the tail of the binomial, summed: P(X > 13 | 100, 0.05) = 0.0005, P(X > 12) = 0.0015.
    assert (most_errors(100), most_errors(0)) == (13, 0)
    assert (least_found(100), least_found(0)) == (67, 0)


# ---- the emptiest --------------------------------------------------------------------------------------------------


class _DividesByTheSpread(Unsure):
    """Divides by the spread of the scores. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """One share, and what a constant model makes infinite."""
        scores = model.outputs(data.evaluation)[:, 0]
        if len(scores) and scores.max() == scores.min():
            raise ZeroDivisionError("no spread")
        return super().measure(model, data, rng)


def test_a_constant_model_is_survived() -> None:
    with pytest.raises(ContractViolation, match=r"survives (a constant model|a group).*"):
        check(_DividesByTheSpread(), worlds=0)


# ---- mitigations ---------------------------------------------------------------------------------------------------


class Flips:
    """The same network with the sign of its last layer's bias turned. Source: none."""

    name: ClassVar[str] = "flips"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Turn a sign"
    citation: ClassVar[str] = "none"
    methods: ClassVar[tuple[str, ...]] = ("flip",)
    stage: ClassVar[Stage] = "in-processing"
    needs: ClassVar[str] = "a torch model"

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A copy with another bias."""
        if not len(data):
            raise DataError("There are no rows.")
        assert isinstance(model, TorchModel)
        module = self.changed(copy.deepcopy(model.module), model, data, rng)
        new = TorchModel(module, classes=model.classes, preprocessing=model.preprocessing)
        return Mitigated(model=new)

    def changed(self, new: Any, old: TorchModel, data: AuditData, rng: np.random.Generator) -> Any:
        """What the broken ones break."""
        with torch.no_grad():
            list(new.parameters())[-1].neg_()
        return new


class _Mends(Flips):
    """Changes the old model. Source: none."""

    def changed(self, new: Any, old: TorchModel, data: AuditData, rng: np.random.Generator) -> Any:
        """In place."""
        return super().changed(old.module, old, data, rng)


class _Returns(Flips):
    """Gives the old model back. Source: none."""

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """The same."""
        return Mitigated(model=model)


class _DrawsItsOwn(Flips):
    """Draws from a generator of its own. Source: none."""

    def changed(self, new: Any, old: TorchModel, data: AuditData, rng: np.random.Generator) -> Any:
        """Another bias every time."""
        with torch.no_grad():
            list(new.parameters())[-1].add_(float(np.random.default_rng().random()))
        return new


class _DrawsFromAll(Flips):
    """Draws from torch's generator. Source: none."""

    def changed(self, new: Any, old: TorchModel, data: AuditData, rng: np.random.Generator) -> Any:
        """And forgets to put it back."""
        torch.rand(1)
        return new


class _NeedsLabels(Flips):
    """Fails where there are no labels. Source: none."""

    def changed(self, new: Any, old: TorchModel, data: AuditData, rng: np.random.Generator) -> Any:
        """By an error that says nothing."""
        assert data.y_true is not None
        return new


class _LearnsOfNothing(Flips):
    """Makes a model of no rows. Source: none."""

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """Whatever the rows."""
        assert isinstance(model, TorchModel)
        return Mitigated(model=TorchModel(model.module, classes=model.classes, preprocessing=model.preprocessing))


class _Levels(Flips):
    """Refuses everybody, which leaves no gap. Source: none."""

    def changed(self, new: Any, old: TorchModel, data: AuditData, rng: np.random.Generator) -> Any:
        """One answer for all."""
        with torch.no_grad():
            list(new.parameters())[-1].copy_(torch.tensor([100.0, -100.0]))
        return new


class _Unsaid(Flips):
    """Says nothing of its stage. Source: none."""

    stage: ClassVar[Any] = "later"


@pytest.fixture(scope="module")
def mitigated() -> dict[str, Any]:
    train, data = biased_rows(600, 1), biased_rows(600, 2)
    return {"model": trained(train, epochs=4), "train": train, "data": data}


def check_one(kind: Any, mitigated: dict[str, Any], **more: Any) -> Comparison:
    probes = [GroupFairness(), Change(reference=mitigated["model"])]
    return check_mitigation(kind(), **mitigated, probes=probes, **more)


def test_a_mitigation_that_keeps_the_contract_is_compared(mitigated: dict[str, Any]) -> None:
    comparison = check_one(Flips, mitigated)
    assert comparison.made_by == ("flips",) and {row.metric for row in comparison.rows} >= {"accuracy"}


@pytest.mark.parametrize("name", ["reweighing", "threshold_optimizer", "group_calibration"])
def test_mitigations_of_this_toolkit_keep_the_contract(name: str, mitigated: dict[str, Any]) -> None:
    comparison = check_one(MITIGATIONS[name], mitigated, key=name)
    assert comparison.m > 0 and comparison.made_by[0] == name


@pytest.mark.grid
@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (_Mends, "The old model stays as it was"),
        (_Returns, "another model. Seen: the old one"),
        (_DrawsItsOwn, "The same generator gives the same model"),
        (_DrawsFromAll, "generators stay as they were. Seen: torch"),
        (_NeedsLabels, "no labels are refused in a sentence. Seen: AssertionError"),
        (_LearnsOfNothing, "Nothing is learned from no rows"),
        (_Levels, "one answer is no repair. Seen: one answer to all 600 rows; the comparison says: accuracy"),
        (_Unsaid, "the stage 'later' is none of"),
    ],
)
def test_a_mitigation_that_breaks_a_law_is_noticed(kind: Any, law: str, mitigated: dict[str, Any]) -> None:
    given = {**mitigated, "model": copy.deepcopy(mitigated["model"])}
    with pytest.raises(ContractViolation, match=law):
        check_one(kind, given)
