"""Audits inside a training: one error rate over all looks, nothing left behind, nothing broken."""

from __future__ import annotations

import copy
import json
import math
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from auditor.core.errors import UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement, Outcome
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import NOT_REPEATED, AuditReport
from auditor.run.run_audit import run_audit
from auditor.run.while_training.training_audit import AuditWarning, TrainingAudit
from auditor.training.inspect_network import bare, digest, put_back, snapshot
from auditor.training.interim.interim_state import Budget, Spending
from probes.attribution.feature_attribution import FeatureAttribution
from probes.fairness.group_fairness import GroupFairness
from probes.privacy.membership.membership_inference import MembershipInference
from probes.robustness.robustness import Robustness
from tests import ROOT
from tests.quantifiers import all_of
from tests.run.while_training.worlds import SHORT, Meddling, Raising, SelectionRate, network, rows, selecting
from tests.toys.models import criterion

torch.set_num_threads(1)
FAIR = [criterion("demographic_parity_difference", "at_most", 0.10)]


def quietly(call: Callable[[], object]) -> list[str]:
    """Runs it and returns what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AuditWarning)
        call()
    return [str(w.message) for w in caught if issubclass(w.category, AuditWarning)]


# ---- one error rate ------------------------------------------------------------------------------------------------


def test_levels_add_up() -> None:
    spending = Spending(n_peeks=7, error_rate=0.05, closing_share=0.4)
    assert 7 * spending.peek + spending.closing == pytest.approx(0.05, rel=1e-12)
    for bad in ({"n_peeks": 0}, {"n_peeks": 1, "error_rate": 1.0}, {"n_peeks": 1, "closing_share": 0.0}):
        with pytest.raises(ValueError, match="must"):
            Spending(**bad)  # type: ignore[arg-type]


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(("runs", "most"), [(30, 6), (100, 13)])
def test_a_hundred_peeks_at_the_bound_alarm_in_at_most_five_per_cent_of_runs(runs: int, most: int) -> None:
    """Runs of 100 peeks at models whose true rate is the bound itself: of 100 at most 13 with any alarm.

    That is the limit of a 0.1 % test of 5 %, as 6 of 30 is.

    Each peek's model decides half of the rows anew, so that the peeks are far from one and the same.
    """
    n, bound = 400, 0.3
    data = AuditData.from_arrays(np.arange(n, dtype=np.float32)[:, None], np.zeros(n, int), classes=["0", "1"])
    alarms = 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        fixed = rng.random(n)
        audit = TrainingAudit(
            probes=[SelectionRate()],
            data=data,
            criteria=[criterion("selection_rate", "at_most", bound)],
            n_peeks=100,
            max_overhead=None,
        )
        for _ in range(100):
            u = np.where(rng.random(n) < 0.5, fixed, rng.random(n))
            decided = (u < bound).astype(float)
            model = AuditedModel.from_callable(lambda X, d=decided: d[X[:, 0].astype(int)], classes=["0", "1"])
            quietly(lambda a=audit, m=model: a.step(m))  # type: ignore[misc]
        alarms += any(p.failures for p in audit.peeks)
    assert alarms <= most


def test_a_planted_gap_is_found_at_the_first_look_after_it() -> None:
    data = rows(4000)
    audit = TrainingAudit(probes=[GroupFairness()], data=data, criteria=FAIR, n_peeks=10, max_overhead=None)
    for epoch in range(1, 11):
        quietly(lambda e=epoch: audit.step(selecting([1.0, 0.0, 0.0 if e < 6 else 1.5])))  # type: ignore[misc]
    assert [p.at for p in audit.peeks if p.failures] == [6, 7, 8, 9, 10]
    found = next(f for f in audit.peeks[5].findings if f.outcome is Outcome.FAIL)
    assert found.confidence == pytest.approx(1.0 - 2.0 * 0.025 / 10, abs=1e-12)


def test_the_closing_look_is_an_audit_of_its_own_at_its_share() -> None:
    """The report of ``finish`` has the numbers and verdicts of ``run_audit`` at half of the error rate."""
    from auditor.judging.budgets import Family

    data, model = rows(1500, gap=0.4), selecting([1.0, 0.0, 0.4])
    audit = TrainingAudit(probes=[GroupFairness()], data=data, criteria=FAIR, n_peeks=3, max_overhead=None)
    for _ in range(3):
        quietly(lambda: audit.step(model))
    report = audit.finish(model)
    assert report is not None
    alone = run_audit(audit.wrap(model), data, [GroupFairness()], FAIR, family=Family(error_rate=0.025))
    mine = [f for f in report.findings if f.probe != "training_audit"]
    assert [(f.id, f.value, f.interval, f.outcome) for f in mine] == [
        (f.id, f.value, f.interval, f.outcome) for f in alone.findings
    ]
    assert report.family.error_rate == 0.025


# ---- nothing left behind -------------------------------------------------------------------------------------------


def learn(audit: TrainingAudit | None, epochs: int = 3) -> tuple[nn.Module, list[float]]:
    """A loop with everything that could be disturbed: dropout, batch statistics, momentum, accumulated gradients."""
    torch.manual_seed(3)
    np.random.seed(3)
    data = rows(600, seed=1)
    x, y = torch.from_numpy(np.asarray(data.X)), torch.from_numpy(np.asarray(data.y_true))
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for i, index in enumerate(torch.randperm(len(x)).split(50)):
            (nn.functional.cross_entropy(model(x[index]), y[index]) / 2).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
            elif audit is not None:
                quietly(lambda: audit.step(model))
    draws = [float(torch.rand(1)), float(np.random.random())]
    if audit is not None:
        quietly(lambda: audit.finish(model))
    return model, draws


@pytest.mark.slow
def test_training_with_and_without_an_audit_is_the_same_bit_by_bit() -> None:
    data = rows(60)
    data = AuditData.from_arrays(
        np.asarray(data.X), np.asarray(data.y_true), classes=["0", "1"], positive="1",
        sensitive_features=data.sensitive_features, is_member=np.arange(60) < 30,
    )  # fmt: skip
    probes = [
        GroupFairness(), MembershipInference(methods=["loss_threshold"]), Robustness(**SHORT), Meddling(), Raising(),
        FeatureAttribution(method="integrated_gradients", n_copies=2),
    ]  # fmt: skip
    audit = TrainingAudit(probes=probes, data=data, n_peeks=18, max_overhead=None)
    plain, draws = learn(None)
    audited, again = learn(audit)
    assert len(audit.peeks) == 18 and draws == again
    for (name, a), (_, b) in zip(plain.state_dict().items(), audited.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert audited.training and all_of(p.requires_grad for p in audited.parameters())
    ran = {r.probe for r in audit.peeks[0].results if r.measurements}
    assert {"group_fairness", "membership_inference", "robustness", "meddling", "feature_attribution"} <= ran


def test_a_network_that_keeps_what_it_computed_goes_on_learning() -> None:
    """Tensors made in an audit may end in the network's own cache, from which training then differentiates."""

    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)
            self.scale: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.scale is None:
                self.scale = torch.arange(1.0, 4.0)
            out: torch.Tensor = self.inner(x * self.scale)
            return out

    model = Caching()
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(100), criteria=FAIR, n_peeks=1)
    quietly(lambda: audit.step(model))
    model(torch.ones(2, 3, requires_grad=True)).sum().backward()
    assert model.inner.weight.grad is not None


# ---- what a look finds has consequences ----------------------------------------------------------------------------


def test_rollback_puts_the_last_passing_weights_back_and_asks_to_stop() -> None:
    data = rows(4000)
    audit = TrainingAudit(
        probes=[GroupFairness()], data=data, criteria=FAIR, n_peeks=3, max_overhead=None, on_fail="rollback"
    )
    model = selecting([1.0, 0.0, 0.0])
    quietly(lambda: audit.step(model))
    assert audit.peeks[0].has_passed
    good = snapshot(model)
    put_back(model, {"weight": torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])})
    said = quietly(lambda: audit.step(model))
    assert audit.should_stop and torch.equal(model.weight, good["weight"])
    assert any("weights of epoch 1 were put back" in s and "which passed" in s for s in said)
    report = audit.finish(model)
    assert report is not None and report.summary.fail == 0
    assert "alarms at 2" in next(f.detail for f in report.findings if f.metric == "alarms")


@pytest.mark.parametrize(("on_fail", "stops"), [("warn", False), ("stop", True)])
def test_an_alarm_warns_and_stops_where_asked(on_fail: str, stops: bool) -> None:
    audit = TrainingAudit(
        probes=[GroupFairness()],
        data=rows(4000),
        criteria=FAIR,
        n_peeks=1,
        on_fail=on_fail,  # type: ignore[arg-type]
    )
    said = quietly(lambda: audit.step(selecting([1.0, 0.0, 3.0])))
    assert audit.should_stop is stops and any("demographic_parity_difference shown to fail" in s for s in said)


def test_where_warnings_are_errors_training_goes_on() -> None:
    audit = TrainingAudit(probes=[Raising()], data=rows(50), n_peeks=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peek = audit.step(selecting([1.0, 0.0, 0.0]))
    assert peek is not None and peek.results[0].not_run == "RuntimeError: the sky fell"


# ---- faults --------------------------------------------------------------------------------------------------------


def test_whatever_goes_wrong_is_not_run_and_never_an_exception(tmp_path: Path) -> None:
    def log(numbers: dict[str, float], at: float) -> None:
        raise OSError("the tracker is down")

    (tmp_path / "file").write_text("")
    audit = TrainingAudit(
        probes=[Raising(), GroupFairness()], data=rows(300), n_peeks=2, max_overhead=None, log=log,
        out=tmp_path / "file" / "below",
    )  # fmt: skip
    reports: list[AuditReport | None] = []
    said = quietly(
        lambda: [audit.step(selecting([1.0, 0.0, 0.0])), audit.step(nn.Linear(7, 2)), reports.append(audit.finish())]
    )
    for part in ("the sky fell", "the tracker is down", "epoch 2", "report could not be written"):
        assert any(part in s for s in said), part
    (report,) = reports
    assert report is not None and audit.report is report and report.exit_code == 3
    own = [f for f in report.findings if f.probe == "training_audit" and f.outcome is Outcome.NOT_RUN]
    assert own and "the tracker is down" in (own[0].reason or "")
    assert audit.peeks[0].results[1].measurements and audit.peeks[1].results[1].not_run


def test_looks_beyond_the_plan_and_without_one_are_measured_and_not_judged() -> None:
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(2000), criteria=FAIR, n_peeks=1, max_overhead=None)
    unfair = selecting([1.0, 0.0, 3.0])
    quietly(lambda: (audit.step(unfair), audit.step(unfair)))
    assert audit.peeks[0].failures and not audit.peeks[1].failures
    unplanned = TrainingAudit(probes=[GroupFairness()], data=rows(2000), criteria=FAIR)
    said = quietly(lambda: unplanned.step(unfair))
    assert any("n_peeks was not given" in s for s in said) and not unplanned.peeks[0].failures
    reports: list[AuditReport | None] = []
    quietly(lambda: reports.append(unplanned.finish()))
    assert reports[0] is not None and reports[0].exit_code == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probes": []}, "needs probes"),
        ({"probes": [GroupFairness]}, "instances"),
        ({"every": 0}, "every"),
        ({"every": "step"}, "every"),
        ({"on_fail": "panic"}, "on_fail"),
        ({"max_overhead": 1.0}, "max_overhead"),
        ({"n_peeks": 0}, "n_peeks"),
        ({"accountant": object()}, "delta"),
        ({"error_rate": 5.0}, "error_rate"),
        ({"closing_share": 1.0}, "closing_share"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainingAudit(**({"probes": [GroupFairness()], "data": rows(20)} | options))  # type: ignore[arg-type]


# ---- what it costs -------------------------------------------------------------------------------------------------


def test_the_schedule_thins_itself_out_to_keep_its_share() -> None:
    """A clock of one's own: epochs of 10 s, looks of 1 s, 3 % allowed."""
    now = [0.0]
    budget = Budget(0.03, clock=lambda: now[0])
    taken = []
    for epoch in range(200):
        now[0] += 10.0
        if budget.allows():
            now[0] += 1.0
            budget.spend(1.0)
            taken.append(epoch)
            if epoch:
                assert budget.seconds <= 0.03 * now[0]
    assert 50 <= len(taken) <= 62 and taken[0] == 0
    assert budget.overhead == pytest.approx(budget.seconds / now[0])
    assert Budget(None, clock=lambda: 0.0).allows()
    # After 100 s of training 3 % are 3.09 s: one look was taken, two more and the report are 4 s.
    for reserve, allowed in ((0.0, True), (1.0, False)):
        tight = Budget(0.03, reserve=reserve, clock=lambda: now[0])
        tight.spend(1.0)
        now[0] += 101.0
        assert tight.allows() is allowed


def test_time_is_the_processors_of_all_threads_and_none_of_other_work() -> None:
    budget = Budget(0.03)
    time.sleep(0.3)
    assert budget.elapsed < 0.2
    begun = time.process_time()

    def busy() -> None:
        while time.process_time() - begun < 0.2:
            sum(range(1000))

    thread = threading.Thread(target=busy)
    thread.start()
    thread.join()
    assert budget.elapsed >= 0.2


@pytest.mark.parametrize("epoch", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize(
    ("first", "later", "drawing"),
    [(0.4, 0.1, 1.2), (0.2, 0.2, 1.4), (0.05, 0.05, 0.5), (0.9, 0.4, 0.5), (0.01, 0.01, 0.02)],
)
def test_audits_take_at_most_their_share_of_every_training_of_a_minute(
    epoch: float, first: float, later: float, drawing: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock of one's own: whatever an epoch and a look take, the first look, the last and the page included.

    All that costs is charged: 60 s of training allow 1.86 s of audits, and no more than these are taken.
    """
    now = [0.0]

    class Costly(SelectionRate):
        def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
            now[0] += first if not audit.peeks else later
            return super().measure(model, data, rng)

    def render_html(report: AuditReport) -> str:
        now[0] += drawing
        return "page"

    monkeypatch.setattr("auditor.report.html.render_html", render_html)
    audit = TrainingAudit(probes=[Costly()], data=rows(40), n_peeks=int(60.0 / epoch), out=tmp_path)
    audit.budget.clock = lambda: now[0]
    audit.begin()
    for k in range(int(60.0 / epoch)):
        now[0] += epoch
        audit.step(selecting([1.0, 0.0, 0.01 * k]))
    audit.finish(selecting([1.0, 0.0, 0.01 * k]))
    spent = now[0] - 60.0
    assert audit.budget.seconds == pytest.approx(spent) and audit.budget.overhead == pytest.approx(spent / now[0])
    assert spent <= 0.03 * now[0] + 1e-9
    assert audit.peeks[0].look == 1 and audit.peeks[-1].look == int(60.0 / epoch)
    assert (tmp_path / "report.html").read_text() == "page"


def test_what_was_left_out_is_said_and_the_last_look_is_always_taken() -> None:
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(500), criteria=FAIR, n_peeks=5, max_overhead=1e-6)
    warned = [quietly(lambda: audit.step(selecting([1.0, 0.0, 0.0]))) for _ in range(5)]
    said = [text for texts in warned for text in texts if "is not audited" in text]
    # Once, with the option that changes it; the report has the others.
    assert len(said) == 1 and "epoch 2" in said[0] and "max_overhead=None" in said[0]
    report = audit.finish()
    assert [p.at for p in audit.peeks] == [1, 5] and audit.skipped == [2, 3, 4]
    assert report is not None
    detail = next(f.detail for f in report.findings if f.metric == "alarms")
    assert "3 were left out" in detail and "2, 3, 4" in detail


def test_a_warning_points_at_the_line_of_the_users_that_it_comes_from() -> None:
    audit = TrainingAudit(probes=[Raising()], data=rows(300), n_peeks=1, max_overhead=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AuditWarning)
        audit.step(network())
        audit.finish()
    assert caught and all_of(w.filename == __file__ for w in caught)


@pytest.mark.parametrize(
    ("options", "model", "says"),
    [
        (
            {"wrap": lambda n: TorchModel(n, classes=["LABEL_0", "LABEL_1"])},
            network(),
            "classes are 0, 1, the model's LABEL_0",
        ),
        ({}, nn.Sequential(network(), nn.Softmax(1)), "outputs"),
        ({}, nn.Linear(7, 2), "NOT_RUN"),
    ],
    ids=["class names", "probabilities", "another width"],
)
def test_what_would_be_not_run_at_every_look_is_an_error_at_once(
    options: dict[str, Any], model: nn.Module, says: str
) -> None:
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(300), n_peeks=1, max_overhead=None, **options)
    before = digest(model)
    with pytest.raises(UsageError, match="Every look of this audit would be NOT_RUN") as error:
        audit.check(model)
    assert says in str(error.value) and digest(model) == before and not audit.faults
    quietly(lambda: audit.step(model))
    assert all_of(result.not_run for result in audit.peeks[0].results)


def test_a_check_that_passes_leaves_the_audit_and_the_model_as_they_are() -> None:
    model = network().train()
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(300), n_peeks=1, max_overhead=None)
    before, state = digest(model), torch.random.get_rng_state()
    audit.check(model)
    assert digest(model) == before and model.training and torch.equal(torch.random.get_rng_state(), state)
    assert not audit.peeks and not audit.faults and audit.budget.seconds > 0.0


# ---- the report ----------------------------------------------------------------------------------------------------


def test_the_report_holds_to_its_schema_and_shows_every_course(tmp_path: Path) -> None:
    logged: list[tuple[float, dict[str, float]]] = []
    data = rows(800)
    audit = TrainingAudit(
        probes=[GroupFairness()], data=data, criteria=FAIR, n_peeks=3, max_overhead=None, out=tmp_path,
        log=lambda numbers, at: logged.append((at, numbers)),
    )  # fmt: skip
    values = []
    for shift in (0.0, 0.3, 0.8):
        model = selecting([1.0, 0.0, shift])
        quietly(lambda m=model: audit.step(m))  # type: ignore[misc]
        values.append(next(m.estimate.value for m in audit.peeks[-1].results[0].measurements
                           if m.metric == "demographic_parity_difference"))  # fmt: skip
    audit.finish()
    report = AuditReport.model_validate_json((tmp_path / "report.json").read_text())
    course = next(
        f for f in report.figures if f.id == "course/group_fairness/between_groups/demographic_parity_difference/sex"
    )
    (series,) = course.series
    assert series.x == (1.0, 2.0, 3.0) and series.y == pytest.approx(values) and course.criterion == 0.10
    assert all_of(low <= y <= high for low, y, high in zip(series.low, series.y, series.high, strict=True))  # type: ignore[operator]
    by_group = next(f for f in report.figures if f.id.endswith("selection_rate/sex") and f.id.startswith("course"))
    assert {s.name for s in by_group.series} == {"f", "m"}
    at, numbers = logged[2]
    assert at == 3.0 and numbers["audit/group_fairness/demographic_parity_difference/sex"] == pytest.approx(values[2])
    assert "audit/group_fairness/selection_rate/sex.f" in numbers and "audit/outcomes/fail" in numbers
    html = (tmp_path / "report.html").read_text()
    assert "over training" in html
    import jsonschema

    schema = json.loads((ROOT / "auditor" / "report" / "record" / "report.schema.json").read_text())
    jsonschema.validate(json.loads((tmp_path / "report.json").read_text()), schema)


def test_same_seed_same_report() -> None:
    def once() -> AuditReport:
        probes = [GroupFairness(), Robustness(**SHORT)]
        audit = TrainingAudit(probes=probes, data=rows(300), n_peeks=2, max_overhead=None)
        model = network()
        quietly(lambda: (audit.step(model), audit.step(copy.deepcopy(model))))
        report = audit.finish()
        assert report is not None
        return report.model_copy(update=dict.fromkeys(NOT_REPEATED))

    first, again = once(), once()
    assert first == again


def test_epsilon_so_far_is_the_accountants() -> None:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    audit = TrainingAudit(
        probes=[GroupFairness()], data=rows(300), n_peeks=2, max_overhead=None, accountant=accountant, delta=1e-4
    )
    spent = []
    for _ in range(2):
        for _ in range(20):
            accountant.step(noise_multiplier=1.1, sample_rate=0.02)
        quietly(lambda: audit.step(network()))
        spent.append(accountant.get_epsilon(1e-4))
    seen = [
        m.estimate.value for p in audit.peeks for r in p.results for m in r.measurements if m.metric == "dp_epsilon"
    ]
    assert seen == pytest.approx(spent, rel=1e-9) and spent[1] > spent[0]
    report = audit.finish()
    assert report is not None and any(f.id.startswith("course/dp_accounting") for f in report.figures)


def test_wrappers_are_taken_off_and_own_layers_are_not() -> None:
    inner = network()
    with warnings.catch_warnings():
        # Of torch's own, on the first import of its compiler.
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.compile(inner)
    assert bare(nn.DataParallel(inner)) is inner and bare(compiled) is inner  # type: ignore[arg-type]

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -self.module(x)  # type: ignore[no-any-return]

    own = Own()
    assert bare(own) is own


def test_a_digest_changes_with_any_bit_and_with_the_order() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2).to(torch.bfloat16))
    before = digest(module)
    assert digest(copy.deepcopy(module)) == before
    changes: list[Callable[[nn.Sequential], object]] = [
        lambda m: m[0].weight.data[0].copy_(m[0].weight.data[0].flip(0)),
        lambda m: m[1].num_batches_tracked.add_(1),
        lambda m: m[2].weight.data.view(torch.int16)[0, 0].bitwise_xor_(1),
        lambda m: m[0].bias.data[1].mul_(-1.0),
    ]
    for change in changes:
        other = copy.deepcopy(module)
        change(other)
        assert digest(other) != before


# ---- what others may do to a network -------------------------------------------------------------------------------


def gap(audit: TrainingAudit) -> list[float]:
    return [
        m.estimate.value
        for p in audit.peeks
        for m in p.results[0].measurements
        if m.metric == "demographic_parity_difference"
    ]


@pytest.mark.parametrize("how", ["callable", "same wrapper", "data"])
def test_every_look_asks_the_network_as_it_is_now(how: str) -> None:
    """Also where the same wrapper is given each time, or weights are written past torch's own count of changes."""
    model, data = selecting([1.0, 0.0, 0.0]), rows(2000)
    wrapped = TorchModel(model, classes=["0", "1"])
    given: nn.Module | AuditedModel = model
    if how == "callable":
        given = AuditedModel.from_callable(
            lambda X: torch.softmax(model(torch.from_numpy(np.asarray(X))), 1).detach().numpy(), classes=["0", "1"]
        )
    wrap = (lambda network: wrapped) if how == "same wrapper" else None
    audit = TrainingAudit(probes=[GroupFairness()], data=data, criteria=FAIR, n_peeks=2, max_overhead=None, wrap=wrap)
    quietly(lambda: audit.step(given))
    model.weight.data[1, 2] = 3.0
    quietly(lambda: audit.step(given))
    first, second = gap(audit)
    assert first < 0.1 < 0.5 < second
    if how == "data":
        model.weight.data[1, 2] = 0.0
        report = audit.finish(model)
        assert report is not None
        closing = next(f.value for f in report.findings if f.metric == "demographic_parity_difference")
        assert closing == pytest.approx(first, abs=1e-12)


def test_a_wrapper_that_changes_mode_or_device_does_not_change_training() -> None:
    model = network().train()
    audit = TrainingAudit(
        probes=[GroupFairness()], data=rows(200), criteria=FAIR, n_peeks=2, max_overhead=None,
        wrap=lambda n: TorchModel(n.eval(), classes=["0", "1"], device="meta"),
    )  # fmt: skip
    before = digest(model)
    quietly(lambda: audit.step(model))
    assert model.training and digest(model) == before and {p.device.type for p in model.parameters()} == {"cpu"}
    assert audit.peeks[0].results[0].measurements and not audit.faults


def test_a_network_that_merges_weights_in_eval_is_a_fault() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> Merging:
            super().train(mode)
            self.weight.data += 0.1 if not mode else 0.0
            return self

    model = Merging(3, 2)
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(200), criteria=FAIR, n_peeks=1)
    said = quietly(lambda: audit.step(model))
    assert any("weights are not what they were" in s for s in said) and model.training


def test_opacus_goes_on_learning_after_a_look_that_takes_gradients() -> None:
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    data = rows(200)
    x, y = torch.from_numpy(np.asarray(data.X)), torch.from_numpy(np.asarray(data.y_true))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        private, optimizer, loader = PrivacyEngine().make_private(
            module=model, optimizer=optimizer, data_loader=DataLoader(TensorDataset(x, y), batch_size=50),
            noise_multiplier=1.0, max_grad_norm=1.0,
        )  # fmt: skip
        audit = TrainingAudit(
            probes=[FeatureAttribution(method="integrated_gradients", n_copies=0), Robustness(**SHORT)], data=data,
            n_peeks=2, max_overhead=None,
        )  # fmt: skip
        for _ in range(2):
            for inputs, labels in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(private(inputs), labels).backward()
                optimizer.step()
            audit.step(private)
    assert audit.peeks[1].results[0].measurements and private.hooks_enabled


def test_networks_of_other_precisions_are_asked_in_their_own() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        audit = TrainingAudit(probes=[GroupFairness()], data=rows(200), criteria=FAIR, n_peeks=1)
        quietly(lambda d=dtype, a=audit: a.step(nn.Linear(3, 2).to(d)))  # type: ignore[misc]
        assert audit.peeks[0].results[0].measurements, dtype


def test_sharded_parameters_are_not_run() -> None:
    model = selecting([1.0, 0.0, 0.0])
    model.weight.placements = ()  # type: ignore[attr-defined]
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(200), criteria=FAIR, n_peeks=1)
    said = quietly(lambda: audit.step(model))
    assert any("FSDP" in s for s in said) and "FSDP" in audit.peeks[0].results[0].not_run


def test_rollback_never_goes_back_to_what_was_not_audited() -> None:
    data = rows(4000)
    audit = TrainingAudit(
        probes=[GroupFairness()], data=data, criteria=FAIR, n_peeks=3, max_overhead=None, on_fail="rollback"
    )
    model = selecting([1.0, 0.0, 0.0])
    model.weight.data.fill_(math.nan)
    quietly(lambda: audit.step(model))
    model.weight.data.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 3.0]]))
    said = quietly(lambda: audit.step(model))
    assert any("no earlier look to go back to" in s for s in said) and bool(torch.isfinite(model.weight).all())
    other = TrainingAudit(probes=[GroupFairness()], data=data, criteria=FAIR, n_peeks=1, on_fail="rollback")
    said = quietly(lambda: other.step(AuditedModel.from_callable(lambda X: X[:, 0] > 0, classes=["0", "1"])))
    assert any("cannot be put back" in s for s in said)


def test_a_place_that_is_no_number_is_a_fault_and_no_exception() -> None:
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(50), n_peeks=1)
    said = quietly(lambda: audit.step(network(), at="epoch 3"))  # type: ignore[arg-type]
    assert any("epoch 3" in s for s in said)


def test_names_are_such_as_trackers_take() -> None:
    from auditor.judging.measurement import Measurement
    from auditor.statistics.estimate import Exact
    from auditor.training.interim.interim_look import metric_name

    measured = Measurement(
        metric="rate", method="a/b", estimate=Exact(known=1.0), n_samples=1,
        group={"race": "Black, other", "sex": "f=1"},
        at={"noise": 0.1},
    )  # fmt: skip
    assert metric_name("probe", measured) == "audit/probe/rate/a_b/race.Black_ other-sex.f_1/noise.0.1"
