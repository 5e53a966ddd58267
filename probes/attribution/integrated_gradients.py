"""Integrated gradients, by captum: what to explain, from which baseline, along which path, within bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from auditor.arrays import FloatArray, IntArray
from auditor.errors import NotApplicableError
from probes.attribution.explained import Attributions, completeness_errors, output_range, score_name
from probes.inputs import as_frame, differentiating, rows_at_once

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.data import AuditData
    from auditor.model import AuditedModel, DifferentiableModel

Baseline = Literal["auto", "mean", "zero", "blur", "pad"]
# Half of what the built-in profile allows, so that the error left over by the steps alone does not decide a judgement.
STEP_TOLERANCE = 0.005
PADDING = "(padding)"


@dataclass(frozen=True, eq=False, kw_only=True)
class _Path:
    """What integrated gradients run along, for some rows: from ``start`` to ``end``, both (n, ...).

    ``score(points, classes, *extra)``: (n,) the explained score at points of the path. ``extra``: tensors (n, ...) that
    the score needs beside them.
    """

    start: Tensor
    end: Tensor
    classes: Tensor
    extra: tuple[Tensor, ...]
    score: Callable[..., Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Plan:
    """How to explain any of the rows: ``path`` of positions, ``reduce`` from (m, ...) attributions to (m, n_units)."""

    n: int
    rows_at_once: int
    path: Callable[[IntArray], _Path]
    reduce: Callable[[Tensor, IntArray], FloatArray]
    units: tuple[str, ...]
    baseline: str


def integrated_gradients(
    model: AuditedModel,
    differentiable: DifferentiableModel,
    sample: AuditData,
    background: AuditData,
    classes: IntArray,
    *,
    n_steps: int,
    max_steps: int,
    baseline: Baseline,
) -> Attributions:
    """Integrated gradients of the log-odds ``log(p_c / (1 - p_c))`` of ``classes`` (n,), with Gauss-Legendre steps.

    ``a_i = (x_i - b_i) * integral over t in [0, 1] of df/dx_i(b + t (x - b))``, over encoded inputs, an embedding
    layer's output, or pixels, then summed to units. Samples whose completeness error exceeds ``STEP_TOLERANCE`` are
    integrated again with twice the steps, up to ``max_steps``. ``background``: the rows whose mean is the tabular
    baseline.

    Log-odds and not the raw logit, because logits are defined up to a common shift only: with one output the logit of
    the other class would be constant. For two classes they are the difference of the logits.
    """
    import torch

    with differentiating(differentiable):
        with torch.no_grad():
            plan = _plan(model, differentiable, sample, background, classes, baseline)
            outputs, base = _ends(plan)
        values = np.zeros((plan.n, max(len(plan.units), 1)))
        steps = np.zeros(plan.n, np.int64)
        if output_range(outputs, base):
            _check_gradient(plan)
            steps[:] = n_steps
            values = _integrate(plan, np.arange(plan.n), n_steps)
            while True:
                errors = completeness_errors(values.sum(axis=1), outputs, base)
                again = np.flatnonzero((errors > STEP_TOLERANCE) & (steps < max_steps))
                if not again.size:
                    break
                count = min(2 * int(steps[again].max()), max_steps)
                values[again] = _integrate(plan, again, count)
                steps[again] = count
    used = [f"{n} steps for {int((steps == n).sum())} samples" for n in np.unique(steps).tolist() if n]
    return Attributions(
        method="integrated_gradients",
        values=values,
        outputs=outputs,
        baseline=base,
        units=plan.units,
        detail="; ".join([score_name("log-odds", sample), f"baseline: {plan.baseline}", *used]),
    )


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """(n,) ``log(p_c / (1 - p_c))``: the logit of class c minus the log-sum-exp of the others; (n, k) and (n,) in."""
    import torch

    chosen = logits.gather(1, classes.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, classes.unsqueeze(1), -torch.inf)
    return chosen - others.logsumexp(dim=1)


def _plan(
    model: AuditedModel,
    differentiable: DifferentiableModel,
    sample: AuditData,
    background: AuditData,
    classes: IntArray,
    baseline: Baseline,
) -> _Plan:
    import torch

    inputs = differentiable.encode(sample.X)
    targets = torch.from_numpy(classes).to(inputs.device)
    if not inputs.is_floating_point():
        return _embedding_plan(model, differentiable, inputs, targets, baseline)
    kind = sample.modality
    start, words = _start(differentiable, inputs, background, kind, baseline)

    def score(points: Tensor, chosen: Tensor) -> Tensor:
        return log_odds(differentiable.logits(points), chosen)

    def path(rows: IntArray) -> _Path:
        index = torch.from_numpy(rows).to(inputs.device)
        begin = start[index] if len(start) == len(inputs) else start.expand(len(rows), *start.shape[1:])
        return _Path(start=begin, end=inputs[index], classes=targets[index], extra=(), score=score)

    names, spans = _columns(model, sample, inputs) if kind == "tabular" else ((), ())

    def reduce(values: Tensor, rows: IntArray) -> FloatArray:
        flat = values.detach().double().cpu().numpy().reshape(len(rows), -1)
        return np.stack([flat[:, s].sum(axis=1) for s in spans or (slice(None),)], axis=1)

    return _Plan(
        n=len(inputs), rows_at_once=rows_at_once(inputs), path=path, reduce=reduce, units=names, baseline=words
    )


def _columns(model: AuditedModel, sample: AuditData, inputs: Tensor) -> tuple[tuple[str, ...], tuple[slice, ...]]:
    """Names of the raw features, and the encoded columns that each became."""
    from auditor.preprocessing import TabularPreprocessing

    if isinstance(model.preprocessing, TabularPreprocessing):
        return model.preprocessing.features, model.preprocessing.spans
    names = tuple(str(c) for c in as_frame(sample.X, model.features).columns)
    if inputs.ndim != 2 or inputs.shape[1] != len(names):
        raise NotApplicableError(
            f"The model encodes {len(names)} columns as a tensor {tuple(inputs.shape)}, and nothing says which became "
            "which: save it as a bundle that carries its preprocessing, or ask for methods = shap_permutation."
        )
    return names, tuple(slice(i, i + 1) for i in range(len(names)))


def _start(
    differentiable: DifferentiableModel, inputs: Tensor, background: AuditData, kind: str, baseline: Baseline
) -> tuple[Tensor, str]:
    """The baseline of floating-point inputs, (1, ...) or (n, ...), and what it is in words."""
    import torch

    chosen = {"tabular": "mean", "image": "blur"}.get(kind, "zero") if baseline == "auto" else baseline
    if chosen == "zero":
        return torch.zeros_like(inputs[:1]), "zeros in the model's encoding"
    if chosen == "mean" and kind == "tabular":
        encoded = differentiable.encode(background.X)
        whose = "training" if background.is_member is not None and background.is_member.all() else "evaluation"
        return encoded.mean(dim=0, keepdim=True), f"the mean of {len(encoded):,} encoded {whose} rows"
    if chosen == "mean":
        return inputs.mean(dim=0, keepdim=True), "the mean of the samples"
    if chosen == "blur" and kind == "image":
        return _blurred(inputs), "each image, blurred by a tenth of its size"
    others = "mean, zero or blur" if kind == "image" else "mean or zero"
    raise NotApplicableError(f"The baseline {chosen!r} is not for {kind} inputs: use {others}.")


def _blurred(images: Tensor) -> Tensor:
    import torch
    from scipy.ndimage import gaussian_filter

    height, width = images.shape[-2:]
    blurred = gaussian_filter(images.cpu().numpy(), sigma=(0.0, 0.0, height / 10.0, width / 10.0), mode="nearest")
    return torch.from_numpy(np.ascontiguousarray(blurred, np.float32)).to(images)


def _embedding_plan(
    model: AuditedModel, differentiable: DifferentiableModel, ids: Tensor, targets: Tensor, baseline: Baseline
) -> _Plan:
    """Integration in the output of the embedding layer that the token ids (n, length) go into, all else held fixed.

    The start of the path is the padding's embedding, or the mean embedding of the samples' tokens, under the sample's
    own mask: masks follow from the ids, which stay. Padding itself stays where it is, so that nothing rests on it.
    """
    import torch

    if baseline not in ("auto", "pad", "mean"):
        raise NotApplicableError(f"The baseline {baseline!r} is not for token ids: use pad or mean.")
    layer = _embedding_of(differentiable, ids[:2])
    pad = _padding_of(differentiable, layer)
    words = f"the embedding of the padding token {pad} in every position"
    blank = layer(torch.tensor([pad], device=ids.device))
    # A network that normalises its input jumps at zeros, and the path would begin on the jump.
    if baseline == "mean" or (baseline == "auto" and not blank.any()):
        words = "the mean embedding of the samples' tokens in every position"
        found, counts = torch.unique(ids[ids != pad], return_counts=True)
        blank = (layer(found) * counts.unsqueeze(1) / counts.sum()).sum(dim=0, keepdim=True)

    def score(points: Tensor, chosen: Tensor, tokens: Tensor) -> Tensor:
        hook = layer.register_forward_hook(lambda module, args, output: points)
        try:
            return log_odds(differentiable.logits(tokens), chosen)
        finally:
            hook.remove()

    def path(rows: IntArray) -> _Path:
        index = torch.from_numpy(rows).to(ids.device)
        with torch.no_grad():
            end = layer(ids[index])
            start = torch.where((ids[index] == pad).unsqueeze(-1), end, blank)
        return _Path(start=start, end=end, classes=targets[index], extra=(ids[index],), score=score)

    tokens = ids.cpu().numpy()
    kept, place = np.unique(tokens, return_inverse=True)
    place = place.reshape(tokens.shape)

    def reduce(values: Tensor, rows: IntArray) -> FloatArray:
        per_token = values.detach().double().sum(dim=-1).cpu().numpy()
        out = np.zeros((len(rows), kept.size))
        np.add.at(out, (np.arange(len(rows))[:, None], place[rows]), per_token)
        return out

    at_once = rows_at_once(layer(ids[:1]))
    return _Plan(
        n=len(ids),
        rows_at_once=at_once,
        path=path,
        reduce=reduce,
        units=_token_names(model, kept, pad),
        baseline=words,
    )


def _embedding_of(differentiable: DifferentiableModel, ids: Tensor) -> nn.Embedding:
    """The embedding layer that is called with the token ids themselves, found by watching one pass."""
    import torch
    from torch import nn

    found: list[nn.Embedding] = []

    def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding) and args and isinstance(args[0], torch.Tensor):
            if args[0].shape == ids.shape and bool((args[0] == ids).all()):
                found.append(module)

    hooks = [m.register_forward_pre_hook(watch) for m in differentiable.module.modules() if isinstance(m, nn.Embedding)]
    try:
        differentiable.logits(ids)
    finally:
        for hook in hooks:
            hook.remove()
    if len(found) != 1:
        raise NotApplicableError(
            f"Integrated gradients need inputs that can be differentiated, and these are whole numbers of which "
            f"{'no' if not found else 'more than one'} embedding layer (torch.nn.Embedding) makes vectors. "
            "For a table, encode the columns as floating-point numbers, or ask for methods = shap_permutation."
        )
    return found[0]


def _padding_of(differentiable: DifferentiableModel, layer: nn.Embedding) -> int:
    """The padding's token id: what the module or its embedding calls so, else 0."""
    for own in (getattr(differentiable.module, "pad", None), layer.padding_idx):
        if isinstance(own, int):
            return own
    return 0


def _token_names(model: AuditedModel, ids: IntArray, pad: int) -> tuple[str, ...]:
    """Each token id as a word, where the model says what its ids mean; padding and unknown words in brackets.

    A model with a tokenizer of its own says so by an attribute ``token_name``, a function of an id.
    """
    from auditor.preprocessing import TextPreprocessing

    names: dict[int, str] = {}
    if isinstance(model.preprocessing, TextPreprocessing):
        names = {index: word for word, index in model.preprocessing.vocabulary.items()}
        if model.preprocessing.unknown is not None:
            names[model.preprocessing.unknown] = "(unknown)"
    elif (token_name := getattr(model, "token_name", None)) is not None:
        names = {i: str(token_name(i)) for i in ids.tolist()}
    names[pad] = PADDING
    return tuple(names.get(i, f"token {i}") for i in ids.tolist())


def _chunks(rows: IntArray, size: int) -> Iterator[IntArray]:
    for i in range(0, len(rows), size):
        yield rows[i : i + size]


def _ends(plan: _Plan) -> tuple[FloatArray, FloatArray]:
    """(n,) score of every sample and of its baseline."""
    ends: list[FloatArray] = []
    starts: list[FloatArray] = []
    for rows in _chunks(np.arange(plan.n), plan.rows_at_once):
        path = plan.path(rows)
        for points, into in ((path.end, ends), (path.start, starts)):
            into.append(path.score(points, path.classes, *path.extra).double().cpu().numpy())
    return np.concatenate(ends), np.concatenate(starts)


def _check_gradient(plan: _Plan) -> None:
    """Raises NotApplicableError where no gradient reaches the inputs."""
    import torch

    path = plan.path(np.arange(1))
    points = path.end.detach().clone().requires_grad_()
    score = path.score(points, path.classes, *path.extra)
    if not score.requires_grad or torch.autograd.grad(score.sum(), points, allow_unused=True)[0] is None:
        raise NotApplicableError(
            "The model's output does not depend on its input by operations that can be differentiated (it rounds, "
            "compares or detaches): ask for methods = shap_permutation, which needs predictions only."
        )


def _integrate(plan: _Plan, rows: IntArray, n_steps: int) -> FloatArray:
    """(m, n_units) integrated gradients of some rows."""
    from captum.attr import IntegratedGradients

    parts = []
    for chunk in _chunks(rows, plan.rows_at_once):
        path = plan.path(chunk)
        values = IntegratedGradients(path.score).attribute(
            path.end.detach(),
            baselines=path.start.detach(),
            additional_forward_args=(path.classes, *path.extra),
            n_steps=n_steps,
            method="gausslegendre",
            internal_batch_size=plan.rows_at_once,
        )
        parts.append(plan.reduce(values, chunk))
    return np.concatenate(parts)
