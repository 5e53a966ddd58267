"""Measurement of all probes on a network during training; the network is left unchanged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError, OutputsError, UsageError
from auditor.judging.measurement import Measurement, ProbeResult, define_metrics, select_definitions
from auditor.models.audited_model import AuditedModel
from auditor.models.forward_passes import device_of
from auditor.models.output_kind import Outputs
from auditor.models.torch_model import TorchModel, TorchNetwork
from auditor.report.record.audit_report import ModelRecord
from auditor.run.probe import Probe, blank_result
from auditor.run.run_audit import ask, generator_for, model_record, reason_of
from auditor.statistics.estimate import Exact
from auditor.training.inspect_network import bare, unchanged, untouched
from auditor.training.multi_device import Ranks

if TYPE_CHECKING:
    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData

BATCH_ROWS = 512


ACCOUNTANT_METRICS = define_metrics(
    """
    dp_epsilon: smallest epsilon for which the training so far is (epsilon, delta)-differentially private, by this
      accountant; [0, inf), ideal 0; the odds that anybody takes part change by a factor of at most exp(epsilon), but
      for a probability delta
    """
)


class Accountant(Protocol):
    """An accountant with the epsilon of a private training, such as Opacus's."""

    def get_epsilon(self, delta: float) -> float:
        """Epsilon spent so far, at delta."""
        ...


@dataclass
class Asking:
    """The probes of every look; ``model`` and ``device`` are those of the last measured network.

    ``wrap``: turns a network into an AuditedModel, by default a TorchModel of the data's classes and ``outputs``.
    """

    probes: tuple[Probe, ...]
    data: AuditData
    seed: int
    outputs: Outputs | None = None
    wrap: Callable[[nn.Module], AuditedModel] | None = None
    accountant: Accountant | None = None
    delta: float | None = None
    model: ModelRecord = field(default_factory=ModelRecord)
    device: str = "cpu"
    _same_rows: bool = False

    def about(
        self, model: nn.Module | AuditedModel, place: str, ranks: Ranks | None
    ) -> tuple[list[ProbeResult], list[str]]:
        """Every probe's result, and errors; if the model is unreadable, NOT_RUN for every probe."""
        results: list[ProbeResult] = []
        faults: list[str] = []
        try:
            with self._hold_network(model, ranks):
                audited = self._audited(model, ranks)
                for probe in self.probes:
                    with _untouched(model):
                        result = self._answer(probe, audited)
                    if ranks is not None:
                        reason = ranks.end_of_probe(result.not_run)
                        result = _not_run(probe, reason) if reason and not result.not_run else result
                    results.append(result)
                    if result.not_run:
                        faults.append(f"{place}, {probe.name}: {result.not_run}")
        except Exception as error:
            reason = f"The model could not be read at {place}: {reason_of(error)}"
            faults.append(reason)
            results += [_not_run(probe, reason) for probe in self.probes[len(results) :]]
        spent, failed = self._epsilon()
        return results + spent, faults + failed

    def check(self, model: nn.Module | AuditedModel) -> None:
        """Read the network and have it answer a batch of rows, as each look does; UsageError if that is impossible."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return
        try:
            with self._hold_network(model, None):
                audited = self._audited(model, None)
                with _untouched(model):
                    audited.outputs(self.data.take(slice(BATCH_ROWS)))
        except Exception as error:
            raise UsageError(f"Every look of this audit would be NOT_RUN. {reason_of(error)}") from None

    def _answer(self, probe: Probe, audited: AuditedModel) -> ProbeResult:
        try:
            return ask(probe, audited, self.data, generator_for(self.seed, probe.name))
        except OutputsError as error:
            # Each probe by itself, so that the ranks of a job meet after each as they do else.
            return _not_run(probe, reason_of(error))

    @contextmanager
    def _hold_network(self, model: nn.Module | AuditedModel, ranks: Ranks | None) -> Iterator[None]:
        """All ranks have the same rows and the same network inside; whose weights must not change."""
        network = network_of(model)
        with ExitStack() as stack:
            if ranks is not None:
                if not self._same_rows:
                    ranks.same_rows(self.data)
                    self._same_rows = True
                if network is not None:
                    stack.enter_context(ranks.one_network(network))
            if network is not None:
                stack.enter_context(unchanged(network))
            yield

    def _audited(self, model: nn.Module | AuditedModel, ranks: Ranks | None) -> AuditedModel:
        if isinstance(model, nn.Module):
            network = bare(model)
            device = device_of(network)
            with untouched(model):
                audited = self.wrap_network(network)
            if isinstance(audited, TorchNetwork) and next(network.parameters(), None) is not None:
                # A wrapper may have moved the network to a device of its own; it is back now.
                audited.device = device
        else:
            audited = model
        # The weights have changed since, and what was answered then is no answer now.
        audited.forget()
        if self.wrap is None:
            audited.batch_rows = BATCH_ROWS
        if ranks is not None:
            audited.over_batches = ranks.over_batches
        if audited.kind != "regressor" and self.data.classes and self.data.classes != audited.classes:
            raise ModelError(
                f"The data's classes are {', '.join(self.data.classes[:8])}, the model's "
                f"{', '.join(audited.classes[:8])}: give both the same names in the order of the outputs."
            )
        self.model, self.device = model_record(audited), str(getattr(audited, "device", "cpu"))
        return audited

    def wrap_network(self, network: nn.Module) -> AuditedModel:
        """The network as a model for probes."""
        if self.wrap is not None:
            return self.wrap(network)
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
            device=device_of(network),
            batch_rows=BATCH_ROWS,
        )

    def _epsilon(self) -> tuple[list[ProbeResult], list[str]]:
        if self.accountant is None or self.delta is None:
            return [], []
        source = "Abadi et al., CCS 2016"
        definitions = select_definitions("dp_accounting", source, ACCOUNTANT_METRICS, ["dp_epsilon"])
        result = ProbeResult(probe="dp_accounting", pillar="privacy", citation=source, definitions=definitions)
        try:
            epsilon = float(self.accountant.get_epsilon(self.delta))
        except Exception as error:
            reason = reason_of(error)
            not_run = replace(result, not_run=f"The accountant gave no epsilon: {reason}")
            return [not_run], [f"the accountant: {reason}"]
        spent = Measurement(
            metric="dp_epsilon",
            estimate=Exact(known=epsilon),
            n_samples=0,
            ideal=0.0,
            detail=f"spent so far at delta {self.delta:g}, by {type(self.accountant).__name__}",
        )
        return [replace(result, measurements=(spent,))], []


def network_of(model: nn.Module | AuditedModel) -> nn.Module | None:
    """The inner network; None if there is none, or no process has all of it."""
    if isinstance(model, nn.Module):
        try:
            return bare(model)
        except ModelError:
            # Said by every probe's NOT_RUN.
            return None
    module = getattr(model, "module", None)
    return module if isinstance(module, nn.Module) else None


def _untouched(model: nn.Module | AuditedModel) -> AbstractContextManager[None]:
    """Around a question to any model; of one that is no network the generators at least."""
    network = network_of(model)
    outer = model if isinstance(model, nn.Module) else network
    return untouched(nn.Module() if outer is None else outer)


def _not_run(probe: Probe, reason: str) -> ProbeResult:
    return replace(blank_result(probe), not_run=reason)


# Through whose code a trainer calls the audit.
_TRAINERS = ("auditor", "accelerate", "lightning", "torch", "transformers")


def level_of_user() -> int:
    """The stack level, for the caller, of the line of the user's that it all comes from."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in _TRAINERS:
        frame, level = frame.f_back, level + 1
    return level if frame is not None else 2
