"""TrainingAudit: repeated probes during training, with one error rate over all interim looks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from auditor.core.errors import UsageError
from auditor.core.files import write_beside
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.measurement import ProbeResult
from auditor.judging.training_looks import LookRecord
from auditor.models.audited_model import AuditedModel
from auditor.models.output_kind import Outputs
from auditor.report.record.audit_report import AuditReport, ModelRecord
from auditor.report.record.energy import EnergyRecord
from auditor.run.probe import Probe
from auditor.run.run_audit import data_record, environment, reason_of
from auditor.run.while_training.measure_network import Accountant, Asking, level_of_user, network_of
from auditor.run.while_training.training_record import Decided, Last, Looks, judged_look, record_of_looks
from auditor.training.inspect_network import (
    digest,
    finite,
    fits,
    gathered,
    is_sharded,
    put_back,
    put_back_whole,
    snapshot,
    unwrapped,
)
from auditor.training.interim.interim_look import Peek, logged
from auditor.training.interim.interim_state import (
    Budget,
    Kept,
    Run,
    Saved,
    SavedLook,
    Spending,
    criteria_digest,
    judged_before,
    no_state,
    plan_in_words,
    probes_digest,
    record_of,
    rows_digest,
    weights_digest,
)
from auditor.training.interim.trackers import Told, Tracker, rows_of
from auditor.training.meter import Meter
from auditor.training.multi_device import Ranks, join_ranks

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData

OnFail = Literal["warn", "stop", "rollback"]
Every = Literal["epoch"] | int
_MOST_FAULTS = 5
# What drawing the report takes, about, on one core, until it has been drawn once.
_DRAWING_SECONDS = 1.5


class AuditWarning(UserWarning):
    """A warning from an audit during training."""


class TrainingAudit:
    """Measure probes during training, judge all looks with one error rate, and write the report.

    ``step(model)`` is called after each epoch, or each step, and ``finish(model)`` at the end; the callbacks for
    transformers and Lightning do so. The error rate is shared out over the planned looks (``Spending``), so that over
    the whole run the chance of any false FAIL is at most ``error_rate``, and so is that of any false PASS. A look that
    finds something shown to fail is an alarm: it warns, and with ``on_fail`` asks training to stop, or puts the weights
    back that last passed. Evidence does not add up over looks at the same rows, so a gap is found at the first look
    after it has grown large enough for that look's level, or never: ``minimum_detectable_effect`` of its findings says
    how large that is, and the delay is at most the time between two looks.

    The model is left as it was: weights, flags, gradients, and all global generators. Whatever goes wrong in an audit
    is a warning and a NOT_RUN of the report, never an exception in the training.

    probes, data, criteria: as for ``run_audit``. every: ``"epoch"``, or n to look at each n-th call of ``step``.
    n_peeks: how many looks are planned; the callbacks know. What lies beyond the plan is measured and not judged.
    on_fail: ``warn``, ``stop`` (``should_stop`` becomes true) or ``rollback`` (stop, after the weights of the last look
    at which everything judged passed, or else the last at which nothing failed, were put back; it keeps one copy of
    the weights in main memory). max_overhead: share of the processor time that audits may take, see ``Budget``. wrap:
    turns the network into an AuditedModel, by default ``TorchModel(network, classes=data.classes, outputs=outputs)``.
    outputs: whether the network returns logits or probabilities; where nobody says it and its answers leave it open,
    a look's probes are NOT_RUN. log: is called with the numbers of each look by name, and its place. trackers: are told
    of each look's intervals and outcomes, see :mod:`auditor.training.interim.trackers`. accountant, delta:
    of a private training; epsilon so far becomes a number like any other. out: a folder for ``report.json``, which is
    written after each look, and ``report.html``, which is drawn as often as the overhead allows and at the end.
    timeout_s: how long ranks of a distributed job wait for each other.

    ``state_dict`` and ``load_state_dict`` carry it through the training's checkpoints. Sharded parameters
    (``fully_shard``) are gathered for each look.

    Raises UsageError for options that make no sense.
    """

    def __init__(
        self,
        *,
        probes: Sequence[Probe],
        data: AuditData,
        criteria: Sequence[Criterion] | None = None,
        every: Every = "epoch",
        n_peeks: int | None = None,
        on_fail: OnFail = "warn",
        max_overhead: float | None = 0.03,
        error_rate: float = 0.05,
        closing_share: float = 0.5,
        seed: int = 0,
        wrap: Callable[[nn.Module], AuditedModel] | None = None,
        outputs: Outputs | None = None,
        log: Callable[[dict[str, float], float], None] | None = None,
        trackers: Sequence[Tracker] = (),
        accountant: Accountant | None = None,
        delta: float | None = None,
        out: str | Path | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        _check(probes, every, on_fail, max_overhead, accountant, delta)
        try:
            Spending(n_peeks=1, error_rate=error_rate, closing_share=closing_share)
        except ValueError as error:
            raise UsageError(f"TrainingAudit: {error}.") from None
        self.data = data
        self.criteria = tuple(load_criteria() if criteria is None else criteria)
        self.every: Every = every
        self.on_fail: OnFail = on_fail
        self.error_rate = error_rate
        self.closing_share = closing_share
        self.seed = seed
        self.log = log
        self.trackers: list[Tracker] = list(trackers)
        self.out = None if out is None else Path(out)
        self.timeout_s = timeout_s
        self._meter = Meter("cuda" if torch.cuda.is_available() else "cpu")
        self.budget = Budget(max_overhead, reserve=0.0 if out is None else _DRAWING_SECONDS)
        self.spending: Spending | None = None
        self.peeks: list[Peek] = []
        self.skipped: list[float] = []
        self.faults: list[str] = []
        self.resumed_after: tuple[int, ...] = ()
        self.should_stop = False
        self.report: AuditReport | None = None
        # What the last report was made of.
        self.told: tuple[Looks, Last] | None = None
        self._asking = Asking(
            tuple(probes), data, seed, outputs, wrap, accountant, delta, ModelRecord(classes=data.classes)
        )
        self.wrap: Callable[[nn.Module], AuditedModel] = self._asking.wrap_network
        # Of the probes as they were given: being asked may leave something in them.
        self._probes, self._rows = probes_digest(probes), rows_digest(data)
        self._calls = 0
        self._drawing = 0.0
        self._ranks: Ranks | None = None
        self._joined = False
        self._last: tuple[tuple[int, ...], Peek] | None = None
        self._kept: Kept | None = None
        # Looks that were judged before the training went back to the checkpoint that it goes on from.
        self._spent: tuple[LookRecord, ...] = ()
        self.plan(n_peeks)

    # ---- for training loops ----------------------------------------------------------------------------------------

    def plan(self, n_peeks: int | None) -> None:
        """Set the number of looks if it is not known yet; no effect after the first look."""
        if n_peeks is not None and self.spending is None and not self.peeks:
            try:
                self.spending = Spending(n_peeks=n_peeks, error_rate=self.error_rate, closing_share=self.closing_share)
            except ValueError as error:
                raise UsageError(f"TrainingAudit: {error}.") from None

    def check(self, model: nn.Module | AuditedModel) -> None:
        """Raise UsageError for what would leave every look NOT_RUN, such as other class names; the model is unchanged.

        In a job of several processes nothing is checked, since one of them cannot ask the network alone.
        """
        started = self.budget.clock()
        try:
            self._asking.check(model)
        finally:
            self.budget.spend(self.budget.clock() - started, look=False)

    def begin(self) -> None:
        """Record the start of training, for its time; by default the creation of this object."""
        self.budget.begin()

    def step(self, model: nn.Module | AuditedModel, at: float | None = None) -> Peek | None:
        """Take a look if it is due; ``at``: the epoch or step, by default the number of this call."""
        self._calls += 1
        if self.every != "epoch" and self._calls % self.every:
            return None
        started, self._drawing = self.budget.clock(), 0.0
        looks = len(self.peeks)
        try:
            return self._step(model, float(self._calls if at is None else at), started)
        except Exception as error:
            self._fault(f"{self._unit} {self._calls}: {reason_of(error)}")
            return None
        finally:
            # Snapshots and loggers are part of what a look costs.
            self.budget.spend(self.budget.clock() - started - self._drawing, look=len(self.peeks) > looks)
            self.budget.spend(self._drawing, look=False)

    def finish(self, model: nn.Module | AuditedModel | None = None) -> AuditReport | None:
        """The closing look, its report, and the courses over all looks; None if even that failed.

        Without a model, or with one that has not changed since, the last look's numbers are judged at the closing
        level and nothing is computed again.
        """
        started = self.budget.clock()
        try:
            return self._finish(model)
        except Exception as error:
            self._fault(f"the closing look: {reason_of(error)}")
            return None
        finally:
            self._meter.close()
            self.budget.spend(self.budget.clock() - started, look=False)

    # ---- for checkpoints -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The checkpointed state: ``audit`` (plain JSON), and with ``rollback`` the tensors ``weights``.

        ``torch.load(weights_only=True)`` reads it. Same state, same audit: a training that goes on from the checkpoint
        ends with the report of one that was never interrupted.
        """
        saved = Saved(
            run=self._run,
            looks=tuple(SavedLook.model_validate(peek, from_attributes=True) for peek in self.peeks),
            left_out=tuple(self.skipped),
            calls=self._calls,
            stop=self.should_stop,
            faults=tuple(self.faults),
            resumed_after=self.resumed_after,
            spent=self._spent,
            last=None if self._last is None else self._last[0],
            model=self._asking.model,
            device=self._asking.device,
            passed_s=self.budget.elapsed,
            audits_s=self.budget.seconds,
            longest_s=self.budget.longest,
            kept=None if self._kept is None else self._kept[:2],
        )
        state: dict[str, Any] = {"audit": saved.model_dump(mode="json")}
        return state if self._kept is None else state | {"weights": dict(self._kept[2])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from ``state_dict()``, before the first look.

        The error rate is that of the whole run: looks that ``report.json`` in ``out`` shows to have been judged after
        the state was taken stay spent. Where the training comes to such a look with the same weights its judgement
        stands; with other weights it is measured and not judged, the report says so, and alarms of then are counted.

        Raises UsageError for a state of other rows, probes, criteria, plan, error rate or seed, and for what is none;
        the audit is then as it was.
        """
        if self._calls or self.peeks:
            raise UsageError("A TrainingAudit takes a state before its first look: load it right after it is made.")
        saved = Saved.from_state(state)
        saved.check(self._run, self.spending, 1 if self.every == "epoch" else self.every)
        kept, peeks = saved.weights(state), [self._restored(look) for look in saved.looks]
        on_disk = record_of(self.out, self._run.digest)
        spent = judged_before(on_disk, saved, [peek.record for peek in peeks])
        # All of it is known to be sound: only now is anything changed.
        self.peeks, self._spent, self._kept = peeks, spent, kept
        self.skipped, self.faults = list(saved.left_out), list(saved.faults)
        self.should_stop, self._calls = saved.stop, saved.calls
        self._asking.model, self._asking.device = saved.model, saved.device
        # After a closing look the digest is of that one, whose results do not ride along.
        known = saved.last is not None and peeks and peeks[-1].weights == weights_digest(saved.last)
        self._last = (saved.last, peeks[-1]) if known and saved.last is not None else None
        self.budget.before, self.budget.seconds = saved.passed_s, saved.audits_s
        self.budget.longest = saved.longest_s
        self.budget.begin()
        before = saved.resumed_after if on_disk is None else max(saved.resumed_after, on_disk.resumed_after, key=len)
        self.resumed_after = (*before, saved.reached)
        if saved.kept is not None and kept is None:
            self._warn(f"the weights of {self._unit} {saved.kept[1]:g} did not ride along: rollback has none as yet")

    def _restored(self, look: SavedLook) -> Peek:
        try:
            findings, family = self._judge_look(look.results, look.error_rate, is_judged=look.judged)
        except Exception as error:
            raise no_state(f"look {look.look} cannot be judged ({reason_of(error).rstrip('.')})") from None
        return Peek(findings=findings, family=family, **{name: getattr(look, name) for name in SavedLook.model_fields})

    @property
    def key(self) -> str:
        """A digest of the common settings of all looks except their number: rows, probes, criteria, rate, seed."""
        return self._run.model_copy(update={"plan": ""}).digest

    @property
    def _run(self) -> Run:
        planned = None if self.spending is None else self.spending.n_peeks
        return Run(
            rows=self._rows,
            probes=self._probes,
            criteria=criteria_digest(self.criteria),
            plan=plan_in_words(planned, self.every, self.closing_share),
            error_rate=self.error_rate,
            seed=self.seed,
        )

    # ---- looks -----------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> Literal["epoch", "step"]:
        return "epoch" if self.every == "epoch" else "step"

    def _step(self, model: nn.Module | AuditedModel, position: float, started: float) -> Peek | None:
        ranks = self._join()
        planned = self.spending.n_peeks if self.spending is not None else 0
        number = len(self.peeks) + len(self.skipped) + 1
        wanted = number == planned or self.budget.allows()
        if ranks is not None and not ranks.broken:
            wanted = ranks.agreed(wanted)
        if not wanted:
            if not self.skipped:
                self._warn(
                    f"{self._unit} {position:g} is not audited, since audits may take {self.budget.goal} of the "
                    "processor time; the report lists all that are left out. max_overhead=None leaves none out"
                )
            self.skipped.append(position)
            return None
        level = self.spending.peek if self.spending is not None else 0.0
        beyond = self.spending is None or number > planned
        whole = self._whole(model)
        peek = self._look(whole, position, level, number=number, beyond=beyond)
        self.peeks.append(peek)
        if beyond:
            self._fault(
                f"{self._unit} {position:g} is not judged: "
                + ("n_peeks was not given" if self.spending is None else f"only {planned} looks were planned")
            )
        self._tell(peek)
        self._react(model, whole, peek)
        if self._leads and (self.out is not None or self.trackers):
            report = self._record(
                Last(results=peek.results, place=position, judged=peek.judged), (peek.findings, peek.family)
            )
            elapsed = self.budget.clock() - started
            self._write(report, with_page=self.budget.affords(2.0 * elapsed + self.budget.reserve))
        return peek

    def _whole(self, model: nn.Module | AuditedModel) -> nn.Module | AuditedModel:
        """The model, or of sharded parameters a copy with all of them; itself where they cannot be gathered."""
        if not isinstance(model, nn.Module) or not is_sharded(unwrapped(model)):
            return model
        try:
            return gathered(unwrapped(model))
        except Exception as error:
            self._fault(f"the shards could not be gathered: {reason_of(error)}")
            return model

    def _look(
        self, model: nn.Module | AuditedModel, position: float, level: float, *, number: int, beyond: bool = False
    ) -> Peek:
        """A look of the plan, or with number 0 the closing one, which is judged where the report is made."""
        started = self.budget.clock()
        network = network_of(model)
        numbers = None if network is None else digest(network)
        judged = number > 0 and not beyond and self._unspent(number, weights_digest(numbers))
        results, faults = self._asking.about(model, f"{self._unit} {position:g}", self._ranks)
        for fault in faults:
            self._fault(fault)
        findings, family = self._judge_look(results, level, is_judged=judged)
        peek = Peek(
            at=position,
            results=tuple(results),
            findings=findings,
            family=family,
            error_rate=level,
            seconds=self.budget.clock() - started,
            look=number,
            judged=judged,
            weights=weights_digest(numbers),
            faults=tuple(faults),
        )
        self._last = None if numbers is None else (numbers, peek)
        return peek

    def _judge_look(self, results: Sequence[ProbeResult], level: float, *, is_judged: bool) -> Decided:
        return judged_look(results, self.criteria, level, self.error_rate, is_judged=is_judged)

    def _unspent(self, number: int | None, weights: str) -> bool:
        """Whether a look, None for the closing one, may be judged: it was not before, or it was at the same weights."""
        own = LookRecord(look=number, at=0.0, error_rate=0.0, judged=True, weights=weights)
        before = [look for look in self._spent if look.look == number]
        unspent = not before or any(look.is_repeat_of(own) for look in before)
        if self._ranks is not None and not self._ranks.broken:
            unspent = self._ranks.agreed(unspent)
        if unspent:
            self._spent = tuple(look for look in self._spent if not look.is_repeat_of(own))
        return unspent

    def _join(self) -> Ranks | None:
        if not self._joined:
            self._joined = True
            self._ranks = join_ranks(self.timeout_s)
        return self._ranks

    @property
    def _leads(self) -> bool:
        """Whether this process is the one that tells the world."""
        return self._ranks is None or self._ranks.rank == 0

    # ---- what follows ----------------------------------------------------------------------------------------------

    def _tell(self, peek: Peek) -> None:
        if not self._leads:
            return
        numbers = logged(peek.results, peek.findings)
        place = f"{self._unit} {peek.at:g}"
        if self.log is not None:
            self._attempt(partial(self.log, numbers, peek.at), f"the logger at {place}")
        told = Told(at=peek.at, numbers=numbers, rows=rows_of(peek.findings))
        self._to_trackers(lambda tracker: tracker.look(told), f"at {place}")

    def _to_trackers(self, call: Callable[[Tracker], object], occasion: str) -> None:
        for tracker in self.trackers:
            self._attempt(partial(call, tracker), f"{type(tracker).__name__} {occasion}")

    def track(self, find: Callable[[], Sequence[Tracker]]) -> None:
        """Use the trackers that ``find`` returns from now on; an error in finding them is a fault of the audit."""
        self._attempt(lambda: self.trackers.extend(find()), "the trackers")

    def _attempt(self, call: Callable[[], object], subject: str) -> None:
        try:
            call()
        except Exception as error:
            self._fault(f"{subject}: {reason_of(error)}")

    def _react(self, model: nn.Module | AuditedModel, whole: nn.Module | AuditedModel, peek: Peek) -> None:
        network = network_of(whole)
        if self.on_fail == "rollback" and network is None and len(self.peeks) == 1:
            self._fault("weights cannot be put back: step was given no torch network")
        if self._kept is not None and network is not None and not fits(network, self._kept[2]):
            self._warn(f"the weights kept of {self._unit} {self._kept[1]:g} do not fit the network: rollback has none")
            self._kept = None
        if not peek.failures:
            better = self._kept is None or peek.has_passed or not self._kept[0]
            if self.on_fail == "rollback" and network is not None and better and peek.settled:
                weights = snapshot(network)
                if finite(weights):
                    self._kept = (peek.has_passed, peek.at, weights)
            return
        shown = ", ".join(dict.fromkeys(f.measurement.metric for f in peek.failures if f.measurement))
        said = f"{self._unit} {peek.at:g}: {shown} shown to fail"
        if self.on_fail != "warn":
            self.should_stop = True
        if self.on_fail == "rollback" and network is not None:
            if self._kept is None:
                said += "; there is no earlier look to go back to"
            else:
                passed, at, kept = self._kept
                if whole is not model and isinstance(model, nn.Module):
                    put_back_whole(unwrapped(model), kept)
                else:
                    put_back(network, kept)
                self._last = None
                said += (
                    f"; the weights of {self._unit} {at:g} were put back, "
                    f"{'which passed' if passed else 'at which nothing was shown to fail'}"
                )
        self._warn(said)

    def _finish(self, model: nn.Module | AuditedModel | None) -> AuditReport | None:
        level = self.spending.closing if self.spending is not None else 0.0
        results, place = self._closing_results(None if model is None else self._whole(model))
        if results is None:
            self._fault("there was no look, and no model to take one at the end")
            return None
        weights = "" if self._last is None else weights_digest(self._last[0])
        judged = self.spending is not None
        if judged and not self._unspent(None, weights):
            judged = False
            self._fault(
                "the closing look was judged before the training went back to its checkpoint, of other weights, and "
                "what it may spend is spent: these numbers are not judged"
            )
        at = float(self._calls) if place is None else place
        closing = LookRecord(look=None, at=at, error_rate=level, judged=judged, weights=weights)
        decided = self._judge_look(results, level, is_judged=judged)
        last = Last(results=tuple(results), place=place, judged=judged, closing=closing)
        report = self._record(last, decided)
        self.report = report
        if self.trackers and self._leads:
            told = Told(at=at, numbers={}, rows=rows_of(decided[0]), closing=True)
            self._to_trackers(lambda tracker: tracker.look(told), "at the end")
        self._write(report, with_page=True)
        if judged and report.training is not None and report.training.closing is not None:
            self._spent = (*self._spent, report.training.closing)
        return report

    def _record(self, last: Last, judgement: Decided) -> AuditReport:
        """The report of a look: the last one, or how things stand where that is no closing look."""
        budget = self.budget
        looks = Looks(
            run=self._run,
            unit=self._unit,
            criteria=self.criteria,
            spending=self.spending,
            peeks=tuple(self.peeks),
            left_out=tuple(self.skipped),
            resumed_after=self.resumed_after,
            spent=self._spent,
            faults=self._faults_in_words(),
            costs=f"{budget.goal} of the processor time, of which they took {budget.overhead:.2g} so far",
        )
        self.told = (looks, last)
        return record_of_looks(
            looks,
            last,
            judgement,
            model=self._asking.model,
            data=data_record(self.data),
            environment=environment(device=self._asking.device, seed=self.seed),
            duration_s=self.budget.seconds,
        ).model_copy(update={"energy": self._energy_record(last)})

    def _energy_record(self, last: Last) -> EnergyRecord:
        """What training and audits took; processor time in the processes before this one too."""
        self._meter.device = self._asking.device or self._meter.device
        taken = self._meter.record(last.results, activity="training")
        return taken.model_copy(update={"cpu_s": round(self.budget.elapsed, 3)})

    def _closing_results(self, model: nn.Module | AuditedModel | None) -> tuple[list[ProbeResult] | None, float | None]:
        network = None if model is None else network_of(model)
        same = self._last is not None and (model is None or (network is not None and digest(network) == self._last[0]))
        ranks = self._join()
        if ranks is not None and not ranks.broken:
            same = ranks.agreed(same)
        if same and self._last is not None:
            return list(self._last[1].results), self._last[1].at
        if model is None:
            return (list(self.peeks[-1].results), self.peeks[-1].at) if self.peeks else (None, None)
        closing = self._look(model, float(self._calls), self.spending.closing if self.spending else 0.0, number=0)
        return list(closing.results), None

    def _write(self, report: AuditReport, *, with_page: bool) -> None:
        """``with_page``: whether the page is drawn too, which costs more than many a look."""
        if not self._leads or (self.out is None and not self.trackers):
            return
        files = {"report.json": report.to_json()}
        if with_page:
            from auditor.report.html import render_html

            started = self.budget.clock()
            files["report.html"] = render_html(report)
            self._drawing = self.budget.clock() - started
            self.budget.reserve = self._drawing
        if self.out is not None:
            try:
                for name, text in files.items():
                    write_beside(self.out / name, text.encode())
            except (OSError, UsageError) as error:
                self._fault(f"the report could not be written: {reason_of(error)}")
        self._to_trackers(lambda tracker: tracker.report(files), "and the report")

    def _faults_in_words(self) -> str:
        if not self.faults:
            return ""
        rest = len(self.faults) - _MOST_FAULTS
        return "; ".join(self.faults[:_MOST_FAULTS]) + (f"; and {rest} more" if rest > 0 else "")

    def _fault(self, message: str) -> None:
        self.faults.append(message)
        self._warn(message)

    def _warn(self, message: str) -> None:
        if self._leads:
            try:
                warnings.warn(f"auditor: {message}", AuditWarning, stacklevel=level_of_user())
            except AuditWarning:
                # Where warnings are errors the training goes on all the same.
                pass


def _check(
    probes: Sequence[Probe],
    every: object,
    on_fail: object,
    max_overhead: float | None,
    accountant: Accountant | None,
    delta: float | None,
) -> None:
    if not probes or any(isinstance(p, type) or not callable(getattr(p, "measure", None)) for p in probes):
        raise UsageError("TrainingAudit needs probes: instances, such as PROBES['group_fairness']().")
    if every != "epoch" and not (isinstance(every, int) and not isinstance(every, bool) and every >= 1):
        raise UsageError(f'every must be "epoch" or a number of steps, not {every!r}.')
    if on_fail not in get_args(OnFail):
        raise UsageError(f"on_fail must be one of {', '.join(get_args(OnFail))}, not {on_fail!r}.")
    if max_overhead is not None and not 0.0 < max_overhead < 1.0:
        raise UsageError(f"max_overhead must lie in (0, 1), or be None for no limit, not {max_overhead!r}.")
    if accountant is not None and (delta is None or not 0.0 < delta < 1.0):
        raise UsageError("Epsilon so far is at some delta: give delta, below one over the number of training rows.")
