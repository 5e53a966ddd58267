"""Each check of a run record: silent on a right run, and caught on the run that is wrong in that one way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from auditor.core.errors import DataError
from auditor.models.audited_model import Recipe
from auditor.privacy import dp_linter
from auditor.privacy.dp_linter import CHECKS, lint
from auditor.privacy.federated import federated_linter
from auditor.privacy.run_record import RUN_FORMAT, RunRecord, parse_run, read_run, run_of_recipe, write_run
from tests.quantifiers import all_of

# 20,000 rows in batches of 200: 100 steps an epoch, ten epochs.
RIGHT: dict[str, Any] = {
    "format": RUN_FORMAT,
    "claimed_epsilon": 2.0,
    "delta": 1e-5,
    "accountant": "prv",
    "phases": [{"noise_multiplier": 1.1, "sample_rate": 0.01, "steps": 1000}],
    "n_rows": 20_000,
    "batch_size": 200,
    "sampler": "poisson",
    "sample_rate": 0.01,
    "noise_multiplier": 1.1,
    "max_grad_norm": 1.0,
    "accumulated_batches": 1,
    "virtual_steps": "none",
    "divided_by": "expected_batch_size",
    "expected_batch_size": 200,
    "empty_batches": "kept",
    "clipped_share": 0.6,
    "preprocessing": "public",
    "n_trials": 1,
    "trials_accounted": False,
    "layers": ["Linear", "GroupNorm", "LayerNorm"],
    "not_moving": [],
    "wrong_gradient": [],
    "wrong_batch": [],
    "noise_seed_known": False,
    "step_sensitivity": 1.0,
    "draws": 1000,
    "steps_taken": 1000,
    "noise_draws": 1000,
    "repeated_draws": 0,
    "moved_outside_steps": 0,
    "unclipped_steps": 0,
    "rows_seen": 1000,
    "steps_seen": 1000,
}

WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("sampler_not_poisson", "breaks", {"sampler": "shuffled"}),
    ("sampler_not_poisson", "breaks", {"sampler": "in_order"}),
    ("sampler_not_poisson", "breaks", {"sampler": "with_replacement"}),
    ("sampler_not_poisson", "breaks", {"sampler": "other"}),
    ("weighted_sampler", "breaks", {"sampler": "weighted"}),
    ("sample_rate_too_low", "breaks", {"sample_rate": 0.02, "batch_size": 400, "expected_batch_size": 400}),
    ("accounted_rate_too_low", "breaks", {"sample_rate": None, "batch_size": 400, "expected_batch_size": None}),
    ("batch_not_as_intended", "harms", {"batch_size": 100}),
    ("empty_batches_dropped", "breaks", {"empty_batches": "dropped"}),
    ("no_noise", "breaks", {"noise_multiplier": 0.0, "phases": None}),
    ("noise_below_accounting", "breaks", {"noise_multiplier": 0.5}),
    ("gradient_accumulation", "breaks", {"accumulated_batches": 4}),
    ("virtual_steps", "breaks", {"virtual_steps": "own"}),
    ("divided_by_actual_size", "breaks", {"divided_by": "actual_batch_size"}),
    ("wrong_expected_size", "harms", {"expected_batch_size": 32}),
    ("wrong_expected_size", "harms", {"expected_batch_size": 2000}),
    ("sensitivity_above_norm", "breaks", {"step_sensitivity": 1.9}),
    ("draws_without_step", "breaks", {"draws": 1010}),
    ("steps_without_draw", "breaks", {"draws": 500}),
    ("steps_without_draw", "breaks", {"repeated_draws": 3}),
    ("steps_not_counted", "breaks", {"steps_taken": 1200, "draws": 1200, "noise_draws": 1200}),
    ("steps_without_noise", "breaks", {"noise_draws": 999}),
    ("moved_outside_steps", "breaks", {"moved_outside_steps": 1}),
    ("clipping_never_binds", "harms", {"clipped_share": 0.0}),
    ("clipping_always_binds", "harms", {"clipped_share": 1.0}),
    ("cross_example_layers", "breaks", {"layers": ["Linear", "BatchNorm1d"]}),
    ("parameters_not_moving", "breaks", {"not_moving": ["lora_B.weight"]}),
    ("wrong_gradients", "breaks", {"wrong_gradient": ["lora_A.weight"]}),
    ("wrong_batch_dimension", "breaks", {"wrong_batch": ["wpe.weight"]}),
    ("delta_too_large", "breaks", {"delta": 1 / 20_000}),
    ("claim_below_accounting", "breaks", {"claimed_epsilon": 1.0}),
    ("claim_by_approximation", "breaks", {"accountant": "gdp"}),
    ("search_not_accounted", "breaks", {"n_trials": 20}),
    ("data_dependent_preprocessing", "breaks", {"preprocessing": "training_rows"}),
    # A private mechanism that the claim does not count.
    ("data_dependent_preprocessing", "breaks", {"preprocessing": "private_mechanism"}),
    # With what it spent the claim of 2 is too low: the steps alone spend 1.53 by PRV.
    ("claim_below_accounting", "breaks", {"preprocessing": "private_mechanism", "encoding": {"epsilon": 0.6}}),
    ("claim_below_accounting", "breaks", {"encoding": {"noise_multiplier": 3.0, "looks": 3}}),
    ("claim_below_accounting", "breaks", {"encoding": {"epsilon": 0.01, "delta": 9.999e-6}}),
    ("claim_below_accounting", "breaks", {"encoding": {"epsilon": 0.01, "delta": 1e-5}}),
    ("claim_below_accounting", "breaks", {"added_epsilon": 0.6}),
    ("noise_seed_known", "breaks", {"noise_seed_known": True}),
    ("unclipped_sums", "breaks", {"unclipped_steps": 1}),
    # Of 20,000 rows 200 are drawn a step, give or take 1.4 over 100 steps.
    ("more_rows_than_accounted", "breaks", {"rows_seen": 40_000, "steps_seen": 100}),
    ("more_rows_than_accounted", "breaks", {"rows_seen": 20_700, "steps_seen": 100}),
]


def record(**change: Any) -> RunRecord:
    return parse_run({k: v for k, v in (RIGHT | change).items() if v is not None}, "a test")


def test_a_right_run_is_silent_and_every_check_was_made() -> None:
    result = lint(record())
    assert result.problems == () and result.not_recorded == () and not result.breaks
    assert len(result.clean) == len(CHECKS) == len({check.name for check in CHECKS})


@pytest.mark.parametrize("code, severity, change", WRONG)
def test_a_wrong_run_is_caught_by_its_check_alone(code: str, severity: str, change: dict[str, Any]) -> None:
    result = lint(record(**change))
    assert [(problem.code, problem.severity) for problem in result.problems] == [(code, severity)]
    problem = result.problems[0]
    assert all_of(text.endswith(".") and len(text) > 20 for text in (problem.what, problem.why, problem.mend))
    assert result.breaks == (severity == "breaks")


TWO = [
    {"noise_multiplier": 1.0, "sample_rate": 0.01, "steps": 800},
    {"noise_multiplier": 2.0, "sample_rate": 0.02, "steps": 200},
]


@pytest.mark.parametrize(
    ("check", "change", "said"),
    [
        ("noise_below_accounting", {"phases": TWO, "noise_multiplier": 1.5}, "between"),
        ("noise_below_accounting", {"phases": TWO, "noise_multiplier": 1.0}, "between"),
        ("sample_rate_too_low", {"phases": TWO, "noise_multiplier": 2.0, "sample_rate": 0.015, "batch_size": 300,
                                 "expected_batch_size": 300}, "between"),
        ("accounted_rate_too_low", {"phases": TWO, "noise_multiplier": 2.0, "sample_rate": None, "batch_size": 300,
                                    "expected_batch_size": None}, "between"),
        ("divided_by_actual_size", {"divided_by": "other"}, "divided by"),
        ("cross_example_layers", {"layers": ["Linear", "FrozenBatchNorm2d"]}, "FrozenBatchNorm2d"),
        ("cross_example_layers", {"running_statistics": ["FrozenNorm"]}, "FrozenNorm"),
    ],
)  # fmt: skip
def test_what_a_record_leaves_open_is_neither_clean_nor_a_fault(check: str, change: dict[str, Any], said: str) -> None:
    result = lint(record(**change))
    assert [name for name, _ in result.cannot_tell] == [check] and said in result.cannot_tell[0][1]
    assert result.problems == () and check not in result.clean and result.open


def test_phases_that_all_count_enough_are_clean_and_none_that_does_is_a_fault() -> None:
    right = lint(record(phases=TWO, noise_multiplier=2.0))
    assert right.problems == () and not right.open
    wrong = lint(record(phases=TWO, noise_multiplier=0.9, sample_rate=0.03, batch_size=600, expected_batch_size=600))
    assert [p.code for p in wrong.problems] == ["sample_rate_too_low", "noise_below_accounting"]


def test_more_rows_than_chance_are_told_from_those_of_chance() -> None:
    for rows, n_rows, expected in ((20_500, 20_000, None), (20_500, None, 200)):
        assert lint(record(rows_seen=rows, steps_seen=100, n_rows=n_rows, expected_batch_size=expected)).problems == ()
    found = lint(record(rows_seen=40_000, steps_seen=100, n_rows=None)).problems
    assert [p.code for p in found] == ["more_rows_than_accounted"]
    neither = lint(record(n_rows=None, expected_batch_size=None)).cannot_tell
    assert [name for name, _ in neither] == ["more_rows_than_accounted"]


def test_a_claim_at_delta_0_is_none_of_gaussian_noise() -> None:
    found = lint(record(delta=0.0)).problems
    assert [p.code for p in found] == ["claim_below_accounting"] and "delta 0" in found[0].what


@pytest.mark.parametrize(
    "layer",
    ["BatchNorm2d", "SyncBatchNorm", "LazyBatchNorm1d", "BatchNormAct2d", "SyncBatchNormAct", "InPlaceABN",
     "InPlaceABNSync", "GhostBatchNorm", "BatchRenorm1d", "MyBatch_Norm", "ABN", "SyncBN", "EvoNorm2dB0"],
)  # fmt: skip
def test_relatives_of_batch_norm_are_caught_by_their_names(layer: str) -> None:
    assert [p.code for p in lint(record(layers=["Linear", layer])).problems] == ["cross_example_layers"]


def test_a_layer_that_keeps_running_statistics_is_caught_whatever_its_name() -> None:
    found = lint(record(running_statistics=["Whitener"])).problems
    assert [p.code for p in found] == ["cross_example_layers"] and "Whitener" in found[0].what


def test_each_check_has_a_wrong_run_here_and_a_function_and_each_function_a_check() -> None:
    assert {code for code, _, _ in WRONG} == {check.name for check in CHECKS}
    for asked, checks in ((dp_linter._FAULTS, CHECKS), (federated_linter._FAULTS, federated_linter.FEDERATED_CHECKS)):
        assert asked.keys() - {check.name for check in checks} == set()


@pytest.mark.grid
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_what_is_not_recorded_is_said_and_not_passed(check: Any) -> None:
    for field in check.needs:
        result = lint(record(**{field: None}))
        assert check.name not in result.clean
        if field != dp_linter.IF_SEEN.get(check.name):
            assert check.name in [name for name, _ in result.not_recorded]


def test_nothing_recorded_is_nothing_checked() -> None:
    result = lint(RunRecord())
    assert (
        result.clean == ()
        and result.problems == ()
        and len(result.not_recorded) == len(CHECKS) - len(dp_linter.IF_SEEN)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"n_trials": 20, "trials_accounted": True},
        {"sampler": "poisson", "virtual_steps": "batch_memory_manager"},
        # 20,100 rows in batches of 200: 101 steps an epoch, the last batch is not full.
        {"n_rows": 20_100, "sample_rate": 1 / 101, "expected_batch_size": 199,
         "phases": [{"noise_multiplier": 1.1, "sample_rate": 1 / 101, "steps": 1010}]},
        {"layers": ["InstanceNorm1d", "Embedding"]},
        {"claimed_epsilon": 1.64, "accountant": "rdp"},
        {"preprocessing": "private_mechanism", "encoding": {"noise_multiplier": 60.0, "looks": 3, "delta": 1e-6}},
        {"preprocessing": "private_mechanism", "encoding": {"epsilon": 0.1}, "added_epsilon": 0.04},
        {"learning_rate_from": "default"},
    ],
)  # fmt: skip
def test_right_runs_of_other_kinds_are_silent(change: dict[str, Any]) -> None:
    assert lint(record(**change)).problems == ()


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_a_record_is_read_from_json_and_toml(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(RIGHT))
    else:
        plain = [f"{k} = {json.dumps(v)}" for k, v in RIGHT.items() if k != "phases"]
        path.write_text("\n".join(plain) + "\n[[phases]]\nnoise_multiplier = 1.1\nsample_rate = 0.01\nsteps = 1000\n")
    assert read_run(path) == record()
    write_run(record(), tmp_path / "again.json")
    assert read_run(tmp_path / "again.json") == record()
    assert read_run(path).accounted() is not None and RunRecord().accounted() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "neither JSON nor TOML"),
        ("[1]", "no record of a private run"),
        ('{"format": "auditor-model/1"}', "no record of a private run"),
        (json.dumps(RIGHT | {"sampler": "posson"}), "sampler"),
        (json.dumps({"format": RUN_FORMAT, "n_row": 5}), "n_rows"),
        (json.dumps(RIGHT | {"delta": 2.0}), "delta"),
        (json.dumps(RIGHT | {"phases": [{"noise_multiplier": 1}]}), "phases.0.sample_rate"),
        ('{"format": "auditor-dp-run/1", "delta": NaN}', "delta"),
        (json.dumps(RIGHT | {"phases": []}), "'phases' is empty: list what there was, or leave the field out"),
        (json.dumps(RIGHT | {"layers": []}), "'layers' is empty"),
        ("[" * 100_000, "neither JSON nor TOML"),
    ],
)
def test_a_record_that_is_none_is_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_run(path)


def test_a_recipe_of_private_training_tells_what_it_holds() -> None:
    assert run_of_recipe(Recipe()) is None
    old = run_of_recipe(Recipe(epsilon=3.0, delta=1e-5, noise_multiplier=1.0))
    assert old is not None and old.sampler is None and old.phases is None and old.claimed_epsilon == 3.0
    new = Recipe(
        epsilon=3.0, delta=1e-5, noise_multiplier=1.0, max_grad_norm=1.0, batch_size=128, epochs=5, n_rows=1000,
        sampler="poisson", accountant="rdp", preprocessing_from="training_rows", noise_seed_known=False,
    )  # fmt: skip
    run = run_of_recipe(new, ("Linear",))
    assert run is not None and run.phases is not None
    assert (run.sample_rate, run.phases[0].steps, run.expected_batch_size) == (1 / 8, 40, 125)
    assert [problem.code for problem in lint(run).problems] == [
        "claim_below_accounting",
        "data_dependent_preprocessing",
    ]
