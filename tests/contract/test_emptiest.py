"""Every registered probe asked about a model that answers all rows the same: it passes nothing by that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from auditor.data.audit_data_parts import Recorded
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.regression_model import AuditedRegressor
from auditor.run.probe import Need, declared_metrics, with_declared
from auditor.run.run_audit import ask, generator_for, no_data
from auditor.statistics.rates import Proportion
from probes import PROBES
from probes.language.stereotype import RESTING
from tests.quantifiers import all_of
from tests.toys.models import CLASSES, TOYS, criterion
from tests.toys.skilled import skilled

# What a constant model passes with right: these say nothing of its answers, but of the rows or of its file.
OF_THE_ROWS = {
    "proxy_auc", "exact_duplicate_share", "near_duplicate_share", "contradictory_share", "cue_auc", "small_group_share",
    "label_conflict_rate", "other_class_duplicate_share", "excess_overlap_rate", "duplicate_rate", "overlap_rate",
    "recall_gain",
    "missing_rate_difference", "recognised_rate", "personal_data_rate", "largest_conditional_label_difference",
    "largest_label_error_difference", "contradicted_statements", "missing_statements",
}  # fmt: skip
OF_LANGUAGE_MODELS = [key for key, kind in PROBES.items() if Need.LANGUAGE_MODEL in kind.needs]
OF_LANGUAGE_MODELS.append("embedding_association")
# They take a model that is differentiated, or a claim that a constant function does not make.
NOT_APPLICABLE = {"model_inversion", "dp_claim"}
OTHERS = [key for key in TOYS if key not in {*OF_LANGUAGE_MODELS, *NOT_APPLICABLE}]


def constant(key: str) -> tuple[AuditedModel, ProbeResult]:
    """A model without differing answers, and what the probe of the toys says of it on the toys' rows."""
    toys = TOYS[key]
    data = toys.data()
    if data.recorded is not None:  # the answers are in the rows
        data = replace(data, recorded=Recorded(texts=np.full(len(data), "A good one", object)))
    features = toys.ideal().features
    model: AuditedModel = AuditedModel.from_callable(
        lambda X: np.tile([0.7, 0.3], (len(X), 1)), classes=data.classes or CLASSES, features=features
    )
    if data.target_values is not None:
        model = AuditedRegressor.from_callable(lambda X: np.zeros(len(X)), features=features)
    return model, ask(PROBES[key](**toys.options), model, data, generator_for(0, key))


def around(measurements: tuple[Measurement, ...]) -> list[Criterion]:
    """A requirement around the ideal of every number that has one, wide enough for few rows."""
    ideals = {m.metric: m.ideal for m in measurements if m.ideal is not None and not m.group}
    return [criterion(metric, "within", (ideal - 0.4, ideal + 0.4)) for metric, ideal in ideals.items()]


@pytest.mark.parametrize("key", OTHERS)
def test_a_constant_model_passes_nothing_that_it_reaches_by_answering_all_rows_the_same(key: str) -> None:
    _, result = constant(key)
    assert not result.not_run
    criteria = [*around(result.measurements), *TOYS[key].criteria]
    findings, _ = judge([result], criteria)
    passed = [f for f in findings if f.outcome is Outcome.PASS and f.metric not in OF_THE_ROWS]
    assert [(f.id, f.interval) for f in passed] == []


def test_what_it_passes_with_right_is_passed() -> None:
    _, result = constant("proxy_association")
    findings, _ = judge([result], around(result.measurements))
    by_source = {f.measurement.at["from"]: f.outcome for f in findings if f.measurement is not None}
    assert by_source["features"] is by_source["feature"] is Outcome.PASS
    assert by_source["score"] is Outcome.INCONCLUSIVE


def test_nothing_would_have_been_found_where_nothing_was_reached() -> None:
    reached = [
        (key, m.metric)
        for key in ("group_fairness", "counterfactual_fairness", "membership_inference", "robustness")
        for m in constant(key)[1].measurements
        if m.rests_on is not None and m.ideal is not None and abs(m.estimate.value - m.ideal) < 1e-9
    ]
    assert {key for key, _ in reached} == {
        "group_fairness", "counterfactual_fairness", "membership_inference", "robustness"
    }  # fmt: skip


@pytest.mark.parametrize("key", OF_LANGUAGE_MODELS)
def test_every_probe_of_language_models_says_what_a_model_without_skill_reaches(key: str) -> None:
    kind = PROBES[key]
    if key == "token_attribution":
        # Its requirements are of the explanation, which a model that knows nothing does not earn.
        assert not hasattr(kind, "ideal_when_same")
        return
    declared = getattr(kind, "ideal_when_same", {})
    known = [each.metric for each in declared_metrics(kind)]
    assert declared and all_of(metric in known or metric in RESTING for metric in declared)


@pytest.mark.parametrize("key", ["stereotype", "embedding_association"])
def test_without_skill_a_language_model_passes_nothing_of_them(key: str) -> None:
    toys = TOYS[key]
    result = ask(PROBES[key](**toys.options), toys.ideal(), no_data(), generator_for(0, key))
    # Without it nobody knows; what rests on sense takes more than that.
    unknown = key != "stereotype"
    for beside, passes in ([skilled()], True), ([skilled(n_order=32)], False), ([], unknown), ([silent()], unknown):
        assert (Outcome.PASS in {f.outcome for f in judge([*beside, result], toys.criteria)[0]}) is passes


def silent() -> ProbeResult:
    """Of rows without a word, for one: it says nothing of the model."""
    return ProbeResult(probe="performance", pillar="performance", citation="", not_applicable="Needs texts.")


@pytest.mark.parametrize("n_sense", [None, 60, 61])
def test_who_knows_word_order_and_no_sense_passes_nothing_that_takes_sense(n_sense: int | None) -> None:
    toys = TOYS["stereotype"]
    result = ask(PROBES["stereotype"](**toys.options), toys.ideal(), no_data(), generator_for(0, "stereotype"))
    beside = skilled(n_sense=n_sense or 0)
    if n_sense is None:
        beside = replace(beside, measurements=beside.measurements[:1])
    found = judge([beside, result], toys.criteria)[0]
    assert (Outcome.PASS in {f.outcome for f in found}) is (n_sense == 61)
    assert any("sense_accuracy is 0.6 [" in f.reason for f in found) is (n_sense == 60)
    assert any("(sense was not measured, which the probe performance" in f.reason for f in found) is (n_sense is None)


def test_a_text_model_that_scores_all_sentences_the_same_passes_no_template() -> None:
    model = AuditedModel.from_callable(lambda texts: np.full(len(texts), 0.2), classes=CLASSES)
    telling = AuditedModel.from_callable(
        lambda texts: np.asarray([0.1 + 0.0001 * len(text) for text in texts]), classes=CLASSES
    )
    probe = PROBES["counterfactual_token_fairness"](categories="orientation")
    criteria = TOYS["counterfactual_token_fairness"].criteria
    for asked, passes in ((model, False), (telling, True)):
        findings, _ = judge([ask(probe, asked, None, generator_for(0, probe.name))], criteria)
        assert (Outcome.PASS in {f.outcome for f in findings}) is passes


def test_what_a_probe_declares_does_not_undo_what_a_number_says() -> None:
    probe = PROBES["robustness"]()
    own = Measurement(metric="flip_rate_under_noise", estimate=Proportion(successes=0, n=9), n_samples=9)
    said = Measurement(metric="flip_rate_under_noise", estimate=own.estimate, n_samples=9, ideal_when_same="nothing")
    assert [m.ideal_when_same for m in with_declared(probe, [own, said])] == ["decisions", "nothing"]
