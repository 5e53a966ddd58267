"""Each check of a federated record: silent on a right run, and caught on the run that is wrong in that one way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from auditor.core.errors import DataError
from auditor.privacy.federated.federated_linter import (
    FEDERATED_CHECKS,
    LEVEL,
    against_one,
    lint_any,
    too_alike,
    wrong_total,
)
from auditor.privacy.federated.federated_record import FEDERATED_FORMAT, FederatedRun, parse_federated, read_any_run
from auditor.privacy.run_record import RunRecord, write_run
from cli.commands import app
from tests.privacy.test_dp_linter import RIGHT as RIGHT_OF_ROWS
from tests.quantifiers import all_of

# 1,000 clients, each in a round with chance 0.05; 100 rounds.
RIGHT: dict[str, Any] = {
    "format": FEDERATED_FORMAT,
    "claimed_epsilon": 4.0,
    "delta": 1e-5,
    "unit": "client",
    "claim_toward": "released_model",
    "accountant": "prv",
    "phases": [{"noise_multiplier": 1.0, "sample_rate": 0.05, "steps": 100}],
    "n_clients": 1000,
    "n_rows": 50_000,
    "cohort": "poisson",
    "cohort_rate": 0.05,
    "cohort_secret": True,
    "partial_cohorts": "kept",
    "weighting": "uniform",
    "divided_by": "expected_cohort",
    "coordinates": "all",
    "local_steps": 5,
    "clipping": "per_client",
    "clipping_norm": 0.5,
    "clipped_at": "client",
    "clipping_chosen": "fixed",
    "noise_at": "server",
    "noise_multiplier": 1.0,
    "sees_updates": "server",
    "rounds": 100,
    "cohort_sizes": [int(k) for k in np.random.default_rng(0).binomial(1000, 0.05, 100)],
    "most_participations": 12,
    "answers_missing": 0,
    "largest_update": 0.5,
    "weight_ratio": 1.0,
    "preprocessing": "public",
    "n_trials": 1,
    "noise_seed_known": False,
}
EVERY_ROUND = {"phases": [{"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": 100}], "claimed_epsilon": 100.0}
FIXED = {"cohort": "fixed_size", "cohort_sizes": [50] * 100}
# Toward a server: each client adds noise, and a sum of the 25 fewest that answer has five times one's.
DISTRIBUTED = EVERY_ROUND | {
    "claim_toward": "server",
    "sees_updates": "secure_aggregation",
    "noise_at": "client",
    "noise_multiplier": 0.2,
    "least_reports": 25,
    "aggregation": {"scheme": "masking", "key_holder": "shares", "key_threshold": 20, "stated_by": "J. Doe"},
}
CKKS = {
    "scheme": "ckks", "key_holder": "shares", "key_threshold": 20, "ring_dimension": 8192, "modulus_bits": 218,
    "security_bits": 128, "stated_by": "J. Doe",
}  # fmt: skip
PAILLIER = CKKS | {"scheme": "paillier", "ring_dimension": None, "modulus_bits": 3072}


def encrypted(**change: Any) -> dict[str, Any]:
    return DISTRIBUTED | {"aggregation": {k: v for k, v in (CKKS | change).items() if v is not None}}


LOCAL = EVERY_ROUND | {"claim_toward": "server", "sees_updates": "server", "noise_at": "client"}
OF_ROWS = {
    "unit": "row",
    "clipping": "row",
    "claimed_epsilon": 12.0,
    "phases": [{"noise_multiplier": 1.0, "sample_rate": 0.05, "steps": 500}],
}

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("cohort_not_poisson", {"cohort": "fixed_size"}),
    ("cohort_not_poisson", {"cohort": "all"}),
    ("cohort_not_poisson", {"cohort": "shuffled"}),
    ("cohort_not_poisson", {"cohort": "available"}),
    ("cohort_not_secret", {"cohort_secret": False}),
    ("cohort_not_secret", {"cohort_secret": False, "claim_toward": "clients"}),
    ("cohort_rate_too_low", {"cohort_rate": 0.1, "cohort_sizes": None}),
    ("cohorts_not_as_claimed", {"cohort_sizes": [50] * 100}),
    ("cohorts_not_as_claimed", {"cohort_sizes": [49, 50, 51, 50] * 25}),
    ("cohorts_not_as_claimed", {"cohort_sizes": [60, 70, 55, 64, 71, 58, 66, 61] * 10}),
    # By chance a cohort is small too: that no round was left out tells of who was drawn.
    ("partial_cohorts", {"partial_cohorts": "dropped"}),
    ("partial_cohorts", EVERY_ROUND | FIXED | {"partial_cohorts": "dropped", "rounds": 97}),
    ("partial_cohorts", EVERY_ROUND | FIXED | {"partial_cohorts": "dropped", "answers_missing": 1}),
    ("partial_cohorts", EVERY_ROUND | FIXED | {"partial_cohorts": "dropped", "answers_missing": None}),
    ("partial_cohorts", EVERY_ROUND | FIXED | {"partial_cohorts": "dropped", "cohort_sizes": None}),
    ("partial_cohorts", {"partial_cohorts": "redrawn"}),
    ("partial_cohorts", {"partial_cohorts": "noise_scaled"}),
    ("rounds_not_counted", {"rounds": 120}),
    ("rounds_not_counted", OF_ROWS | {"local_steps": 6}),
    ("rounds_not_counted", EVERY_ROUND | {"rounds": 300, "participation_limit": 101, "cohort": "available"}),
    ("rounds_not_counted", {"rounds": 300, "participation_limit": 100}),
    ("participation_above_limit", {"participation_limit": 11}),
    ("client_not_clipped", {"clipping": "none"}),
    ("client_not_clipped", {"clipping": "after_sum"}),
    ("client_not_clipped", {"clipping": "per_layer"}),
    ("update_above_norm", {"largest_update": 0.6}),
    ("clipping_norm_from_updates", {"clipping_chosen": "adaptive"}),
    ("clipping_norm_from_updates", {"clipping_chosen": "adaptive_private", "quantile_noise": 0.0}),
    ("weighted_by_rows", {"weighting": "rows"}),
    ("weights_not_uniform", {"weight_ratio": 40.0}),
    ("divided_by_actual_cohort", {"divided_by": "actual_cohort"}),
    ("divided_by_actual_cohort", {"divided_by": "sum_of_weights"}),
    ("coordinates_from_data", {"coordinates": "largest"}),
    ("coordinates_from_data", {"coordinates": "threshold", "coordinates_accounted": False}),
    ("no_noise", {"noise_multiplier": 0.0, "phases": None}),
    ("noise_below_accounting", {"noise_multiplier": 0.5}),
    # Noise is scaled to weight 1, and a client may weigh 2.
    ("noise_below_accounting", {"weighting": "rows_capped", "largest_weight": 2.0}),
    # The noisy count of clipped updates spends too.
    ("noise_below_accounting", {"clipping_chosen": "adaptive_private", "quantile_noise": 2.0}),
    ("noise_below_accounting", DISTRIBUTED | {"least_reports": 24}),
    # A client knows its own noise.
    ("noise_below_accounting", DISTRIBUTED | {"claim_toward": "clients"}),
    # Local noise protects an update by itself where the server sees it.
    ("noise_below_accounting", LOCAL | {"noise_multiplier": 0.2, "least_reports": 25}),
    ("server_sees_updates", EVERY_ROUND | {"claim_toward": "server"}),
    ("server_sees_updates", EVERY_ROUND | {"claim_toward": "server", "sees_updates": "secure_aggregation"}),
    ("clipping_out_of_sight", {"sees_updates": "secure_aggregation", "clipped_at": "server"}),
    # Two clients a round: no fault of the accounting, where the noise is the whole protection.
    ("few_clients", EVERY_ROUND | FIXED | {"cohort_sizes": [2] * 100, "cohort_rate": 0.002, "cohort": "fixed_size"}),
    ("few_clients", EVERY_ROUND | FIXED | {"cohort_sizes": None, "cohort_rate": 0.001}),
    ("sum_of_few", DISTRIBUTED | {"cohort_rate": 0.001, "cohort_sizes": None, "cohort": "fixed_size"}),
    ("sum_of_few", {"sees_updates": "secure_aggregation", "least_reports": 2}),
    ("sum_of_few", FIXED | EVERY_ROUND | {"sees_updates": "secure_aggregation", "cohort_sizes": [1] * 100}),
    ("quorum_not_kept", EVERY_ROUND | FIXED | {"partial_cohorts": "dropped", "quorum": 40, "least_reports": 39}),
    ("quorum_not_kept", EVERY_ROUND | FIXED | {"minimum_clients": 51}),
    ("quorum_not_kept", {"quorum": 40}),
    ("secure_aggregation", encrypted(key_holder="server")),
    ("secure_aggregation", encrypted(key_threshold=1)),
    ("secure_aggregation", encrypted(key_threshold=26)),
    ("secure_aggregation", {"aggregation": CKKS}),
    ("encryption_parameters", encrypted(modulus_bits=219)),
    ("encryption_parameters", encrypted(security_bits=192)),
    ("encryption_parameters", encrypted(security_bits=256, ring_dimension=32768, modulus_bits=477)),
    ("encryption_parameters", encrypted(**PAILLIER | {"modulus_bits": 2048})),
    ("unit_of_privacy", OF_ROWS | {"unit": "client"}),
    ("delta_too_large", {"delta": 1e-3}),
    ("delta_too_large", OF_ROWS | {"delta": 2e-5}),
    ("claim_below_accounting", {"claimed_epsilon": 1.0}),
    ("claim_by_approximation", {"accountant": "gdp"}),
    ("search_not_accounted", {"n_trials": 9}),
    ("data_dependent_preprocessing", {"preprocessing": "training_rows"}),
    ("noise_seed_known", {"noise_seed_known": True}),
]


def record(**change: Any) -> FederatedRun:
    return parse_federated({k: v for k, v in (RIGHT | change).items() if v is not None}, "a test")


def test_a_right_run_is_silent_and_every_check_was_made() -> None:
    result = lint_any(record())
    assert result.problems == () and not result.open
    assert len(result.clean) == len(FEDERATED_CHECKS) == len({check.name for check in FEDERATED_CHECKS})


@pytest.mark.grid
@pytest.mark.parametrize(("code", "change"), WRONG)
def test_a_wrong_run_is_caught_by_its_check_alone(code: str, change: dict[str, Any]) -> None:
    result = lint_any(record(**change))
    assert [problem.code for problem in result.problems] == [code] and result.breaks is (code != "few_clients")
    problem = result.problems[0]
    assert all_of(text.endswith(".") and len(text) > 20 for text in (problem.what, problem.why, problem.mend))


def test_each_check_has_a_wrong_run_here() -> None:
    assert {code for code, _ in WRONG} == {check.name for check in FEDERATED_CHECKS}


@pytest.mark.parametrize(
    "change",
    [
        # No amplification is counted, so cohorts may be anything.
        EVERY_ROUND | {"cohort": "fixed_size", "cohort_secret": False, "cohort_sizes": [50] * 100},
        EVERY_ROUND | {"cohort": "available", "rounds": 300, "participation_limit": 100},
        # A strategy that would have left out a round with a client missing, and everybody answered.
        EVERY_ROUND | FIXED | {"partial_cohorts": "dropped"},
        {"weighting": "rows_capped", "largest_weight": 1.0, "weight_ratio": 8.0},
        {"noise_multiplier": 1.1, "clipping_chosen": "adaptive_private", "quantile_noise": 2.5},
        DISTRIBUTED,
        DISTRIBUTED | {"claim_toward": "clients", "least_reports": 26},
        encrypted(),
        encrypted(security_bits=256, ring_dimension=32768, modulus_bits=476, key_holder="third_party"),
        encrypted(**PAILLIER),
        # A floor that a strategy has by default is no fault of rounds that had more.
        {"minimum_clients": 2, "least_reports": 30},
        LOCAL,
        OF_ROWS | {"local_steps": 5},
        # A claim for rows of a mechanism that protects whole clients is kept all the more.
        {"unit": "row"},
        {"coordinates": "random"},
        {"participation_limit": 12},
        {"divided_by": "nothing"},
    ],
)
def test_right_runs_of_other_kinds_are_silent(change: dict[str, Any]) -> None:
    assert lint_any(record(**change)).problems == ()


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("cohort_not_poisson", {"cohort": "other"}),
        ("cohort_not_secret", {"claim_toward": "server", "noise_at": "client", "least_reports": 9}),
        ("rounds_not_counted", OF_ROWS | {"local_steps": None}),
        ("clipping_norm_from_updates", {"clipping_chosen": "adaptive_private"}),
        ("weighted_by_rows", {"weighting": "rows_capped"}),
        ("weighted_by_rows", {"weighting": "other"}),
        ("divided_by_actual_cohort", {"divided_by": "other"}),
        ("coordinates_from_data", {"coordinates": "largest", "coordinates_accounted": True}),
        ("noise_below_accounting", DISTRIBUTED | {"least_reports": None}),
        ("delta_too_large", OF_ROWS | {"n_rows": None}),
        ("coordinates_from_data", {"coordinates_sent": 3, "n_coordinates": 7}),
        ("secure_aggregation", DISTRIBUTED | {"aggregation": None}),
        ("secure_aggregation", encrypted(key_threshold=None)),
        ("encryption_parameters", encrypted(modulus_bits=None)),
        ("encryption_parameters", encrypted(ring_dimension=6000)),
        ("encryption_parameters", encrypted(scheme="other")),
    ],
)
def test_what_a_record_leaves_open_is_neither_clean_nor_a_fault(check: str, change: dict[str, Any]) -> None:
    result = lint_any(record(**change))
    assert [name for name, _ in result.cannot_tell] == [check] and result.problems == () and result.open


@pytest.mark.parametrize("check", FEDERATED_CHECKS, ids=lambda check: check.name)
def test_what_is_not_recorded_is_said_and_not_passed(check: Any) -> None:
    for field in check.needs:
        result = lint_any(record(**{field: None}))
        assert check.name in [name for name, _ in result.not_recorded] and check.name not in result.clean


def test_nothing_recorded_is_nothing_checked() -> None:
    result = lint_any(FederatedRun())
    assert result.clean == () and result.problems == () and len(result.not_recorded) == len(FEDERATED_CHECKS)


def test_noise_against_one_client_by_hand() -> None:
    assert against_one(record(**DISTRIBUTED)) == (pytest.approx(0.2 * 5), " in a sum of 25")
    found = against_one(record(clipping_chosen="adaptive_private", quantile_noise=2.5, noise_multiplier=1.1))
    assert found[0] == pytest.approx((1.1**-2 + 5.0**-2) ** -0.5)


def test_poisson_cohorts_are_accused_no_more_often_than_is_said() -> None:
    rng = np.random.default_rng(1)
    for n, rate, rounds in ((20, 0.3, 3), (50, 0.1, 10), (200, 0.5, 40)):
        alike, total = zip(
            *((too_alike(s, n, rate), wrong_total(s, n, rate)) for s in rng.binomial(n, rate, (1000, rounds)).tolist()),
            strict=True,
        )
        for found in (np.asarray(alike), np.asarray(total)):
            # Five standard deviations of 1,000 draws above the level.
            assert all_of((found <= at).mean() <= at + 5.0 * (at / 1000) ** 0.5 for at in (0.01, 0.05, 0.2))
    assert too_alike([3], 20, 0.3) == pytest.approx(1.0)
    # Two of three tosses of one fair coin each are alike with chance 1/4: by hand.
    assert too_alike([1, 1, 1], 1, 0.5) == pytest.approx(0.25) and LEVEL < 1e-3


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({}, 0, "problems that break the guarantee: 0;"),
        ({"weighting": "rows"}, 1, "BREAKS  weighted_by_rows"),
        ({"cohort_secret": None}, 3, "unsaid  cohort_not_secret: cohort_secret is not recorded"),
        ({"cohort": "poison"}, 4, ""),
        ({"cohorts": "poisson"}, 4, ""),
        ({"format": "auditor-federated-run/9"}, 4, ""),
    ],
)
def test_the_command_reads_records_of_both_kinds(tmp_path: Path, change: dict[str, Any], code: int, said: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({k: v for k, v in (RIGHT | change).items() if v is not None}))
    done = CliRunner().invoke(app, ["dp", "lint", str(path)])
    assert done.exit_code == code and said in done.stdout, done.stdout
    path.write_text(json.dumps(RIGHT_OF_ROWS))
    assert CliRunner().invoke(app, ["dp", "lint", str(path)]).exit_code == 0


def test_a_record_is_written_and_read_back_and_a_wrong_field_is_named(tmp_path: Path) -> None:
    write_run(record(), tmp_path / "run.json")
    assert read_any_run(tmp_path / "run.json") == record()
    write_run(RunRecord(n_trials=1), tmp_path / "rows.json")
    assert read_any_run(tmp_path / "rows.json") == RunRecord(n_trials=1)
    with pytest.raises(DataError, match="cohort_rate"):
        record(cohort_rat=0.1)
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(DataError, match="auditor-federated-run/1"):
        read_any_run(tmp_path / "none.json")
