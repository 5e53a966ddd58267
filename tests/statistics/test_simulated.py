"""Every headline a fairness probe measures is of a kind whose error rates at no effect and at the bound are simulated.

The promise of a scan is about the kind of estimate, which alone decides its bounds: this table says which tests hold
each kind to it, and fails for a headline of a kind that nobody simulates.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import Exact, Undefined
from probes.fairness.adverse_impact import AdverseImpact
from probes.fairness.counterfactual_fairness import CounterfactualFairness
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.score_fairness import ScoreFairness
from probes.fairness.subgroups import SubgroupDiscovery

FAMILY = "judging/test_error_rates.py::test_family_errors_at_no_effect_and_at_the_bound"
COVERED = "statistics/test_coverage.py::test_either_bound_is_missed_in_at_most_five_per_cent_of_worlds"
POWER = "probes/fairness/test_group_fairness_more.py::test_real_gaps_are_found"
# kind of estimate: (true value at no effect and at the bound, power)
SIMULATED: dict[str, tuple[str, str]] = {
    "worst_difference": (FAMILY, "judging/test_error_rates.py::test_declared_power_is_there"),
    "worst_ratio": (FAMILY, "judging/test_error_rates.py::test_declared_power_is_there"),
    "worst_mean_difference": (COVERED, POWER),
    "worst_odds_ratio": (COVERED, POWER),
    "smallest_rate": (COVERED, POWER),
    "differential_fairness": (COVERED, POWER),
    "benefit_inequality": (COVERED, POWER),
    "largest_disparity": (COVERED, POWER),
    "worst_gap": (
        "probes/fairness/test_score_fairness.py::test_calibration_difference_is_missed_in_at_most_five_per_cent_of_worlds",
        "probes/fairness/test_score_fairness.py::test_auc_power_is_what_the_probe_declares",
    ),
    "lowest_area": (
        COVERED,
        "probes/fairness/test_score_fairness.py::test_a_group_out_of_place_among_the_others_is_found",
    ),
    "calibration_error": (
        "probes/fairness/test_score_fairness.py::test_calibration_error_is_missed_in_at_most_five_per_cent_of_worlds",
        "probes/fairness/test_score_fairness.py::test_miscalibrated_scores_and_groups_are_found",
    ),
    "worst_distance": (
        "probes/fairness/test_score_fairness.py::test_distances_are_missed_in_at_most_five_per_cent_of_worlds",
        "probes/fairness/test_score_fairness.py::test_distributions_far_apart_are_found",
    ),
    "confirmed_count": (
        "probes/fairness/test_subgroups.py::test_null_data_confirm_anything_in_at_most_five_per_cent_of_scans",
        "probes/fairness/test_subgroups.py::test_planted_slice_is_found_in_eighty_per_cent_of_worlds",
    ),
    "difference": (
        "probes/fairness/test_subgroups.py::test_gaps_of_confirmed_slices_are_covered_although_they_were_picked",
        "probes/fairness/test_subgroups.py::test_planted_slice_is_found_in_eighty_per_cent_of_worlds",
    ),
    "proportion": (
        "probes/fairness/test_counterfactual.py::test_error_rates_at_the_bound_and_power",
        "probes/fairness/test_counterfactual.py::test_error_rates_at_the_bound_and_power",
    ),
    "bounded_mean": (
        "probes/fairness/test_counterfactual.py::test_a_mean_shift_near_the_bound_is_not_passed_too_often",
        "probes/fairness/test_counterfactual.py::test_a_mean_shift_near_the_bound_is_not_passed_too_often",
    ),
}


@cache
def headlines() -> list[Measurement]:
    rng = np.random.default_rng(0)
    n = 400
    X = pd.DataFrame({"x": rng.random(n), "z": rng.choice(list("uv"), n)})
    X["sex"] = rng.choice(["f", "m"], n)
    y = (rng.random(n) < X["x"]).to_numpy().astype(int)
    groups = {"sex": X["sex"].tolist(), "race": rng.choice(list("abc"), n).tolist()}
    model = AuditedModel.from_callable(lambda rows: rows["x"].to_numpy(float), classes=["0", "1"])
    data = AuditData.from_arrays(X, y, classes=["0", "1"], sensitive_features=groups)
    probes = [
        GroupFairness(strata="z"),
        AdverseImpact(),
        ScoreFairness(),
        SubgroupDiscovery(),
        CounterfactualFairness(),
    ]
    return [m for probe in probes for m in probe.measure(model, data, rng) if not m.group and m.ideal is not None]


def test_every_headline_is_of_a_simulated_kind() -> None:
    missing = set()
    for m in headlines():
        if isinstance(m.estimate, (Undefined, Exact)):
            continue
        if m.estimate.kind not in SIMULATED:
            missing.add((m.metric, m.estimate.kind))
    assert not missing


def test_every_metric_has_its_name_and_an_interval() -> None:
    names = {m.metric for m in headlines()}
    assert names >= {
        "demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference",
        "equalized_odds_ratio", "equal_opportunity_difference", "equal_opportunity_ratio",
        "predictive_parity_difference", "false_positive_rate_ratio", "false_negative_rate_ratio",
        "false_positive_rate_difference", "false_negative_rate_difference", "treatment_equality_ratio",
        "balanced_accuracy_difference", "accuracy_difference", "generalized_entropy_index", "theil_index",
        "demographic_disparity", "conditional_demographic_disparity", "differential_fairness_epsilon",
        "worst_group_accuracy", "impact_ratio_min", "auc_difference", "calibration_difference",
        "expected_calibration_error", "score_kolmogorov_smirnov", "score_wasserstein",
        "demographic_parity_difference_over_thresholds", "confirmed_subgroups",
    }  # fmt: skip
    for m in headlines():
        low, high = m.estimate.bounds(0.025)
        assert low <= high


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((Path(__file__).parents[1] / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("kind", list(SIMULATED))
def test_the_simulations_are_there(kind: str) -> None:
    for test in SIMULATED[kind]:
        file, _, name = test.partition("::")
        assert name in functions_of(file)
