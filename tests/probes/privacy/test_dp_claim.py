"""The claim in a model bundle: what the probe says of what `auditor train` writes, and of models that claim nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from auditor.data.audit_data import AuditData
from auditor.errors import ModelError, NotApplicableError
from auditor.finding.judging import judge
from auditor.finding.measurement import Outcome, ProbeResult
from auditor.model.saving import save
from auditor.privacy.accounting import Phase, spent
from auditor.run.bundle_record import read_bundle
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.upper_bound import UpperBound
from auditor.training.train import TrainSpec, train_table
from cli.main import app
from probes.privacy.dp_claim import DPClaim
from tests.toys.models import criterion, model, private_model

NO_DATA = AuditData(X=np.empty(0, object))


def measured(audited: Any) -> dict[str, Any]:
    found = DPClaim().measure(audited, NO_DATA, np.random.default_rng(0))
    return {f"{m.metric}/{m.method}": m for m in found}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=700), "b": rng.normal(size=700)})
    table["y"] = np.where(table["a"] + 0.3 * rng.normal(size=700) > 0, "yes", "no")
    table.to_csv(folder / "t.csv", index=False)
    spec = TrainSpec(
        data=str(folder / "t.csv"),
        target="y",
        dp_epsilon=4.0,
        epochs=2,
        batch_size=49,
        dp_noise_seed=0,
        dp_encoding_share=0.0,
    )
    save(train_table(spec).model, folder / "private.pt")
    return folder / "private.pt"


@pytest.mark.slow
def test_the_bundle_of_a_private_training_records_its_run(bundle: Path) -> None:
    run = read_bundle(bundle)
    assert (run.n_rows, run.sampler, run.accountant) == (490, "poisson", "prv")
    assert run.sample_rate == pytest.approx(0.1) and run.phases is not None and run.phases[0].steps == 20
    assert run.noise_seed_known is True and run.preprocessing == "training_rows"
    assert run.layers is not None and "Linear" in run.layers
    # The stated epsilon is that of the recorded steps, and of the count of clipped rows: 2 % of what was asked for.
    again = spent(run.accounted() or [], run.delta or 0.0, "prv").epsilon
    assert again is not None and run.claimed_epsilon is not None
    assert again + 0.02 * 4.0 == pytest.approx(run.claimed_epsilon, rel=1e-6)
    assert (run.draws, run.steps_taken, run.moved_outside_steps, run.wrong_gradient) == (20, 20, 0, ())
    assert run.step_sensitivity is not None and 0.9 < run.step_sensitivity <= 1.01


@pytest.mark.slow
def test_lint_of_the_bundle_names_what_it_does_not_cover(bundle: Path) -> None:
    done = CliRunner().invoke(app, ["dp-lint", str(bundle), "--json"])
    said = json.loads(done.stdout)
    assert done.exit_code == 1
    assert [p["code"] for p in said["problems"]] == ["data_dependent_preprocessing", "noise_seed_known"]
    assert "search_not_accounted" in [m["check"] for m in said["not_recorded"]]


def test_the_probe_counts_what_breaks_the_claim_and_accounts_anew() -> None:
    found = measured(private_model(epsilon=0.5, preprocessing_from="training_rows"))
    problems = found["dp_problems/lint"]
    assert problems.estimate.value == 2.0 and problems.too_few == ""
    assert "claim_below_accounting" in problems.detail and "data_dependent_preprocessing" in problems.detail
    run = [Phase(noise_multiplier=1.1, sample_rate=0.01, steps=1000)]
    for accountant in ("rdp", "prv", "gdp"):
        one = found[f"dp_epsilon_by_accountant/{accountant}"]
        assert one.estimate.value == pytest.approx(spent(run, 1e-5, accountant).epsilon)  # type: ignore[arg-type]
        assert one.too_few and ("approximation" in one.too_few) == (accountant == "gdp")


def outcome_at(most: float, audited: Any) -> Any:
    measurements = DPClaim().measure(audited, NO_DATA, np.random.default_rng(0))
    result = ProbeResult(probe="dp_claim", pillar="privacy", citation="", measurements=tuple(measurements))
    findings, family = judge([result], [criterion("dp_epsilon", "at_most", most)])
    # A bound without sampling error takes no share of the error rate.
    assert family.m == sum(np.isnan(m.estimate.value) for m in measurements if m.metric == "dp_epsilon")
    judged = [f for f in findings if f.criterion is not None]
    assert len(judged) == 1
    return judged[0]


def test_the_smallest_upper_bound_passes_a_limit_and_never_fails_one() -> None:
    run = [Phase(noise_multiplier=1.1, sample_rate=0.01, steps=1000)]
    least = min(spent(run, 1e-5, accountant).epsilon or np.inf for accountant in ("rdp", "prv"))
    audited = private_model(epsilon=2.0, preprocessing_from="none")
    passed = outcome_at(least + 1e-6, audited)
    assert passed.outcome is Outcome.PASS and passed.measurement.estimate.value == pytest.approx(least)
    assert passed.interval == (0.0, passed.measurement.estimate.value)
    for most in (least - 1e-6, 0.1):
        missed = outcome_at(most, audited)
        assert missed.outcome is Outcome.INCONCLUSIVE and "upper bound" in missed.reason


def test_a_bound_of_another_training_than_was_done_is_not_judged() -> None:
    found = outcome_at(100.0, private_model(epsilon=2.0, preprocessing_from="training_rows"))
    assert found.outcome is Outcome.INCONCLUSIVE and "data_dependent_preprocessing" in found.reason
    # A claim that is too low says nothing against what was accounted.
    assert outcome_at(100.0, private_model(epsilon=0.5, preprocessing_from="none")).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("change", "said"),
    [({"delta": 0.0}, "At delta 0"), ({"sampler": None}, "not recorded"), ({"noise_multiplier": 0.0}, "infinite")],
)
def test_an_epsilon_that_cannot_be_had_is_said(change: dict[str, Any], said: str) -> None:
    audited = private_model(epsilon=2.0, preprocessing_from="none")
    audited.recipe = replace(audited.recipe, **change)  # type: ignore[type-var]
    one = measured(audited)["dp_epsilon/smallest_bound"]
    assert np.isnan(one.estimate.value) and said in one.estimate.reason
    assert outcome_at(100.0, audited).outcome is Outcome.INCONCLUSIVE


def test_an_upper_bound_survives_its_record() -> None:
    anything: TypeAdapter[Any] = TypeAdapter(AnyEstimate)
    kept = anything.validate_json(anything.dump_json(UpperBound(most=1.5)))
    assert kept == UpperBound(most=1.5) and kept.interval(0.9) == (0.0, 1.5)
    assert (kept.p_value(1.0, "greater"), kept.p_value(1.0, "at_most")) == (1.0, 1.0)
    assert kept.p_value(1.5, "at_most") < 1e-9


def test_a_record_without_fault_is_no_pass() -> None:
    problems = measured(private_model(epsilon=2.0, preprocessing_from="none"))["dp_problems/lint"]
    assert problems.estimate.value == 0.0 and "proves no guarantee" in problems.too_few
    assert "search_not_accounted" in problems.detail


def test_a_model_that_claims_nothing_is_not_applicable() -> None:
    plain = model(lambda skill, group, seen: skill)
    with pytest.raises(NotApplicableError, match="--dp-epsilon"):
        measured(plain)


@pytest.mark.slow
def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.pt").write_bytes(b"not a model")
    with pytest.raises(ModelError):
        read_bundle(tmp_path / "no.pt")
