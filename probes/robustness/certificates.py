"""Robustness certificates: decisions proved constant in a perturbation set, by bounds and branch and bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, IntArray
from auditor.judging.measurement import Measurement
from auditor.models.networks.layer_chain import NotASequenceError, layers_in_order
from auditor.models.torch_context import without_gradients
from auditor.models.torch_model import TorchModel
from auditor.statistics.attack_estimates import AtLeast, Bracket
from probes.probe_inputs import differentiable
from probes.robustness.interval_bounds import Affine, Bounded, Size, Step, lower_bounds, steps_of
from probes.robustness.perturbation_set import Ball, can_change, nothing_moves, snapped
from probes.robustness.robustness_by_group import At, brackets_by_group

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from probes.robustness.worst_case_search import Attacked


@dataclass(frozen=True, eq=False)
class BoxBounds:
    """Bounds of m boxes (m, d): the ``least`` possible margin (m,), the gain ``worth`` (m, d) of a split along each
    input, and a point ``at`` (m, d) of the box with a probably small margin."""

    least: Tensor
    worth: Tensor
    at: Tensor


@dataclass(frozen=True, eq=False)
class Decided:
    """Results for n rows: whether the whole box was ``proved`` (n,), whether a point with another decision was found,
    ``broken`` (n,), and that point, ``examples`` (n, d).

    Of rows with neither nothing is known.
    """

    proved: BoolArray
    broken: BoolArray
    examples: Tensor


def decide(
    low: Tensor,
    high: Tensor,
    bound: Callable[[Tensor, Tensor, Tensor], BoxBounds],
    breaks: Callable[[Tensor, Tensor], BoolArray],
    *,
    most: int,
    whole: Tensor | None = None,
) -> Decided:
    """Branch and bound over the inputs of n boxes, low and high (n, d).

    ``bound(rows, low, high)``: of m boxes, each a part of the box of its row; ``breaks(rows, points)``: (m,) whether
    the model itself decides the point otherwise. A box whose least margin lies above 0 is proved. Of any other the
    likely point is tried, and it is cut in the middle of the input whose cut is worth most. A row is proved once all of
    its boxes are, and is given up before it has more than ``most`` of them: a number of boxes and not of seconds, so
    that the answer is the same on every machine. All rows go forward together, since many boxes are bounded at a time.
    ``whole`` (d,): of inputs that stand for whole numbers, counted from the row's ``low``, the size of one, else 0. A
    box is cut between two of them, and what lies between is in neither part.
    """
    n = len(low)
    first = low, high
    broken, given_up, spent, examples = np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.int64), low.clone()
    rows = torch.arange(n)
    while len(rows):
        spent += np.bincount(rows.numpy(), minlength=n)
        found = bound(rows, low, high)
        # A margin that is no number proves nothing.
        open_ = ~(found.least > 0.0)
        rows, low, high, worth, at = rows[open_], low[open_], high[open_], found.worth[open_], found.at[open_]
        hit = breaks(rows, at)
        broken[rows.numpy()[hit]] = True
        examples[rows[torch.from_numpy(hit)]] = at[torch.from_numpy(hit)]
        ends, starts, stuck = _split_points(low, high, (first[0][rows], first[1][rows]), whole)
        axis = torch.where(stuck, -torch.inf, worth).argmax(dim=1, keepdim=True)
        given_up[rows[stuck.gather(1, axis).squeeze(1)].numpy()] = True
        given_up |= spent + 2 * np.bincount(rows.numpy(), minlength=n) > most
        on = torch.from_numpy(~(given_up | broken)[rows.numpy()])
        rows, low, high, axis = rows[on], low[on], high[on], axis[on]
        end, start = ends[on].gather(1, axis), starts[on].gather(1, axis)
        low, high = torch.cat([low, low.scatter(1, axis, start)]), torch.cat([high.scatter(1, axis, end), high])
        rows = torch.cat([rows, rows])
    return Decided(~(given_up | broken), broken, examples)


def _split_points(
    low: Tensor, high: Tensor, first: tuple[Tensor, Tensor], whole: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the lower part of each box ends and the upper one starts, by each input, and whether no cut makes it less.

    All (m, d); ``first``: the box that each is a part of.
    """
    middle = (low + high) / 2.0
    stuck = (middle <= low) | (middle >= high)
    if whole is None:
        return middle, middle, stuck
    size = torch.where(whole > 0, whole.to(low), 1.0)
    # Whole numbers are encoded in float32, so that each lies a little beside its place.
    room = 1e-3 * size + 2.0**-20 * torch.maximum(first[0].abs(), first[1].abs())
    counted = (whole > 0) & (room < 0.1 * size)
    lowest, highest = (torch.round((end - first[0]) / size) for end in (low, high))
    below = torch.floor((lowest + highest) / 2.0)
    ends = torch.where(counted, first[0] + below * size + room, middle)
    starts = torch.where(counted, first[0] + (below + 1.0) * size - room, middle)
    return ends, starts, torch.where(counted, lowest >= highest, stuck)


METHOD = "certificate"
# A gap between float32 outputs that is still there after a softmax of them in float64.
_SLACK = 1e-9
_OF_PROBABILITY = 1e-14
# Boxes of more inputs are not cut: a cut halves one input, and hardly tightens a bound that hangs on hundreds.
MOST_CUT = 32
_NUMBERS_AT_ONCE = 4_194_304
_WORK = 10_700_000
# Rows that were broken, and are bounded all the same, where that takes as long as for any other.
_CHECKED = 8
# The rounding of operands in the shorter formats, TF32 and bfloat16, that products may be taken in elsewhere.
_SHORTER = 2.0**-8


class ContradictionError(RuntimeError):
    """A row is both proved and broken, or a bound is wrong at the row itself: an internal error."""


@dataclass(frozen=True, eq=False)
class Certified:
    """The results of n rows at each level: ``proved`` (n_levels, n) by a certificate, ``broken`` (n_levels, n) by an
    attack or by a point that branch and bound found.

    A row that is neither is undecided.
    """

    proved: BoolArray
    broken: BoolArray

    @property
    def undecided(self) -> BoolArray:
        """(n_levels, n) rows that are neither."""
        return ~(self.proved | self.broken)


def certify(
    model: TorchModel,
    inputs: Tensor,
    clean: IntArray,
    positive: int | None,
    *,
    balls: Sequence[tuple[Tensor, Tensor]],
    is_broken: BoolArray,
    branches: int | None = None,
    whole: Tensor | None = None,
) -> Certified:
    """Proofs that all inputs between two others are decided as ``inputs`` (n, ...), ``clean`` (n,).

    ``balls``: the lowest and the highest inputs (n, ...) at each level, ascending, each within the next; ``is_broken``
    (n_levels, n) by an attack; ``branches``: the most boxes a row, by default what :func:`most_boxes` says; ``whole``:
    the steps of a :class:`~probes.robustness.perturbation_set.Ball`, since between two whole numbers nothing is to be
    proved. What is proved is the decision of the model as it runs, in float32 and by its own threshold; a point that
    branch and bound takes for an example is asked of the model itself. Rows that an attack broke are bounded once, so
    that a bound which is wrong shows itself. Raises NotApplicableError where the model is not a sequence of known
    layers, and ContradictionError where a row is proved and broken.
    """
    rows = _Rows.from_model(model, inputs, clean, positive, whole)
    most = most_boxes(rows.size) if branches is None else branches
    cut = bool(balls) and int((balls[-1][1] > balls[-1][0]).flatten(1).any(dim=0).sum()) <= MOST_CUT
    proved, found = np.zeros_like(is_broken), is_broken.copy()
    for i, (low, high) in enumerate((low.detach().cpu(), high.detach().cpu()) for low, high in balls):
        smaller = proved[i - 1] if i else np.ones(len(clean), np.bool_)
        # What was not proved of a smaller ball is hardly ever proved of a larger one, but is broken more often.
        for left, boxes in ((~found[i] & smaller, most if cut else 1), (~found[i] & ~smaller & cut, 1)):
            at = np.flatnonzero(left)
            decided = rows.decide(at, low, high, boxes)
            proved[: i + 1, at] |= decided.proved
            found[i:, at] |= decided.broken
        new = np.flatnonzero(is_broken[i] & ~is_broken[i - 1] if i else is_broken[i])
        new = new if cut else new[:_CHECKED]
        proved[i, new] |= rows.decide(new, low, high, 1).proved
    both = (proved & found).any(axis=0)
    if both.any():
        raise ContradictionError(
            f"{both.sum()} rows, the first of them {int(np.flatnonzero(both)[0])}, were proved to keep their decision, "
            "and inputs that change it were found: one of the two is a fault of this tool, so neither counts. Please "
            "report it."
        )
    return Certified(proved, found)


def certified(
    model: AuditedModel,
    sample: AuditData,
    clean: IntArray,
    ball_around: Callable[[AuditedModel, AuditData, Tensor], Ball],
    levels: Sequence[float],
    attacked: Attacked | None,
    branches: int | None,
) -> list[Measurement]:
    """``certified_accuracy`` and ``robust_accuracy`` at each level, over the labelled rows of a sample.

    ``ball_around``: the ball around the sample's inputs, as :func:`~probes.robustness.perturbation_set.ball_of` makes
    it; ``attacked``: what a search in it found, if there was one. Raises what :func:`certify` raises.
    """
    own = differentiable(model)
    if own is None or not isinstance(model, TorchModel) or sample.y_true is None:
        raise NotApplicableError("A certificate is for a torch network and rows with true labels.")
    inputs = own.encode(sample.X)
    network_of(model, inputs)
    ball = ball_around(model, sample, inputs)
    broken = np.zeros((len(levels), len(sample)), np.bool_) if attacked is None else attacked.broken
    right, n = np.flatnonzero(clean == sample.y_true), int((sample.y_true >= 0).sum())
    at = torch.from_numpy(right).to(inputs.device)
    around = [ball.around(inputs, level) for level in levels]
    of = certify(
        model,
        inputs[at],
        clean[right],
        sample.positive,
        balls=[(low[at], high[at]) for low, high in around],
        is_broken=broken[:, right],
        branches=branches,
        whole=ball.steps,
    )
    found = []
    for i, level in enumerate(levels):
        moving = can_change(*around[i])
        proved, left = int(of.proved[i].sum()), int(of.undecided[i].sum())
        detail = f"L-infinity ball of epsilon {ball.unit}; of {len(right):,} rows that are right as they are "
        detail += f"{proved:,} proved, {int(of.broken[i].sum()):,} broken, {left:,} undecided"
        detail += f"; {int(moving.sum()):,} of {len(sample):,} rows can change at this level"
        lower = AtLeast(successes=proved, n=n)
        both = Bracket(proved=proved, possible=proved + left, n=n)
        whole = [
            _certificate_measurement("certified_accuracy", lower, level, detail),
            _certificate_measurement("robust_accuracy", both, level, detail),
        ]
        if not moving.any():
            found += [replace(one, too_few=nothing_moves(len(sample))) for one in whole]
            continue
        found += whole
        shown, kept = np.zeros((2, len(sample)), np.bool_)
        shown[right], kept[right] = of.proved[i], ~of.broken[i]
        where: At = {"epsilon": level}
        found += brackets_by_group("robust_accuracy", METHOD, where, (shown, kept), sample, clean, model.classes)
    return found


NO_GRADIENTS = "The model gives no gradients, and its layers are not known."


def not_certified(
    sample: AuditData,
    clean: IntArray,
    levels: Sequence[float],
    broken: BoolArray | None,
    reason: str,
    method: str = METHOD,
) -> list[Measurement]:
    """``robust_accuracy`` without a proof: rows not broken may still be breakable, so it never PASSes.

    ``broken`` (n_levels, n): what a search broke; None where none was made.
    """
    y = sample.y_true
    if y is None or not (y >= 0).any():
        return []
    kept = np.ones((len(levels), len(sample)), np.bool_) if broken is None else ~broken
    left, n = ((clean == y) & kept).sum(axis=1), int((y >= 0).sum())
    return [
        replace(
            _certificate_measurement(
                "robust_accuracy", Bracket(proved=0, possible=int(k), n=n), level, f"nothing is proved. {reason}"
            ),
            method=method,
        )
        for k, level in zip(left, levels, strict=True)
    ]


def _certificate_measurement(metric: str, estimate: AtLeast | Bracket, level: float, detail: str) -> Measurement:
    return Measurement(
        metric=metric,
        method=METHOD,
        estimate=estimate,
        n_samples=estimate.n,
        ideal=1.0,
        at={"epsilon": level},
        detail=detail,
    )


# ---- the network ---------------------------------------------------------------------------------------------------


def network_of(model: AuditedModel, inputs: Tensor) -> tuple[Step, ...]:
    """The steps from encoded inputs (n, ...) to logits. Raises NotApplicableError where they are not known."""
    own = (TorchModel.decide, TorchModel.logits, TorchModel.answer, TorchModel.predict_proba)
    if not isinstance(model, TorchModel) or any(getattr(type(model), f.__name__) is not f for f in own):
        raise NotApplicableError("A certificate is for a torch network alone, without what decides after it.")
    if model.output_kind != "logits":
        raise NotApplicableError(
            "A certificate is for a network that returns logits, and this one returns probabilities."
        )
    if inputs.dtype != torch.float32:
        raise NotApplicableError(f"A certificate is for inputs in float32, and these are {inputs.dtype}.")
    exact = model.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    try:
        with model.evaluating():
            layers = layers_in_order(model.module, pictures=inputs.dim() == 4)
            return steps_of(layers, inputs.shape[1:], 0.0 if exact else _SHORTER)
    except NotASequenceError as error:
        raise NotApplicableError(f"No certificate for this network: {error}.") from None


def most_boxes(size: Size) -> int:
    """The default limit of boxes per row: 1,024, and fewer for networks with boxes slower than those of an MLP 64-32,
    so that no row takes longer than about a tenth of a second."""
    return max(1, min(1024, _WORK // size.slopes))


def log_odds(probability: float) -> float:
    """``log(p / (1 - p))``, infinite at 0 and 1 and beyond."""
    if not 0.0 < probability < 1.0:
        return -np.inf if probability <= 0.0 else np.inf
    return float(np.log(probability) - np.log1p(-probability))


def margins_of(model: TorchModel, clean: IntArray, positive: int | None, n_numbers: int) -> tuple[Tensor, Tensor]:
    """Sums (n, k, n_numbers) of a network's outputs and constants (n, k): if each sum with its constant is above 0, the
    decision is ``clean`` (n,).

    Of two classes with a threshold t on the probability of the favourable one, the logits differ by at least
    ``log(t / (1 - t))`` for it, and by less against it; else the logit of the class is above that of each other one.
    """
    n = model.n_outputs
    logits = torch.eye(n, n_numbers, dtype=torch.float64)
    if n_numbers == 1:
        logits = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    sums = torch.stack([torch.stack([logits[c] - logits[j] for j in range(n) if j != c]) for c in range(n)])
    constants = torch.zeros((n, n - 1), dtype=torch.float64)
    if n == 2 and positive is not None:
        # The softmax of float32 outputs in float64 is right to far better than this.
        constants[positive] = -log_odds(model.threshold * (1.0 + _OF_PROBABILITY))
        constants[1 - positive] = log_odds(model.threshold * (1.0 - _OF_PROBABILITY))
    at = torch.from_numpy(clean)
    return sums[at], constants[at] - _SLACK


@dataclass(frozen=True, eq=False)
class _Rows:
    """n rows with encoded ``inputs`` (n, ...), and what is asked of the ``steps``: see :func:`margins_of`."""

    steps: tuple[Step, ...]
    model: TorchModel
    inputs: Tensor
    clean: IntArray
    positive: int | None
    sums: Tensor
    constants: Tensor
    whole: Tensor | None = None

    @classmethod
    def from_model(
        cls, model: TorchModel, inputs: Tensor, clean: IntArray, positive: int | None, whole: Tensor | None
    ) -> _Rows:
        """The rows, once what the network computes of them is within the bounds of their inputs."""
        steps = network_of(model, inputs)
        raw = _raw(model, inputs).cpu().double()
        inputs = inputs.detach().cpu()
        sizes = None if whole is None else whole.detach().cpu().double().flatten()
        rows = cls(steps, model, inputs, clean, positive, *margins_of(model, clean, positive, raw.shape[1]), sizes)
        exact = torch.eye(raw.shape[1], dtype=torch.float64).unsqueeze(0)
        both = torch.cat([exact, -exact], dim=1)
        for some in torch.split(torch.arange(len(inputs)), rows.at_once):
            point = inputs[some].double()
            lowest = lower_bounds(steps, point, point, both).least
            if bool((lowest > torch.cat([raw[some], -raw[some]], dim=1)).any()):
                raise ContradictionError(
                    "The network answers outside of the bounds of its own layers at the rows themselves, which is a "
                    "fault of this tool, so nothing is certified. Please report it."
                )
        return rows

    @cached_property
    def size(self) -> Size:
        """Of the network."""
        return Size.from_steps(self.steps, self.inputs.shape[1:])

    @property
    def at_once(self) -> int:
        """Boxes that are bounded together."""
        return max(1, _NUMBERS_AT_ONCE // (2 * self.size.widest**2))

    def decide(self, row_indices: IntArray, low: Tensor, high: Tensor, most: int) -> Decided:
        """Branch and bound over the boxes of ``row_indices`` rows, of low and high (n, ...), with ``most`` boxes a
        row."""
        index = torch.from_numpy(row_indices)
        inputs, low, high = (h[index].flatten(1) for h in (self.inputs, low, high))
        free = (high > low).any(dim=0)
        if not bool(free.any()):
            free[0] = True
        first, rest = self.steps[0], self.steps[1:]
        narrow = first.among(inputs.double(), free) if isinstance(first, Affine) and first.matrix else None

        sizes = None if self.whole is None else self.whole[free].float()

        def bound_boxes(rows: Tensor, low: Tensor, high: Tensor) -> BoxBounds:
            found = []
            for some in torch.split(torch.arange(len(rows)), self.at_once):
                at = rows[some]
                sums, constants = self.sums[index[at]], self.constants[index[at]]
                if narrow is not None:
                    bounded = lower_bounds((narrow.subset(at), *rest), low[some], high[some], sums)
                else:
                    ends = [self._filled(inputs[at].double(), free, end[some]) for end in (low, high)]
                    bounded = lower_bounds(self.steps, ends[0], ends[1], sums)
                    bounded = Bounded(bounded.least, bounded.slopes.flatten(2)[:, :, free])
                found.append(_margins(bounded, constants, low[some], high[some]))
            return BoxBounds(*(torch.cat([getattr(m, name) for m in found]) for name in ("least", "worth", "at")))

        def breaks(rows: Tensor, points: Tensor) -> BoolArray:
            # A corner in float64 lies at most a rounding outside of the ball in float32.
            at = torch.minimum(torch.maximum(points.float(), low[rows][:, free]), high[rows][:, free])
            filled = self._filled(inputs[rows], free, snapped(at, low[rows][:, free], sizes))
            changed: BoolArray = self._model_decisions(filled) != self.clean[row_indices[rows.numpy()]]
            return changed

        wide = _widened(low[:, free].double(), high[:, free].double())
        return decide(*wide, bound_boxes, breaks, most=most, whole=None if self.whole is None else self.whole[free])

    def _filled(self, inputs: Tensor, free: Tensor, values: Tensor) -> Tensor:
        """(m, ...) inputs (m, d) whose free columns are others."""
        filled = inputs.clone()
        filled[:, free] = values
        return filled.reshape(-1, *self.inputs.shape[1:])

    def _model_decisions(self, inputs: Tensor) -> IntArray:
        """(m,) what the model itself decides."""
        logits = _raw(self.model, inputs, logits=True)
        return self.model.decide(torch.softmax(logits.double(), dim=1).numpy(), self.positive)


def _raw(model: TorchModel, inputs: Tensor, *, logits: bool = False) -> Tensor:
    """What the module returns of encoded inputs (n, ...), or the logits that it is read as."""
    ask = model.logits if logits else model.module
    with without_gradients(), model.evaluating():
        parts = [ask(some.to(model.device)).cpu() for some in torch.split(inputs, model.batch_rows)]
    return torch.cat(parts)


def _widened(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes that hold the ball of real numbers too, whose ends were rounded to float32."""
    by = torch.where(high > low, 2.0**-22 * torch.maximum(low.abs(), high.abs()), 0.0)
    return low - by, high + by


def _margins(bounded: Bounded, constants: Tensor, low: Tensor, high: Tensor) -> BoxBounds:
    values, at = (bounded.least + constants).min(dim=1)
    slopes = bounded.slopes[torch.arange(len(at)), at]
    return BoxBounds(values, slopes.abs() * (high - low), torch.where(slopes > 0.0, low, high))
