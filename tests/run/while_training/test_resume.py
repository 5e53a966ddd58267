"""A training that is broken off leaves its audit, and one that goes on from a checkpoint ends with the same report."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from auditor.core.errors import UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement, Outcome, Pillar
from auditor.models.audited_model import AuditedModel
from auditor.report.html import render_html
from auditor.report.record.audit_report import NOT_REPEATED, AuditReport
from auditor.run.probe import Need
from auditor.run.while_training.training_audit import TrainingAudit
from auditor.training.interim.interim_state import probes_digest, rows_digest
from probes.fairness.group_fairness import GroupFairness
from probes.robustness.robustness import Robustness
from tests import ROOT
from tests.quantifiers import all_of
from tests.run.while_training.test_training_audit import FAIR, quietly
from tests.run.while_training.worlds import network, rows, selecting
from tests.toys.models import criterion

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("undrawn")


class Killing:
    """Ends the process, as a scheduler does, in the middle of its ``fatal``-th look."""

    name = "killing"
    pillar: Pillar = "robustness"
    goal = "To be preempted."
    citation = ""
    methods: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    fatal = 0
    asked = 0

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        Killing.asked += 1
        if Killing.asked == Killing.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return []


def audit_of(out: Path | None, **options: Any) -> TrainingAudit:
    return TrainingAudit(**({"probes": [GroupFairness(), Killing()], "data": rows(400), "n_peeks": 5,
                             "max_overhead": None, "out": out} | options))  # fmt: skip


def loop(out: Path, checkpoint: Path) -> AuditReport:
    """A training of five epochs that keeps a checkpoint after each, and goes on from it where there is one."""
    data = rows(400, seed=1)
    x, y = torch.from_numpy(np.asarray(data.X)), torch.from_numpy(np.asarray(data.y_true))
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    audit, done = audit_of(out), 0
    torch.manual_seed(3)
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        torch.set_rng_state(kept["rng"])
        audit.load_state_dict(kept["audit"])
        done = kept["epoch"]
    for epoch in range(done, 5):
        for index in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
        audit.step(model)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(),
                 "audit": audit.state_dict(), "epoch": epoch + 1}  # fmt: skip
        torch.save(state, checkpoint)
    report = audit.finish(model)
    assert report is not None and not audit.faults
    return report


def but_times(report: AuditReport) -> dict[str, Any]:
    """Everything that is said but when, how long it took, and that it was resumed."""
    said = report.model_dump(mode="json", exclude=set(NOT_REPEATED))
    said["training"].pop("resumed_after", None)
    return said


def killed(out: Path, checkpoint: Path, look: int) -> None:
    """Runs the training in a process of its own that is killed in a look."""
    child = os.fork()
    if not child:
        try:
            Killing.asked, Killing.fatal = 0, look
            loop(out, checkpoint)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_and_resumed_training_ends_with_the_report_of_an_uninterrupted_one(tmp_path: Path) -> None:
    Killing.fatal = 0
    whole = loop(tmp_path / "whole", tmp_path / "whole.pt")
    out, checkpoint = tmp_path / "resumed", tmp_path / "resumed.pt"
    killed(out, checkpoint, 3)
    left = AuditReport.from_json((out / "report.json").read_text())
    assert left.training is not None and [look.look for look in left.training.looks] == [1, 2]
    assert sorted(p.name for p in out.iterdir()) == ["report.html", "report.json"]
    assert left.exit_code == 3 and "has not ended" in left.training.describe()
    assert [f.interval for f in left.findings if f.metric == "selection_rate"]
    resumed = loop(out, checkpoint)
    assert but_times(resumed) == but_times(whole)
    assert resumed.training is not None and resumed.training.resumed_after == (2,)
    assert whole.training is not None and whole.training.resumed_after == () and not whole.training.eventful
    assert "Resumed from a checkpoint once, after look 2" in render_html(resumed)
    assert AuditReport.from_json((out / "report.json").read_text()) == resumed
    import jsonschema

    schema = json.loads((ROOT / "auditor" / "report" / "record" / "report.schema.json").read_text())
    jsonschema.validate(json.loads((out / "report.json").read_text()), schema)


def through_a_file(audit: TrainingAudit) -> dict[str, Any]:
    """Its state as a checkpoint gives it back, without running anything of it."""
    kept = io.BytesIO()
    torch.save(audit.state_dict(), kept)
    kept.seek(0)
    state: dict[str, Any] = torch.load(kept, weights_only=True)
    return state


def model_of(bias: float) -> nn.Module:
    return selecting([1.0, 0.0, bias])


def test_looks_come_back_bit_by_bit(tmp_path: Path) -> None:
    audit = TrainingAudit(probes=[GroupFairness(), Robustness()], data=rows(200), n_peeks=3, max_overhead=None)
    quietly(lambda: (audit.step(network()), audit.step(nn.Linear(7, 2))))
    other = TrainingAudit(probes=[GroupFairness(), Robustness()], data=rows(200), n_peeks=3, max_overhead=None)
    other.load_state_dict(through_a_file(audit))
    assert other.peeks == audit.peeks and len(audit.peeks) == 2 and audit.peeks[0].results[1].measurements
    assert other.faults == audit.faults != [] and other.budget.seconds == audit.budget.seconds
    assert other.state_dict()["audit"]["looks"] == audit.state_dict()["audit"]["looks"]


def test_a_training_that_is_broken_off_leaves_its_last_look_at_that_looks_level(tmp_path: Path) -> None:
    audit = audit_of(tmp_path, criteria=FAIR, probes=[GroupFairness()], data=rows(4000))
    quietly(lambda: audit.step(model_of(0.0)))
    first = AuditReport.from_json((tmp_path / "report.json").read_text())
    judged = next(f for f in first.findings if f.metric == "demographic_parity_difference")
    assert judged.outcome is Outcome.PASS and judged.confidence == pytest.approx(1.0 - 2.0 * 0.025 / 5, abs=1e-12)
    # What was measured passes; that the training has not ended is no pass.
    assert first.exit_code == 3 and first.training is not None and first.training.closing is None
    quietly(lambda: audit.step(model_of(3.0)))
    second = AuditReport.from_json((tmp_path / "report.json").read_text())
    assert second.exit_code == 1 and second.training is not None
    assert [look.failed for look in second.training.looks] == [(), ("demographic_parity_difference",)]


def test_what_rows_and_probes_are_is_the_same_in_every_process_and_changes_with_each_part() -> None:
    data = rows(50)
    assert rows_digest(data) == rows_digest(rows(50))
    groups = data.sensitive_features
    assert groups is not None
    x, y = np.asarray(data.X), np.asarray(data.y_true)

    def other(x: Any = x, y: Any = y, groups: Any = groups, **more: Any) -> AuditData:
        given: dict[str, Any] = {"classes": ["0", "1"], "positive": "1", "sensitive_features": groups} | more
        return AuditData.from_arrays(x, y, **given)

    different = [other(), other(x[::-1]), other(y=1 - y), other(groups=groups[::-1].reset_index(drop=True)),
                 other(positive="0"), other(is_member=np.arange(50) < 9), other(weights=np.arange(1.0, 51.0)),
                 other(groups=groups.rename(columns={"sex": "gender"}))]  # fmt: skip
    assert len({rows_digest(each) for each in different}) == len(different)
    first, again = (probes_digest([GroupFairness(), Robustness()]) for _ in range(2))
    assert first == again
    probes: list[list[object]] = [[GroupFairness()], [Robustness()], [Robustness(sigma=0.5)], [Robustness(noise=[0.3])]]
    assert len({probes_digest(each) for each in probes}) == len(probes)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"data": rows(400, seed=5)}, "rows"),
        ({"probes": [GroupFairness()]}, "probes"),
        ({"criteria": [criterion("demographic_parity_difference", "at_most", 0.9)]}, "criteria"),
        ({"n_peeks": 50}, "plan"),
        ({"every": 3}, "plan"),
        ({"closing_share": 0.9}, "plan"),
        ({"error_rate": 0.5}, "error rate"),
        ({"seed": 1}, "seed"),
        ({"seed": 1, "n_peeks": 6}, "plan and seed"),
    ],
)
def test_a_state_of_another_audit_is_refused_in_a_sentence(options: dict[str, Any], what: str) -> None:
    Killing.fatal = 0
    audit = audit_of(None)
    quietly(lambda: audit.step(network()))
    with pytest.raises(UsageError, match=f"of an audit of other {what}, and") as refused:
        audit_of(None, **options).load_state_dict(through_a_file(audit))
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize("state", [{}, {"audit": {"version": 2}}, {"audit": "x"}, {"audit": {1, 2}}, {"audit": None}])
def test_what_is_no_state_is_refused_in_a_sentence(state: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no state of a TrainingAudit"):
        audit_of(None).load_state_dict(state)


# ---- a state that was damaged --------------------------------------------------------------------------------------

WIDE = [criterion("demographic_parity_difference", "at_most", 0.9)]
DAMAGES: dict[str, tuple[str, object]] = {
    "look 0": ("looks.0.look", 0),
    "a look below 0": ("looks.0.look", -1),
    "a look beyond those it came to": ("looks.1.look", 4),
    "one look twice": ("looks.1.look", 1),
    "looks that fall": ("looks.0.look", 3),
    "a level below 0": ("looks.0.error_rate", -1.0),
    "a level of 0": ("looks.0.error_rate", 0.0),
    "a level that buys more": ("looks.1.error_rate", 0.05),
    "a level that is NaN": ("looks.0.error_rate", math.nan),
    "a place that is NaN": ("looks.0.at", math.nan),
    "a look that took less than no time": ("looks.0.seconds", -1.0),
    "no looks": ("looks", None),
    "results of another kind": ("looks.0.results", [1]),
    "a number of no known kind": ("looks.0.results.0.measurements.0.estimate.kind", "x"),
    "calls below 0": ("calls", -1),
    "fewer calls than looks": ("calls", 1),
    "calls beyond counting": ("calls", 10**30),
    "time below 0": ("passed_s", -1.0),
    "time that is NaN": ("passed_s", math.nan),
    "audits below 0": ("audits_s", -0.5),
    "a longest look below 0": ("longest_s", -1e-9),
    "a longest look without end": ("longest_s", math.inf),
    "resumed after less than nothing": ("resumed_after", [-1]),
    "a place left out that is NaN": ("left_out.0", math.nan),
    "a spent look that the plan has not": (
        "spent", [{"look": 9, "at": 9.0, "error_rate": 0.05 * 0.5 / 4, "judged": True, "weights": "x"}]),
    "a spent look of another level": (
        "spent", [{"look": None, "at": 9.0, "error_rate": 0.5, "judged": True, "weights": "x"}]),
    "weights of no look": ("kept", [True, 7.0]),
    "weights of nothing": ("kept", None),
    "nesting without end": ("faults", "deep"),
}  # fmt: skip
WEIGHTS: dict[str, object] = {
    "a list": [1],
    "none": {},
    "nothing": None,
    "numbers for tensors": {"weight": 1.0},
    "names that are no text": {0: torch.zeros(2, 3)},
    "NaN": {"weight": torch.full((2, 3), math.nan)},
    "no storage": {"weight": torch.zeros(2, 3, device="meta")},
}


def rolling() -> TrainingAudit:
    return TrainingAudit(probes=[GroupFairness()], data=rows(400), criteria=WIDE, n_peeks=4, max_overhead=None,
                         on_fail="rollback")  # fmt: skip


@pytest.fixture(scope="module")
def sound() -> dict[str, Any]:
    """Of an audit after three calls, of which the second was left out, with weights to go back to."""
    audit = rolling()
    quietly(lambda: audit.step(model_of(0.0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit.budget, "allows", lambda: False)
        audit.step(model_of(0.0))
    quietly(lambda: audit.step(model_of(0.01)))
    state = through_a_file(audit)
    assert [look["look"] for look in state["audit"]["looks"]] == [1, 3] and state["audit"]["kept"] is not None
    return state


def damaged(state: dict[str, Any], where: str, value: object) -> dict[str, Any]:
    found = copy.deepcopy(state)
    *path, last = (int(part) if part.isdigit() else part for part in where.split("."))
    place: Any = found["audit"]
    for part in path:
        place = place[part]
    if value == "deep":
        value = []
        for _ in range(100_000):
            value = [value]
    place[last] = value
    return found


def everything_of(audit: TrainingAudit) -> dict[str, Any]:
    return vars(audit) | {"budget": {n: v for n, v in vars(audit.budget).items()}, "asking": vars(audit._asking).copy()}


def assert_refused(state: dict[str, Any]) -> None:
    audit = rolling()
    before = copy.copy(everything_of(audit))
    with pytest.raises(UsageError, match="no state of a TrainingAudit") as refused:
        audit.load_state_dict(state)
    assert str(refused.value).count(". ") == 0 and "\n" not in str(refused.value) and len(str(refused.value)) < 400
    after = everything_of(audit)
    assert before.keys() == after.keys()
    assert all_of(before[name] is after[name] or before[name] == after[name] for name in before)
    assert not audit.peeks and not audit.faults and not audit.skipped
    # It begins anew, and ends, as if nothing had been loaded.
    quietly(lambda: audit.step(model_of(0.0)))
    assert [p.look for p in audit.peeks] == [1]


@pytest.mark.grid
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_refused_in_a_sentence_and_changes_nothing(sound: dict[str, Any], name: str) -> None:
    assert_refused(damaged(sound, *DAMAGES[name]))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_no_snapshot_are_refused_in_a_sentence(sound: dict[str, Any], name: str) -> None:
    assert_refused(sound | {"weights": WEIGHTS[name]})


def test_a_look_beyond_the_plan_that_says_it_was_judged_is_refused(sound: dict[str, Any]) -> None:
    state = damaged(sound, "left_out", [2.0, 2.0, 2.0])
    state["audit"]["calls"] = 5
    assert_refused(damaged(state, "looks.1.look", 5))
    audit = rolling()
    state = damaged(damaged(state, "looks.1.look", 5), "looks.1.judged", False)
    audit.load_state_dict(state)
    assert [p.judged for p in audit.peeks] == [True, False]


def test_a_sound_state_is_taken_whole(sound: dict[str, Any]) -> None:
    audit = rolling()
    assert not quietly(lambda: audit.load_state_dict(sound))
    assert audit.state_dict()["audit"]["looks"] == sound["audit"]["looks"] and audit.resumed_after == (3,)


@pytest.mark.parametrize(
    "weights",
    [
        {"weight": torch.zeros(1, 1)},
        {"other": torch.zeros(2, 3)},
        {"weight": torch.zeros(2, 3), "more": torch.zeros(1)},
        {"weight": torch.zeros(2, 3, dtype=torch.int64)},
    ],
    ids=["a shape that would be spread", "another name", "one more", "whole numbers"],
)
def test_weights_of_another_network_are_left_out_at_the_next_look(
    sound: dict[str, Any], weights: dict[str, Any]
) -> None:
    audit = rolling()
    audit.load_state_dict(sound | {"weights": weights})
    model = model_of(3.0)
    before = copy.deepcopy(model.state_dict())
    said = quietly(lambda: audit.step(model))
    assert any("do not fit the network" in s for s in said) and not audit.faults
    assert all_of(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [s for s in quietly(lambda: audit.step(model)) if "do not fit" in s] == []


def test_the_digest_of_a_closing_look_is_not_taken_for_the_last_looks() -> None:
    """The closing look's results do not ride along: those of the look before it are of other weights."""
    audit = rolling()
    quietly(lambda: (audit.step(model_of(0.0)), audit.finish(model_of(0.5))))
    other = rolling()
    other.load_state_dict(through_a_file(audit))
    quietly(lambda: other.finish(model_of(0.5)))
    assert audit.report is not None and other.report is not None

    def rates(report: AuditReport) -> list[float | None]:
        return [f.value for f in report.findings if f.metric == "selection_rate"]

    assert rates(other.report) == rates(audit.report) != []


def test_a_limit_that_is_lifted_when_the_training_goes_on_costs_no_report(sound: dict[str, Any]) -> None:
    audit = rolling()
    audit.load_state_dict(sound)
    quietly(lambda: audit.finish(model_of(0.5)))
    assert audit.report is not None and audit.budget.max_overhead is None
    alarms = next(f for f in audit.report.findings if f.metric == "alarms")
    assert "1 were left out to keep audits within a limit, since lifted, of the processor time" in alarms.detail


def test_the_time_of_a_process_that_was_forked_off_is_never_less_than_none() -> None:
    audit = rolling()
    audit.budget.clock = lambda: 100.0
    audit.begin()
    audit.budget.clock = lambda: 1.0
    rolling().load_state_dict(audit.state_dict())
    assert audit.budget.elapsed == 0.0


def test_a_state_after_the_first_look_is_refused() -> None:
    Killing.fatal = 0
    audit = audit_of(None)
    quietly(lambda: audit.step(network()))
    with pytest.raises(UsageError, match="before its first look"):
        audit.load_state_dict(audit.state_dict())


# ---- one error rate, however often it is resumed -------------------------------------------------------------------


def course(out: Path, state: dict[str, Any] | None, biases: list[float], *, end: bool = False) -> TrainingAudit:
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(4000), criteria=FAIR, n_peeks=3, max_overhead=None,
                          out=out)  # fmt: skip
    if state is not None:
        audit.load_state_dict(state)
    for bias in biases:
        quietly(lambda b=bias: audit.step(model_of(b)))  # type: ignore[misc]
    if end:
        quietly(lambda: audit.finish(model_of(biases[-1])))
    return audit


@pytest.mark.slow
def test_who_goes_back_to_an_earlier_checkpoint_gains_no_look(tmp_path: Path) -> None:
    """Three courses from one checkpoint: each look of the plan is judged once, and an alarm of then stays one."""
    state = through_a_file(course(tmp_path, None, [0.0]))
    first = course(tmp_path, state, [3.0, 3.0], end=True)
    assert first.report is not None and first.report.exit_code == 1
    assert [p.judged for p in first.peeks] == [True, True, True] and first.peeks[1].failures
    again = course(tmp_path, state, [0.01, 0.02], end=True)
    assert [p.judged for p in again.peeks] == [True, False, False] and not again.should_stop
    report = AuditReport.from_json((tmp_path / "report.json").read_text())
    assert report == again.report and report.exit_code == 3 and report.training is not None
    assert {f.outcome for f in report.findings if f.metric == "demographic_parity_difference"} == {Outcome.NOT_JUDGED}
    assert [look.look for look in report.training.spent] == [2, 3, None]
    assert "look 2, look 3, the closing look" in report.training.describe()
    assert "Shown to fail then" in report.training.describe()
    alarms = next(f for f in report.findings if f.metric == "alarms")
    assert alarms.value == 2.0 and "before it was resumed alarms at 2, 3" in alarms.detail
    assert any("closing look was judged before" in f.reason for f in report.findings if f.outcome is Outcome.NOT_RUN)
    # What was spent is known too where only the later of the reports is left.
    third = course(tmp_path, state, [0.03, 0.04], end=True)
    assert [p.judged for p in third.peeks] == [True, False, False]
    assert third.report is not None and third.report.training is not None
    assert third.report.training.resumed_after == (1, 1, 1)
    spent = [look.error_rate for look in third.report.training.spent if look.judged]
    spent += [look.error_rate for look in third.report.training.looks if look.judged]
    assert math.fsum(spent) <= 0.05 + 1e-12


def test_the_same_weights_are_the_same_question_and_its_judgement_stands(tmp_path: Path) -> None:
    state = through_a_file(course(tmp_path, None, [0.0]))
    first = course(tmp_path, state, [3.0, 0.5], end=True)
    again = course(tmp_path, state, [3.0, 0.5], end=True)
    assert all_of(p.judged for p in again.peeks) and not again.faults
    assert first.report is not None and again.report is not None and first.report.findings == again.report.findings
    assert again.report.training is not None and again.report.training.spent == ()


def test_spent_looks_ride_in_the_next_checkpoint_where_the_report_is_lost(tmp_path: Path) -> None:
    state = through_a_file(course(tmp_path, None, [0.0]))
    course(tmp_path, state, [3.0])
    resumed = course(tmp_path, state, [0.01])
    (tmp_path / "report.json").unlink()
    later = course(tmp_path, through_a_file(resumed), [0.02], end=True)
    assert [p.judged for p in later.peeks] == [True, False, True]
    assert later.report is not None and later.report.training is not None
    assert [look.look for look in later.report.training.spent] == [2]


def test_who_ends_twice_is_judged_once_but_of_the_same_weights() -> None:
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(4000), criteria=FAIR, n_peeks=1, max_overhead=None)
    quietly(lambda: (audit.step(model_of(3.0)), audit.finish(model_of(3.0))))
    first = audit.report
    state = through_a_file(audit)
    quietly(lambda: audit.finish(model_of(3.0)))
    assert first is not None and audit.report is not None and audit.report.findings == first.findings
    other = TrainingAudit(probes=[GroupFairness()], data=rows(4000), criteria=FAIR, n_peeks=1, max_overhead=None)
    other.load_state_dict(state)
    for again in (audit, other):
        quietly(lambda a=again: a.finish(model_of(0.0)))  # type: ignore[misc]
        assert again.report is not None and again.report.exit_code == 3 and again.report.training is not None
        assert [look.look for look in again.report.training.spent] == [None]


def test_a_report_of_another_run_in_the_folder_takes_nothing(tmp_path: Path) -> None:
    state = through_a_file(course(tmp_path, None, [0.0]))
    other = TrainingAudit(probes=[GroupFairness()], data=rows(300), criteria=FAIR, n_peeks=3, out=tmp_path)
    quietly(lambda: (other.step(model_of(1.0)), other.step(model_of(2.0)), other.finish()))
    assert [p.judged for p in course(tmp_path, state, [0.0, 0.1]).peeks] == [True, True, True]


def test_the_weights_to_roll_back_to_ride_along() -> None:
    def audit_with(state: dict[str, Any] | None = None) -> TrainingAudit:
        audit = TrainingAudit(probes=[GroupFairness()], data=rows(4000), criteria=FAIR, n_peeks=3, max_overhead=None,
                              on_fail="rollback")  # fmt: skip
        if state is not None:
            said.extend(quietly(lambda: audit.load_state_dict(state)))
        return audit

    said: list[str] = []
    first = audit_with()
    good = model_of(0.0)
    quietly(lambda: first.step(good))
    state = through_a_file(first)
    bad = model_of(3.0)
    assert isinstance(bad, nn.Linear) and isinstance(good, nn.Linear)
    resumed = audit_with(state)
    told = quietly(lambda: resumed.step(bad))
    assert torch.equal(bad.weight, good.weight) and resumed.should_stop and not said
    assert any("weights of epoch 1 were put back" in s for s in told)
    audit_with({"audit": state["audit"]})
    assert any("did not ride along" in s for s in said)


def test_the_overhead_is_that_of_all_processes_together() -> None:
    now = [100.0]
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(200), criteria=FAIR, n_peeks=9, max_overhead=0.03)
    audit.budget.clock = lambda: now[0]
    audit.budget.begin()
    now[0] += 50.0
    audit.budget.spend(1.0)
    state = audit.state_dict()
    other = TrainingAudit(probes=[GroupFairness()], data=rows(200), criteria=FAIR, n_peeks=9, max_overhead=0.03)
    other.budget.clock = lambda: now[0]
    now[0] = 7.0
    other.load_state_dict(state)
    # After 101 s of training 3 % are 3.1 s, of which a look, another and the closing one take 3.
    for seconds, allowed in ((40.0, False), (20.0, True)):
        now[0] += seconds
        assert other.budget.allows() is allowed
    assert other.budget.overhead == pytest.approx(1.0 / 110.0)


def test_accelerate_keeps_it_in_its_checkpoint(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs the extra distributed")
    Killing.fatal = 0
    accelerator = accelerate.Accelerator(cpu=True)
    audit, other = audit_of(None), audit_of(None)
    quietly(lambda: audit.step(network()))
    accelerator.register_for_checkpointing(audit)
    accelerator.save_state(str(tmp_path / "kept"))
    accelerator._custom_objects = []
    accelerator.register_for_checkpointing(other)
    accelerator.load_state(str(tmp_path / "kept"))
    assert other.peeks == audit.peeks and other.resumed_after == (1,)
