"""The object of an explanation: one score per sample over removable units; its baseline, and differentiable form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.models.torch_context import without_gradients
from probes.probe_inputs import as_frame, differentiating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import DifferentiableModel


# An output that varies by less than rounding in float32 can produce is constant.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class Attributions:
    """Signed contributions of each unit to the explained score of each sample.

    values: (n, n_units), units being raw features, or words, or the whole image. ends: ``outputs``, (n,) the score of
    each sample, and ``baseline``, (n,) the score that its attributions start from, so that completeness reads
    ``values.sum(1) = outputs - baseline``; where they take passes, these are made once they are asked for. ``units``:
    their names, empty where they have none. ``fine``: for images (n, height, width), the same per pixel.
    """

    method: str
    values: FloatArray
    ends: Callable[[], tuple[FloatArray, FloatArray]]
    units: tuple[str, ...]
    detail: str
    fine: FloatArray | None = None

    @property
    def outputs(self) -> FloatArray:
        """(n,) the score of each sample."""
        return self.ends()[0]

    @property
    def baseline(self) -> FloatArray:
        """(n,) the reference score of its attributions."""
        return self.ends()[1]

    @property
    def output_range(self) -> float:
        """Largest minus smallest score over samples and baselines; 0 up to rounding, NaN if a score is."""
        return output_range(self.outputs, self.baseline)

    @property
    def errors(self) -> FloatArray:
        """(n,) ``|sum of attributions - (output - baseline)| / output_range``; NaN if the range is 0."""
        return completeness_errors(self.values.sum(axis=1), self.outputs, self.baseline)


def output_range(outputs: FloatArray, baseline: FloatArray) -> float:
    """Largest minus smallest score over samples and baselines; 0 up to rounding, NaN if a score is."""
    scores = np.concatenate([outputs, baseline])
    if not scores.size:
        return 0.0
    width = float(np.ptp(scores))
    return 0.0 if width <= _ROUNDING * max(1.0, float(np.abs(scores).max())) else width


def completeness_errors(sums: FloatArray, outputs: FloatArray, baseline: FloatArray) -> FloatArray:
    """(n,) ``|sum of attributions - (output - baseline)| / output_range``; NaN if the range is 0."""
    width = output_range(outputs, baseline)
    return np.abs(sums - (outputs - baseline)) / width if width else np.full(len(outputs), np.nan)


def score_name(score: str, sample: AuditData) -> str:
    """The explained quantity, in words; ``score`` is its scale."""
    of: Sequence[str] = sample.classes
    which = f"{of[sample.positive]!r}" if sample.positive is not None and of else "the class decided on"
    return f"explains the {score} of {which}"


def feature_names(model: AuditedModel, sample: AuditData) -> tuple[str, ...]:
    """Names of the raw features of a table, in the order the model is given them; empty for texts and images."""
    from auditor.data.preprocessing import TabularPreprocessing

    if sample.modality != "tabular":
        return ()
    if isinstance(model.preprocessing, TabularPreprocessing):
        return model.preprocessing.features
    return tuple(str(c) for c in as_frame(sample.X, model.features).columns)


# What is kept of one sample's forward pass for its backward pass, times this, is about what both take together.
_BACKWARD_FACTOR = 2
_BUDGET_BYTES = 1 << 30
# A processor is fastest where what a pass keeps stays near its caches; below so many points a pass is mostly overhead.
_CACHE_BYTES, _FEWEST_POINTS, _MOST_POINTS = 64 << 20, 8, 4096
ONLY_PREDICTS = (
    "this model only predicts; give a model bundle or a Hugging Face folder, or use occlusion, kernel_shap, lime or "
    "shap_permutation"
)
NOT_SMOOTH = (
    "The model's output does not depend on its input by operations that can be differentiated (it rounds, compares or "
    "detaches): occlusion, kernel_shap, lime and shap_permutation need predictions only."
)

FLAT = (
    "The score's gradient is 0 at every sampled row, where its path begins and half-way, although the score changes "
    "(the model rounds its input or compares it with thresholds): occlusion, kernel_shap, lime and shap_permutation "
    "need predictions only."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Chunk:
    """Some samples in captum's form: ``start`` and ``end`` (m, ...) of their paths, and arguments of ``score``."""

    start: Tensor
    end: Tensor
    targets: Tensor
    extra: tuple[Tensor, ...]

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """The arguments of ``score`` after the points; captum's ``additional_forward_args``."""
        return (self.targets, *self.extra)


@dataclass(frozen=True, eq=False, kw_only=True)
class Blank:
    """The embedding of a removed token: a weighted mean over token ids; ``ids`` (k,), ``weights`` (k,)."""

    ids: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Differentiable:
    """n samples as points: encoded columns, pixels, or outputs of the embedding layer for token ids.

    inputs: (n, ...) the model's encoded input. targets: (n,) the explained class. begin: (1, ...) or (n, ...) where
    paths begin, None for token ids, whose paths begin at ``blank``. layer: their embedding layer. held: (n, length)
    token positions that stay as they are on the whole path (padding, and what the tokenizer puts around a text).
    places: for token ids (n, d) the position of each unit; else (elements of one point,) the unit of each element.
    present: (n, d). channels: the axis of an image's points that is summed to make a map, None without images.
    baseline: in words. rows_at_once: how many points fit one forward and backward pass. shift: (n, length, width) what
    is added to embedded tokens that are not held, None for nothing.
    """

    model: DifferentiableModel
    inputs: Tensor
    targets: Tensor
    begin: Tensor | None
    blank: Blank | None
    layer: nn.Embedding | None
    held: Tensor | None
    places: IntArray
    present: npt.NDArray[np.bool_]
    channels: int | None
    baseline: str
    rows_at_once: int
    shift: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def score(self, points: Tensor, targets: Tensor, *extra: Tensor) -> Tensor:
        """(m,) log-odds of ``targets``; ``extra``: token ids and fixed positions if points are embeddings."""
        return log_odds(self.logits(points, *extra), targets)

    def logits(self, points: Tensor, *extra: Tensor) -> Tensor:
        """(m, n_classes) the model's logits at points."""
        import torch

        if self.layer is None:
            return self.model.logits(points)
        tokens, held = extra

        def replace_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if args[0].shape != tokens.shape:
                return None
            return torch.where(held.unsqueeze(-1), output, points.to(output.dtype))

        hook = self.layer.register_forward_hook(replace_output)
        try:
            return self.model.logits(tokens)
        finally:
            hook.remove()

    def mixed(self, rows: IntArray, keep: npt.NDArray[np.bool_]) -> FloatArray:
        """(m,) scores of samples with the units not in ``keep`` (m, d) replaced by their path's start."""
        import torch

        out = np.empty(len(rows))
        with differentiating(self.model), torch.no_grad():
            for i in range(0, len(rows), self.rows_at_once):
                part = slice(i, i + self.rows_at_once)
                chunk = self.chunk(rows[part])
                stays = torch.from_numpy(self.spread(keep[part], rows[part])).to(chunk.end.device)
                points = torch.where(stays, chunk.end, chunk.start)
                out[part] = self.score(points, *chunk.arguments).double().cpu().numpy()
        return out

    def spread(self, per_unit: npt.NDArray[Any], rows: IntArray) -> npt.NDArray[Any]:
        """(m, ...) values of units (m, d) for each element of the points; token positions end in 1."""
        if self.layer is None:
            return per_unit[:, self.places].reshape(-1, *self.inputs.shape[1:])
        out = np.zeros((len(rows), self.inputs.shape[1]), per_unit.dtype)
        at, unit = np.nonzero(self.present[rows])
        out[at, self.places[rows][at, unit]] = per_unit[at, unit]
        return out[..., None]

    def chunk(self, rows: IntArray) -> Chunk:
        """The points of some samples, detached."""
        import torch

        index = torch.from_numpy(np.asarray(rows, np.int64)).to(self.inputs.device)
        inputs, targets = self.inputs[index], self.targets[index]
        if self.layer is None:
            assert self.begin is not None
            begin = self.begin[index] if len(self.begin) == len(self.inputs) else self.begin
            return Chunk(start=begin.expand(inputs.shape), end=inputs, targets=targets, extra=())
        assert self.blank is not None and self.held is not None
        held = self.held[index]
        with torch.no_grad():
            # Paths are made of fine steps, for which half of a float's digits are too few.
            end, blanks = (x.float() if x.element_size() < 4 else x for x in map(self.layer, (inputs, self.blank.ids)))
            blank = (blanks * self.blank.weights.unsqueeze(1)).sum(dim=0)
            start = torch.where(held.unsqueeze(-1), end, blank)
            if self.shift is not None:
                end = torch.where(held.unsqueeze(-1), end, end + self.shift[index])
        return Chunk(start=start, end=end, targets=targets, extra=(inputs, held))

    def chunks(self, rows: IntArray | None = None, *, times: int = 1) -> Iterator[tuple[IntArray, Chunk]]:
        """All or some samples in pieces that fit one pass with ``times`` copies of each."""
        wanted = np.arange(len(self)) if rows is None else rows
        size = max(1, self.rows_at_once // times)
        for i in range(0, len(wanted), size):
            piece = wanted[i : i + size]
            yield piece, self.chunk(piece)

    def copies_at_once(self, chunk: Chunk, limit: int) -> int:
        """The number of copies of a chunk, at most ``limit``, that fit one pass."""
        return max(1, min(limit, self.rows_at_once // len(chunk.end)))

    @property
    def points(self) -> Tensor:
        """(n, ...) all points at once."""
        return self.chunk(np.arange(len(self))).end

    @property
    def starts(self) -> Tensor:
        """(n, ...) the start of all paths, at once."""
        return self.chunk(np.arange(len(self))).start

    @property
    def extra(self) -> tuple[Tensor, ...]:
        """The arguments of ``score`` after the targets, for all samples at once."""
        return self.chunk(np.arange(len(self))).extra

    def reduce(self, values: Tensor, rows: IntArray, reduction: Literal["sum", "norm"] = "sum") -> FloatArray:
        """(m, d) of attributions (m, ...) shaped like the points: summed within each unit, or their Euclidean norm.

        Of a gradient, the norm is the largest slope among all directions within the unit.
        """
        flat = values.detach().double().cpu()
        if reduction == "norm":
            flat = flat.square()
        if self.layer is None:
            import torch

            units = torch.from_numpy(self.places)
            out = torch.zeros(len(flat), self.present.shape[1], dtype=torch.float64)
            reduced = out.index_add_(1, units, flat.reshape(len(flat), -1)).numpy()
        else:
            reduced = self.at_units(flat.sum(dim=-1).numpy(), rows)
        return np.sqrt(reduced) if reduction == "norm" else reduced

    def at_units(self, per_token: FloatArray, rows: IntArray) -> FloatArray:
        """(m, d) values of token positions (m, length), by unit."""
        return np.take_along_axis(per_token, self.places[rows], axis=1) * self.present[rows]

    def fine(self, values: Tensor, reduction: Literal["sum", "norm"] = "sum") -> FloatArray | None:
        """(m, height, width) of an image's attributions, over channels; None for anything else."""
        if self.channels is None:
            return None
        exact = values.detach().double().cpu()
        if exact.ndim == 3:
            return exact.abs().numpy() if reduction == "norm" else exact.numpy()
        kept = exact.square().sum(dim=self.channels).sqrt() if reduction == "norm" else exact.sum(dim=self.channels)
        return kept.numpy()

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of an image's points."""
        shape = self.inputs.shape[1:]
        if len(shape) == 2:
            return int(shape[0]), int(shape[1])
        return (int(shape[1]), int(shape[2])) if self.channels == 1 else (int(shape[0]), int(shape[1]))

    def over_channels(self, maps: Tensor) -> Tensor:
        """Points (m, ...) of maps (m, height, width): an equal part for each channel, so that sums are kept."""
        if self.inputs.ndim == 3:
            return maps
        n_channels = int(self.inputs.shape[self.channels or 0])
        wide = maps.unsqueeze(self.channels or 0) / n_channels
        return wide.expand(len(maps), *self.inputs.shape[1:])

    @cached_property
    def ends(self) -> tuple[FloatArray, FloatArray]:
        """(n,) scores of every sample and of the start of its path."""
        import torch

        ends: list[FloatArray] = []
        starts: list[FloatArray] = []
        with differentiating(self.model), torch.no_grad():
            for _, chunk in self.chunks():
                ends.append(self.score(chunk.end, *chunk.arguments).double().cpu().numpy())
                starts.append(self.score(chunk.start, *chunk.arguments).double().cpu().numpy())
        return np.concatenate(ends or [np.empty(0)]), np.concatenate(starts or [np.empty(0)])

    @cached_property
    def flat(self) -> bool:
        """Whether gradients are useless for a varying score: 0 at every sample, at its path's start and between.

        Looked for until one is not 0, which is at the first sample as a rule.
        """
        import torch

        n = len(self)
        with differentiating(self.model):
            for rows in (np.arange(min(n, 1)), np.arange(1, n)):
                for _, chunk in self.chunks(rows):
                    for share in (1.0, 0.5, 0.0):
                        points = torch.lerp(chunk.start, chunk.end, share).detach().requires_grad_()
                        total = self.score(points, *chunk.arguments).sum()
                        # A network may take another way there, on which no gradient reaches the points.
                        found = (
                            torch.autograd.grad(total, points, allow_unused=True)[0] if total.requires_grad else None
                        )
                        if found is not None and found.count_nonzero():
                            return False
        return bool(output_range(*self.ends))

    def with_memory_limit(self, max_memory: int | None) -> Differentiable:
        """The same with ``rows_at_once`` for forward and backward passes within ``max_memory`` bytes.

        Measured: the bytes that one sample's forward pass keeps for its backward pass. Raises NotApplicableError where
        no gradient reaches the points.
        """
        import torch

        if not len(self):
            return self
        with differentiating(self.model):
            chunk = self.chunk(np.arange(1))
            points = chunk.end.detach().clone().requires_grad_()
            kept: dict[int, int] = {}
            weights = {p.untyped_storage().data_ptr() for p in self.model.module.parameters()}

            def keep(tensor: Tensor) -> Tensor:
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in weights:
                    kept[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                score = self.score(points, *chunk.arguments)
            if not score.requires_grad or torch.autograd.grad(score.sum(), points, allow_unused=True)[0] is None:
                raise NotApplicableError(NOT_SMOOTH)
        each = _BACKWARD_FACTOR * max(sum(kept.values()), points.numel() * points.element_size())
        fitting = (max_memory or _BUDGET_BYTES) // each
        if points.device.type == "cpu":
            fitting = min(fitting, _MOST_POINTS, max(_FEWEST_POINTS, _CACHE_BYTES // each))
        return replace(self, rows_at_once=max(1, min(self.rows_at_once, fitting)))


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """(n,) ``log(p_c / (1 - p_c))``: the logit of class c minus the log-sum-exp of the others; (n, k) and (n,) in.

    Not the raw logit, because logits are defined up to a common shift only: with one output the logit of the other
    class would be constant. For two classes it is the difference of the logits.
    """
    import torch

    chosen = logits.gather(1, classes.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, classes.unsqueeze(1), -torch.inf)
    return chosen - others.logsumexp(dim=1)


def scored(
    model: DifferentiableModel, inputs: Callable[[slice], Tensor], targets: Tensor, n: int, at_once: int
) -> FloatArray:
    """(n,) log-odds in batches without gradients; ``inputs(part)`` makes the encoded input of a part."""
    out = np.empty(n)
    with differentiating(model), without_gradients():
        for i in range(0, n, at_once):
            part = slice(i, min(i + at_once, n))
            out[part] = log_odds(model.logits(inputs(part)), targets[part]).double().cpu().numpy()
    return out


Baseline = Literal["auto", "mean", "zero", "uniform", "blur", "pad", "mask"]
UnitKind = Literal["feature", "word", "token", "patch"]
Scale = Literal["log-odds", "probability", "log-probability"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Units:
    """The d units of each of n samples, and the explained score f with any of them removed.

    A unit is a raw feature of a table, a word or token of a text, a patch of an image. Where samples have different
    numbers of them, ``d`` is the largest and ``present`` (n, d) says which are there; the others are never graded.

    ``score(rows, keep)``: (m,) score of samples ``rows`` (m,) in which the units that ``keep`` (m, d) does not keep are
    replaced by the infill; float64, in batches inside, no gradients. ``names[i]``: names of sample i's units (all the
    same tuple for tables). ``infill``: in words, what stands where a unit was. ``in_distribution``: whether the infill
    is drawn from, or is a value of, the data's own distribution (an observed row's value, a mask token that the model
    was trained with), rather than a blank. ``output``: what f is, in words, such as "the log-odds of 'yes'"; ``scale``:
    what makes a probability of it. ``of_prompts``: whether samples are prompts of a language model.
    """

    kind: UnitKind
    present: BoolArray
    names: tuple[tuple[str, ...], ...]
    score: Callable[[IntArray, BoolArray], FloatArray]
    infill: str
    in_distribution: bool
    output: str
    scale: Scale = "log-odds"
    of_prompts: bool = False

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.present)

    @property
    def d(self) -> int:
        """Largest number of units of a sample."""
        return int(self.present.shape[1])


@dataclass(frozen=True, eq=False, kw_only=True)
class Posed:
    """A task for one model: its units, and the differentiable side or the reason for its absence."""

    units: Units
    differentiable: Differentiable | None
    why_not: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """A task in the form for any model of one kind, already sampled and encoded."""

    put: Callable[[AuditedModel], Posed]
    notes: tuple[str, ...] = ()
