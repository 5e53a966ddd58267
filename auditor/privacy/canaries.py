"""Canaries for any torch loop: gradients of a canary's own (white box), rows with flipped labels (black box).

The model that is trained with canaries in it is spoiled: audit a copy of the training, and throw the model away.

Where Opacus stores the gradients of the rows, every step is checked to sum gradients clipped row by row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import UsageError
from auditor.core.randomness import forked
from auditor.core.rows import BoolArray, FloatArray
from auditor.privacy.accounting import Phase
from auditor.privacy.canary_recording import DiracCanaries, NoiseKeeper
from auditor.privacy.dp_audit_scores import DIRAC, FLIPPED, CanaryScores
from auditor.privacy.federated.client_canaries import Array, ClientCanaries
from auditor.privacy.loop_watch import ClippingWatch, LossPerRow, TakeStep, plain_step, step_sensitivity
from auditor.privacy.observe_opacus import observe
from auditor.privacy.released_noise import Sensitivity

if TYPE_CHECKING:
    from opacus.accountants.accountant import IAccountant
    from opacus.optimizers import DPOptimizer
    from torch.utils.data import DataLoader

    from auditor.privacy.run_record import RunRecord

ExpectedGradient = Callable[[], list[Tensor]]
_SENSITIVITY_ROWS = 64


class DPAudit:
    """Gradient Dirac canaries on an Opacus optimizer, during all of its steps.

    Canary i owns one coordinate of the parameters. A fair coin decides whether it is in; if so, it is drawn at each
    logical step with chance ``sample_rate``, as a row is, and then adds ``C e_i`` to the sum of clipped gradients, as a
    row with that gradient would (C: ``max_grad_norm``). Its score is the sum over the steps of the released gradient at
    i, less the expected one. Nothing else is changed: noise, scaling, accountant and the rows are the loop's own.

    It sees: noise that is missing, too small, used twice or seen by nobody but the accountant; of each step it keeps
    what was added to the sum, see :class:`~auditor.privacy.released_noise.ReleasedNoise`. It cannot see a fault in how
    the rows themselves are drawn or clipped, since it draws and clips the canaries itself: that is for the linter,
    which reads the same run, for
    :func:`~auditor.privacy.loop_watch.step_sensitivity` and :class:`~auditor.privacy.loop_watch.LoopWatch`.

    ``expected_gradient``: what a step releases on average without canaries, summed over rows as in ``summed_grad``, one
    tensor a parameter; see :class:`ReferenceGradient`. It must come from rows that are drawn without regard to the
    step's own batch: the batch's own gradient holds the canaries and its sampling, and would leak both. Without one,
    0 is taken: still valid, with less power. ``accountant``: its history becomes the accounting that is audited. Where
    a :class:`ReferenceGradient` brings rows, how far one of them moves the step is measured first: ``step(inputs,
    targets)``, what the loop does with a batch, by default the plain one. ``loader``: that of ``make_private``; the
    linter reads from it how rows are drawn.
    Source: Steinke, Nasr and Jagielski, NeurIPS 2023, section 6 (white-box, Dirac canaries).
    """

    def __init__(
        self,
        optimizer: DPOptimizer,
        n_canaries: int,
        *,
        sample_rate: float,
        rng: np.random.Generator,
        expected_gradient: ExpectedGradient | None = None,
        accountant: IAccountant | None = None,
        step: TakeStep | None = None,
        loader: DataLoader[Any] | None = None,
    ) -> None:
        _require_flat_clipping(optimizer)
        self._canaries = DiracCanaries(optimizer.params, n_canaries, sample_rate=sample_rate, rng=rng)
        self.optimizer = optimizer
        self.n_canaries = n_canaries
        self.sample_rate = sample_rate
        self.expected_gradient = expected_gradient
        self.accountant = accountant
        self.loader = loader
        self.steps = 0
        self.included = self._canaries.included
        self._noise = NoiseKeeper(optimizer.params)
        self._clipping = ClippingWatch()
        self._expected: FloatArray = np.zeros(n_canaries)
        self.sensitivity = _sensitivity(optimizer, expected_gradient, step)
        self._add_noise = optimizer.add_noise
        optimizer.add_noise = self._add_canaries_and_noise
        self._hook = optimizer.original_optimizer.register_step_pre_hook(self._score_step)

    def _add_canaries_and_noise(self) -> None:
        # Before the step, while the parameters are those that the step's gradient was taken at.
        self._expected = np.zeros(self.n_canaries)
        if self.expected_gradient is not None:
            self._expected = self._canaries.values_at(self.expected_gradient())
        self._clipping.look(self.optimizer)
        norm = float(self.optimizer.max_grad_norm)
        self._canaries.add([p.summed_grad for p in self.optimizer.params], self._canaries.draw(), norm)
        before = [p.summed_grad.detach().clone() for p in self.optimizer.params]
        self._add_noise()
        self._noise.add(before, norm, float(self.optimizer.noise_multiplier))

    def _score_step(self, *_: Any) -> None:
        optimizer = self.optimizer
        scale = 1.0
        if optimizer.loss_reduction == "mean":
            scale = float(optimizer.expected_batch_size * optimizer.accumulated_iterations)
        self._noise.check_step(scale)
        released = [p.grad for p in optimizer.params]
        self._canaries.update_scores(released, scale, self._expected, float(optimizer.max_grad_norm))
        self.steps += 1

    def detach(self) -> None:
        """Restore the optimizer."""
        self.optimizer.add_noise = self._add_noise
        self._hook.remove()

    def scores(self) -> CanaryScores:
        """Coins and scores so far, in units of the clipping norm. Raises UsageError where no step was taken."""
        if not self.steps:
            raise UsageError(
                "The optimizer took no step after the canaries were attached: attach them before the training, to the "
                "optimizer that make_private returned."
            )
        return CanaryScores(
            included=self.included.copy(),
            scores=self._canaries.scores.copy(),
            kind=DIRAC,
            steps=self.steps,
            sample_rate=self.sample_rate,
            noise=(self._noise.released_noise(),),
            sensitivity=self.sensitivity,
            unclipped=self._clipping.wrong,
            clipping_seen=self._clipping.seen,
            runs=(self._run_record(),),
        )

    def _run_record(self) -> RunRecord:
        """What the audit saw of the run, for the linter; without what an accusation could rest on a guess of."""
        expected, moved = self.expected_gradient, self.sensitivity
        told = {
            "steps_taken": self.steps,
            "noise_draws": self._noise.draws,
            "unclipped_steps": self._clipping.wrong if self._clipping.seen else None,
            "rows_seen": self._clipping.rows if self._clipping.seen else None,
            "steps_seen": self._clipping.seen or None,
            "step_sensitivity": moved.largest if moved and not moved.why_not and np.isfinite(moved.largest) else None,
        }
        if self.loader is None:
            told["sample_rate"] = self.sample_rate
        return observe(
            expected.module if isinstance(expected, ReferenceGradient) else None,
            self.optimizer,
            self.loader,
            self.accountant,
            told={field: value for field, value in told.items() if value is not None},
        )

    def accounting(self) -> tuple[Phase, ...] | None:
        """The accountant's phases, if one was given and every phase had noise."""
        if self.accountant is None:
            return None
        return tuple(
            Phase(noise_multiplier=float(noise), sample_rate=float(rate), steps=int(steps))
            for noise, rate, steps in self.accountant.history
        )


class ReferenceGradient:
    """The expected sum of clipped gradients of a step, from rows independent of the step's own batch.

    ``sample_rate * n`` times the mean clipped gradient, at the step's parameters, of ``batch_rows`` of the n training
    rows, drawn afresh at each step by ``rng``; all n rows by default, which is exact. ``loss`` gives one number a row.
    Rows of elsewhere would differ from the training rows by the same amount at every step, which adds up. Parameters,
    buffers, gradients of the step under way and the global generator stay as they are.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: LossPerRow,
        inputs: Tensor,
        targets: Tensor,
        *,
        optimizer: DPOptimizer,
        sample_rate: float,
        batch_rows: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        if not len(inputs) or len(inputs) != len(targets):
            raise UsageError("The reference rows need as many targets as inputs, and at least one.")
        if batch_rows is not None and (rng is None or not 1 <= batch_rows <= len(inputs)):
            raise UsageError(f"A reference batch holds between 1 and {len(inputs):,} rows and needs a generator, rng.")
        self.module, self.loss = module, loss
        self.inputs, self.targets = inputs, targets
        self.optimizer = optimizer
        self.sample_rate = sample_rate
        self.batch_rows = batch_rows
        self._rng = rng

    def __call__(self) -> list[Tensor]:
        """One tensor of the shape of each of the optimizer's parameters, in their order."""
        parameters = self.optimizer.params
        inputs, targets = self._rows()
        kept = [(p, p.grad, p.grad_sample) for p in parameters]
        for p in parameters:
            p.grad, p.grad_sample = None, None
        try:
            with forked(*(p.device for p in parameters)), torch.enable_grad(), warnings.catch_warnings():
                # The first layer's input is data and needs no gradient.
                warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
                losses = self.loss(self.module(inputs), targets)
                total = losses.mean() if self.optimizer.loss_reduction == "mean" else losses.sum()
                total.backward()  # type: ignore[no-untyped-call]
            rows = [self.optimizer._get_flat_grad_sample(p).detach() for p in parameters]
            norms = torch.stack([r.reshape(len(r), -1).norm(dim=1) for r in rows], dim=1).norm(dim=1)
            weights = (self.optimizer.max_grad_norm / (norms + 1e-6)).clamp(max=1.0) * (
                self.sample_rate * len(self.inputs) / len(inputs)
            )
            return [torch.einsum("i,i...", weights.to(r.dtype), r) for r in rows]
        finally:
            for p, gradient, samples in kept:
                p.grad, p.grad_sample = gradient, samples

    def _rows(self) -> tuple[Tensor, Tensor]:
        if self.batch_rows is None or self._rng is None:
            return self.inputs, self.targets
        chosen = torch.from_numpy(self._rng.choice(len(self.inputs), self.batch_rows, replace=False))
        return self.inputs[chosen.to(self.inputs.device)], self.targets[chosen.to(self.targets.device)]


class FlippedLabels:
    """Black-box canaries: some of the rows, their labels flipped, in or out by a fair coin; see ``WEAK``.

    ``inputs``: (n, ...), ``targets``: (n,) classes from 0 to ``n_classes - 1``. ``m`` rows leave the training rows, get
    another class at random, and those whose coin says so come back. The score is how much the training lowered a
    canary's loss. Source: Steinke, Nasr and Jagielski, NeurIPS 2023, section 6 (black-box).
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, n_classes: int, n_canaries: int, rng: np.random.Generator
    ) -> None:
        if not 1 <= n_canaries <= len(inputs):
            raise UsageError(f"{n_canaries:,} canaries cannot be taken from {len(inputs):,} rows: ask for fewer.")
        if n_classes < 2:
            raise UsageError("A flipped label needs at least two classes.")
        chosen = np.sort(rng.choice(len(inputs), n_canaries, replace=False))
        self.included = rng.random(n_canaries) < 0.5
        rest = np.setdiff1d(np.arange(len(inputs)), chosen)
        at = torch.from_numpy(chosen).to(inputs.device)
        self.inputs = inputs[at]
        shift = torch.from_numpy(rng.integers(1, n_classes, n_canaries)).to(targets.device)
        self.targets = (targets[at.to(targets.device)] + shift) % n_classes
        keep, back = torch.from_numpy(rest), torch.from_numpy(self.included)
        self.training = (
            torch.cat([inputs[keep.to(inputs.device)], self.inputs[back.to(inputs.device)]]),
            torch.cat([targets[keep.to(targets.device)], self.targets[back.to(targets.device)]]),
        )

    def losses(self, module: nn.Module) -> FloatArray:
        """(m,) cross-entropy of each canary's flipped label, in evaluation mode."""
        flags = [(m, m.training) for m in module.modules()]
        module.eval()
        try:
            with torch.no_grad():
                found = nn.functional.cross_entropy(module(self.inputs), self.targets, reduction="none")
        finally:
            for m, flag in flags:
                m.training = flag
        return found.double().cpu().numpy().astype(np.float64)

    def scores(self, before: FloatArray, after: FloatArray) -> CanaryScores:
        """Coins and scores of :meth:`losses` before and after the training."""
        return CanaryScores(included=self.included.copy(), scores=before - after, kind=FLIPPED)


class AuditPlan:
    """The argument of a training function in ``auditor dp audit``: it attaches canaries once, by a chosen method."""

    def __init__(self, n_canaries: int, rng: np.random.Generator) -> None:
        self.n_canaries = n_canaries
        self._rng = rng
        self._attached: DPAudit | None = None
        self._clients: ClientCanaries | None = None
        self._counted: tuple[Phase, ...] | None = None
        self._scores: CanaryScores | None = None

    def attach(
        self,
        optimizer: DPOptimizer,
        *,
        sample_rate: float,
        expected_gradient: ExpectedGradient | None = None,
        accountant: IAccountant | None = None,
        step: TakeStep | None = None,
        loader: DataLoader[Any] | None = None,
    ) -> DPAudit:
        """White-box canaries on the optimizer that ``make_private`` returned; see :class:`DPAudit`."""
        self._check_unattached()
        self._attached = DPAudit(
            optimizer,
            self.n_canaries,
            sample_rate=sample_rate,
            rng=self._rng,
            expected_gradient=expected_gradient,
            accountant=accountant,
            step=step,
            loader=loader,
        )
        return self._attached

    def flip_labels(self, inputs: Tensor, targets: Tensor, n_classes: int) -> FlippedLabels:
        """Black-box canaries among the rows; train on its ``training`` and hand :meth:`FlippedLabels.scores` back."""
        self._check_unattached()
        return FlippedLabels(inputs, targets, n_classes, self.n_canaries, self._rng)

    def attach_clients(
        self,
        parameters: Sequence[Array],
        *,
        clipping_norm: float,
        sample_rate: float,
        noise_multiplier: float | None = None,
        accounting: Sequence[Phase] | None = None,
    ) -> ClientCanaries:
        """Canary clients for a federated run; see :class:`ClientCanaries`. ``accounting``: what the claim rests on."""
        self._check_unattached()
        self._clients = ClientCanaries(
            parameters,
            self.n_canaries,
            clipping_norm=clipping_norm,
            sample_rate=sample_rate,
            noise_multiplier=noise_multiplier,
            rng=self._rng,
        )
        self._counted = None if accounting is None else tuple(accounting)
        return self._clients

    def coins(self) -> BoolArray:
        """(n_canaries,) fair coins, for the function's own attack: include the canaries with coin True."""
        return self._rng.random(self.n_canaries) < 0.5

    def submit(self, scores: CanaryScores) -> None:
        """Submit scores of the function's own attack, or of :class:`FlippedLabels`."""
        self._scores = scores

    def outcome(self) -> tuple[CanaryScores, tuple[Phase, ...] | None]:
        """Coins and scores, and the accountant's phases.

        Raises UsageError where the function attached nothing.
        """
        if self._scores is not None:
            return self._scores, None
        if self._clients is not None:
            return self._clients.scores(), self._counted
        if self._attached is None:
            raise UsageError(
                "The training function attached no canaries: call audit.attach(optimizer, sample_rate=...) after "
                "make_private, audit.attach_clients(parameters, ...) in a federated run, or audit.submit(scores)."
            )
        self._attached.detach()
        return self._attached.scores(), self._attached.accounting()

    def _check_unattached(self) -> None:
        if self._attached is not None or self._clients is not None:
            raise UsageError("Canaries were attached already: one training, one optimizer.")


def _sensitivity(
    optimizer: DPOptimizer, expected: ExpectedGradient | None, step: TakeStep | None
) -> Sensitivity | None:
    """How far one row moves the step, where there are rows to leave out."""
    if not isinstance(expected, ReferenceGradient) or len(expected.inputs) < 2:
        return None
    take = step or plain_step(expected.module, optimizer, expected.loss)
    some = expected.inputs[:_SENSITIVITY_ROWS], expected.targets[:_SENSITIVITY_ROWS]
    return step_sensitivity(optimizer, take, *some, module=expected.module)


def _require_flat_clipping(optimizer: Any) -> None:
    from opacus.optimizers import DPOptimizer
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping

    if type(optimizer) not in (DPOptimizer, DPOptimizerFastGradientClipping):
        raise UsageError(
            f"Canaries attach to Opacus' DPOptimizer with flat clipping on one process, not to "
            f"{type(optimizer).__name__}: pass the optimizer that make_private returned."
        )
