"""TrainingAudit: probes asked again and again while a model learns, with one error rate over all the looks."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn

from auditor.errors import ModelError, OutputsError, UsageError
from auditor.files import write_beside
from auditor.finding.budgets import Family
from auditor.finding.criterion import Criterion, load_criteria
from auditor.finding.judging import judge
from auditor.finding.measurement import Measurement, ProbeResult
from auditor.model.audited_model import AuditedModel
from auditor.model.outputs import Outputs
from auditor.model.torch_model import TorchModel, TorchNetwork
from auditor.report.figures import distinct
from auditor.report.record import AuditReport, ModelRecord
from auditor.run.audit import ask, assemble, data_record, environment, generator_for, model_record, reason_of
from auditor.run.probe import Probe
from auditor.run.while_training.budget import Budget
from auditor.run.while_training.course import courses
from auditor.run.while_training.peek import Peek, logged
from auditor.run.while_training.ranks import Ranks, joined
from auditor.run.while_training.spending import Spending
from auditor.statistics.estimate import Exact
from auditor.training.untouched import bare, digest, finite, put_back, snapshot, unchanged, untouched

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.rows import Rows

OnFail = Literal["warn", "stop", "rollback"]
Every = Literal["epoch"] | int
BATCH_ROWS = 512
NAME = "training_audit"
_MOST_FAULTS = 5
# What drawing and writing the report takes, about, on one core.
_REPORT_SECONDS = 1.0


class AuditWarning(UserWarning):
    """Something an audit in a training has to say."""


class Accountant(Protocol):
    """What knows the epsilon of a private training, such as Opacus's accountants."""

    def get_epsilon(self, delta: float) -> float:
        """Epsilon spent so far, at delta."""
        ...


class TrainingAudit:
    """Asks probes about a model while it learns, judges all looks with one error rate, and writes the report.

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
    the weights in main memory). max_overhead: share of the wall time that audits may take, see ``Budget``. wrap: turns
    the network into an AuditedModel, by default ``TorchModel(network, classes=data.classes, outputs=outputs)``.
    outputs: whether the network returns logits or probabilities; where nobody says it and its answers leave it open,
    a look's probes are NOT_RUN. log: is called with the numbers of each look by name, and its place. accountant, delta:
    of a private training; epsilon so far becomes a number like any other. out: a folder for ``report.json`` and
    ``report.html``. timeout_s: how long ranks of a distributed job wait for each other.

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
        self.probes = tuple(probes)
        self.data = data
        self.criteria = tuple(load_criteria() if criteria is None else criteria)
        self.every: Every = every
        self.on_fail: OnFail = on_fail
        self.error_rate = error_rate
        self.closing_share = closing_share
        self.seed = seed
        self.wrap = wrap or self._as_torch_model
        self.outputs: Outputs | None = outputs
        self.log = log
        self.accountant = accountant
        self.delta = delta
        self.out = None if out is None else Path(out)
        self.timeout_s = timeout_s
        self.budget = Budget(max_overhead, reserve=0.0 if out is None else _REPORT_SECONDS)
        self.spending: Spending | None = None
        self.peeks: list[Peek] = []
        self.skipped: list[float] = []
        self.faults: list[str] = []
        self.should_stop = False
        self.report: AuditReport | None = None
        self._calls = 0
        self._ranks: Ranks | None = None
        self._joined = False
        self._same_rows = False
        self._model = ModelRecord(classes=data.classes)
        self._device = "cpu"
        self._last: tuple[tuple[int, ...], Peek] | None = None
        self._kept: tuple[bool, float, Mapping[str, Tensor]] | None = None
        self.plan(n_peeks)

    # ---- for training loops ----------------------------------------------------------------------------------------

    def plan(self, n_peeks: int | None) -> None:
        """Says how many looks there will be, where that is not said yet; has no effect after the first look."""
        if n_peeks is not None and self.spending is None and not self.peeks:
            try:
                self.spending = Spending(n_peeks=n_peeks, error_rate=self.error_rate, closing_share=self.closing_share)
            except ValueError as error:
                raise UsageError(f"TrainingAudit: {error}.") from None

    def begin(self) -> None:
        """Training starts now: its time is counted from here, or else from when this object was made."""
        self.budget.begin()

    def step(self, model: nn.Module | AuditedModel, at: float | None = None) -> Peek | None:
        """Looks at the model, if it is time to; ``at``: the epoch or step it is, by default the number of this call."""
        self._calls += 1
        if self.every != "epoch" and self._calls % self.every:
            return None
        started = time.perf_counter()
        looks = len(self.peeks)
        try:
            return self._step(model, float(self._calls if at is None else at))
        except Exception as error:
            self._fault(f"{self._unit} {self._calls}: {reason_of(error)}")
            return None
        finally:
            # Snapshots and loggers are part of what a look costs.
            self.budget.spend(time.perf_counter() - started, look=len(self.peeks) > looks)

    def finish(self, model: nn.Module | AuditedModel | None = None) -> AuditReport | None:
        """The closing look, its report, and the courses over all looks; None where not even that could be made.

        Without a model, or with one that has not changed since, the last look's numbers are judged at the closing
        level and nothing is computed again.
        """
        started = time.perf_counter()
        try:
            return self._finish(model)
        except Exception as error:
            self._fault(f"the closing look: {reason_of(error)}")
            return None
        finally:
            self.budget.spend(time.perf_counter() - started, look=False)

    # ---- looks -----------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> str:
        return "epoch" if self.every == "epoch" else "step"

    def _step(self, model: nn.Module | AuditedModel, at: float) -> Peek | None:
        ranks = self._join()
        planned = self.spending.n_peeks if self.spending is not None else 0
        last = len(self.peeks) + len(self.skipped) + 1 == planned
        wanted = last or self.budget.allows()
        if ranks is not None and not ranks.broken:
            wanted = ranks.agreed(wanted)
        if not wanted:
            self.skipped.append(at)
            return None
        level = self.spending.peek if self.spending is not None else 0.0
        beyond = self.spending is None or len(self.peeks) + len(self.skipped) >= planned
        peek = self._look(model, at, level, judged=not beyond)
        self.peeks.append(peek)
        if beyond:
            self._fault(
                f"{self._unit} {at:g} is not judged: "
                + ("n_peeks was not given" if self.spending is None else f"only {planned} looks were planned")
            )
        self._tell(peek)
        self._react(model, peek)
        return peek

    def _look(self, model: nn.Module | AuditedModel, at: float, level: float, *, judged: bool) -> Peek:
        started = time.perf_counter()
        results, faults = self._ask(model, at)
        results += self._epsilon()
        criteria = self.criteria if judged else ()
        findings, _ = judge(results, criteria, Family(error_rate=level if judged else self.error_rate))
        peek = Peek(
            at=at,
            results=tuple(results),
            findings=tuple(findings),
            error_rate=level,
            seconds=time.perf_counter() - started,
            faults=tuple(faults),
        )
        network = _network_of(model)
        self._last = None if network is None else (digest(network), peek)
        return peek

    def _ask(self, model: nn.Module | AuditedModel, at: float) -> tuple[list[ProbeResult], list[str]]:
        """Every probe's answer; where the model cannot be read, every probe's NOT_RUN."""
        results: list[ProbeResult] = []
        faults: list[str] = []
        try:
            with self._held(model) as ranks:
                audited = self._audited(model, ranks)
                for probe in self.probes:
                    with _untouched(model):
                        result = self._answer(probe, audited)
                    if ranks is not None:
                        reason = ranks.end_of_probe(result.not_run)
                        result = _not_run(probe, reason) if reason and not result.not_run else result
                    results.append(result)
                    if result.not_run:
                        faults.append(f"{self._unit} {at:g}, {probe.name}: {result.not_run}")
        except Exception as error:
            reason = f"The model could not be read at {self._unit} {at:g}: {reason_of(error)}"
            faults.append(reason)
            results += [_not_run(probe, reason) for probe in self.probes[len(results) :]]
        for fault in faults:
            self._fault(fault)
        return results, faults

    def _answer(self, probe: Probe, audited: AuditedModel) -> ProbeResult:
        try:
            return ask(probe, audited, self.data, generator_for(self.seed, probe.name))
        except OutputsError as error:
            # Each probe by itself, so that the ranks of a job meet after each as they do else.
            return _not_run(probe, reason_of(error))

    @contextmanager
    def _held(self, model: nn.Module | AuditedModel) -> Iterator[Ranks | None]:
        """The ranks, all of which have the same rows and the same network inside; whose weights must not change."""
        ranks = self._join()
        network = _network_of(model)
        with ExitStack() as stack:
            if ranks is not None:
                if not self._same_rows:
                    ranks.same_rows(self.data)
                    self._same_rows = True
                if network is not None:
                    stack.enter_context(ranks.one_network(network))
            if network is not None:
                stack.enter_context(unchanged(network))
            yield ranks

    def _audited(self, model: nn.Module | AuditedModel, ranks: Ranks | None) -> AuditedModel:
        if isinstance(model, nn.Module):
            network = bare(model)
            parameter = next(network.parameters(), None)
            with untouched(model):
                audited = self.wrap(network)
            if isinstance(audited, TorchNetwork) and parameter is not None:
                # A wrapper may have moved the network to a device of its own; it is back now.
                audited.device = parameter.device
        else:
            audited = model
        # The weights have changed since, and what was answered then is no answer now.
        audited.forget()
        if self.wrap == self._as_torch_model:
            audited.batch_rows = BATCH_ROWS
        if ranks is not None:
            audited.over_batches = ranks.over_batches
        if audited.kind != "regressor" and self.data.classes and self.data.classes != audited.classes:
            raise ModelError(
                f"The data's classes are {', '.join(self.data.classes[:8])}, the model's "
                f"{', '.join(audited.classes[:8])}: give both the same names in the order of the outputs."
            )
        self._model, self._device = model_record(audited), str(getattr(audited, "device", "cpu"))
        return audited

    def _as_torch_model(self, network: nn.Module) -> AuditedModel:
        parameter = next(network.parameters(), None)
        encoder: Callable[[Rows], Tensor] | None = None
        if parameter is not None and parameter.dtype in (torch.bfloat16, torch.float16, torch.float64):
            dtype = parameter.dtype

            def encoder(X: Rows) -> Tensor:
                return torch.from_numpy(np.asarray(X, np.float64)).to(dtype)

        return TorchModel(
            network,
            classes=self.data.classes,
            encoder=encoder,
            outputs=self.outputs,
            device="cpu" if parameter is None else parameter.device,
            batch_rows=BATCH_ROWS,
        )

    def _epsilon(self) -> list[ProbeResult]:
        if self.accountant is None or self.delta is None:
            return []
        result = ProbeResult(probe="dp_accounting", pillar="privacy", citation="Abadi et al., CCS 2016")
        try:
            epsilon = float(self.accountant.get_epsilon(self.delta))
        except Exception as error:
            self._fault(f"the accountant: {reason_of(error)}")
            return [replace(result, not_run=f"The accountant gave no epsilon: {reason_of(error)}")]
        spent = Measurement(
            metric="dp_epsilon",
            estimate=Exact(known=epsilon),
            n_samples=0,
            ideal=0.0,
            detail=f"spent so far at delta {self.delta:g}, by {type(self.accountant).__name__}",
        )
        return [replace(result, measurements=(spent,))]

    def _join(self) -> Ranks | None:
        if not self._joined:
            self._joined = True
            self._ranks = joined(self.timeout_s)
        return self._ranks

    @property
    def _leads(self) -> bool:
        """Whether this process is the one that tells the world."""
        return self._ranks is None or self._ranks.rank == 0

    # ---- what follows ----------------------------------------------------------------------------------------------

    def _tell(self, peek: Peek) -> None:
        if self.log is None or not self._leads:
            return
        try:
            self.log(logged(peek.results, peek.findings), peek.at)
        except Exception as error:
            self._fault(f"the logger at {self._unit} {peek.at:g}: {reason_of(error)}")

    def _react(self, model: nn.Module | AuditedModel, peek: Peek) -> None:
        network = _network_of(model)
        if self.on_fail == "rollback" and network is None and len(self.peeks) == 1:
            self._fault("weights cannot be put back: step was given no torch network")
        if not peek.failed:
            better = self._kept is None or peek.passed or not self._kept[0]
            if self.on_fail == "rollback" and network is not None and better and peek.settled:
                weights = snapshot(network)
                if finite(weights):
                    self._kept = (peek.passed, peek.at, weights)
            return
        shown = ", ".join(dict.fromkeys(f.measurement.metric for f in peek.failed if f.measurement))
        said = f"{self._unit} {peek.at:g}: {shown} shown to fail"
        if self.on_fail != "warn":
            self.should_stop = True
        if self.on_fail == "rollback" and network is not None:
            if self._kept is None:
                said += "; there is no earlier look to go back to"
            else:
                passed, at, kept = self._kept
                put_back(network, kept)
                self._last = None
                said += (
                    f"; the weights of {self._unit} {at:g} were put back, "
                    f"{'which passed' if passed else 'at which nothing was shown to fail'}"
                )
        self._warn(said)

    def _finish(self, model: nn.Module | AuditedModel | None) -> AuditReport | None:
        level = self.spending.closing if self.spending is not None else 0.0
        results, place = self._closing_results(model)
        if results is None:
            self._fault("there was no look, and no model to take one at the end")
            return None
        own = ProbeResult(
            probe=NAME,
            pillar="intake",
            citation="",
            measurements=(self._alarms(place),),
            not_run=self._faults_in_words(),
        )
        report = assemble(
            [own, *results],
            self.criteria if self.spending is not None else (),
            model=self._model,
            data=data_record(self.data),
            environment=environment(device=self._device, seed=self.seed),
            family=Family(error_rate=level or self.error_rate),
            duration_s=self.budget.seconds,
        )
        drawn = distinct(courses(self.peeks, self._unit, self.spending))
        report = report.model_copy(update={"figures": (*drawn, *report.figures)})
        self.report = report
        self._write(report)
        return report

    def _closing_results(self, model: nn.Module | AuditedModel | None) -> tuple[list[ProbeResult] | None, float | None]:
        network = None if model is None else _network_of(model)
        same = self._last is not None and (model is None or (network is not None and digest(network) == self._last[0]))
        ranks = self._join()
        if ranks is not None and not ranks.broken:
            same = ranks.agreed(same)
        if same and self._last is not None:
            return list(self._last[1].results), self._last[1].at
        if model is None:
            return (list(self.peeks[-1].results), self.peeks[-1].at) if self.peeks else (None, None)
        closing = self._look(model, float(self._calls), self.spending.closing if self.spending else 0.0, judged=False)
        return list(closing.results), None

    def _alarms(self, place: float | None) -> Measurement:
        alarms = [p for p in self.peeks if p.failed]
        words = [
            f"{len(self.peeks)} looks" if len(self.peeks) != 1 else "1 look",
            f"each judged at {self.spending.peek:.2g}"
            if self.spending is not None
            else "none judged: n_peeks not given",
        ]
        if self.spending is not None:
            words.append(f"the numbers below at {self.spending.closing:.2g}, of {self.error_rate:g} for the whole run")
        words.append(f"they are of {self._unit} {place:g}" if place is not None else "they are of the final model")
        if alarms:
            words.append("alarms at " + ", ".join(f"{p.at:g}" for p in alarms[:10]))
        if self.skipped:
            words.append(
                f"{len(self.skipped)} were left out to keep audits near {self.budget.max_overhead:.3g} of the time, of "
                f"which they took {self.budget.overhead:.2g} so far: "
                + ", ".join(f"{at:g}" for at in self.skipped[:10])
                + (" ..." if len(self.skipped) > 10 else "")
            )
        return Measurement(
            metric="alarms",
            estimate=Exact(known=float(len(alarms))),
            n_samples=len(self.peeks),
            ideal=0.0,
            detail="; ".join(words),
        )

    def _write(self, report: AuditReport) -> None:
        if self.out is None or not self._leads:
            return
        from auditor.report.html import render_html

        try:
            write_beside(self.out / "report.json", report.to_json().encode())
            write_beside(self.out / "report.html", render_html(report).encode())
        except (OSError, UsageError) as error:
            self._fault(f"the report could not be written: {reason_of(error)}")

    def _faults_in_words(self) -> str:
        if not self.faults:
            return ""
        rest = len(self.faults) - _MOST_FAULTS
        return "; ".join(self.faults[:_MOST_FAULTS]) + (f"; and {rest} more" if rest > 0 else "")

    def _fault(self, said: str) -> None:
        self.faults.append(said)
        self._warn(said)

    def _warn(self, said: str) -> None:
        if self._leads:
            try:
                warnings.warn(f"auditor: {said}", AuditWarning, stacklevel=4)
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


def _untouched(model: nn.Module | AuditedModel) -> AbstractContextManager[None]:
    """Around a question to any model; of one that is no network the generators at least."""
    network = _network_of(model)
    outer = model if isinstance(model, nn.Module) else network
    return untouched(nn.Module() if outer is None else outer)


def _network_of(model: nn.Module | AuditedModel) -> nn.Module | None:
    if isinstance(model, nn.Module):
        try:
            return bare(model)
        except ModelError:
            # Said by every probe's NOT_RUN.
            return None
    module = getattr(model, "module", None)
    return module if isinstance(module, nn.Module) else None


def _not_run(probe: Probe, reason: str) -> ProbeResult:
    return ProbeResult(probe=probe.name, pillar=probe.pillar, citation=probe.citation, not_run=reason)
