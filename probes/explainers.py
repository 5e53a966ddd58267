"""Attribution methods: which input moved one score of a model by how much, row by row.

Integrated gradients are captum's, Shapley values shap's; this module chooses what to explain, from which baseline and
along which path, keeps the memory bounded, and brings every method's answer into one form.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from auditor.errors import NotApplicableError
from auditor.preprocessing import ImagePreprocessing, TabularPreprocessing, TextPreprocessing
from auditor.randomness import seeded_globals
from auditor.statistics import FloatArray, IntArray
from probes.inputs import as_frame, differentiating, modality, rows_at_once

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from auditor.data import AuditData
    from auditor.model import AuditedModel, DifferentiableModel

Baseline = Literal["auto", "mean", "zero", "blur", "pad"]
# Half of what the built-in profile allows, so that the error left over by the steps alone does not decide a judgement.
STEP_TOLERANCE = 0.005
# An output that varies by less than rounding in float32 can produce is constant.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class Attributions:
    """Signed contributions of each unit to the explained score of each sample.

    values: (n, n_units), units being raw features, or words, or the whole image. outputs: (n,) the score of each sample;
    baseline: (n,) the score that its attributions start from, so that completeness reads
    ``values.sum(1) = outputs - baseline``. ``units``: their names, empty where they have none.
    """

    method: str
    values: FloatArray
    outputs: FloatArray
    baseline: FloatArray
    units: tuple[str, ...]
    detail: str

    @property
    def output_range(self) -> float:
        """Largest minus smallest score over samples and baselines; 0 where it does not exceed rounding."""
        return output_range(self.outputs, self.baseline)

    @property
    def errors(self) -> FloatArray:
        """(n,) ``|sum of attributions - (output - baseline)| / output_range``; NaN where the range is 0."""
        return completeness_errors(self.values.sum(axis=1), self.outputs, self.baseline)


def output_range(outputs: FloatArray, baseline: FloatArray) -> float:
    """Largest minus smallest score over samples and baselines; 0 where it does not exceed rounding."""
    scores = np.concatenate([outputs, baseline])
    if not scores.size:
        return 0.0
    width = float(np.ptp(scores))
    return width if width > _ROUNDING * max(1.0, float(np.abs(scores).max())) else 0.0


def completeness_errors(sums: FloatArray, outputs: FloatArray, baseline: FloatArray) -> FloatArray:
    """(n,) ``|sum of attributions - (output - baseline)| / output_range``; NaN where the range is 0."""
    width = output_range(outputs, baseline)
    return np.abs(sums - (outputs - baseline)) / width if width else np.full(len(outputs), np.nan)


# ---- integrated gradients ------------------------------------------------------------------------------------------


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

    ``a_i = (x_i - b_i) * integral over t in [0, 1] of df/dx_i(b + t (x - b))``, over encoded inputs, an embedding layer's
    output, or pixels, then summed to units. Samples whose completeness error exceeds ``STEP_TOLERANCE`` are integrated
    again with twice the steps, up to ``max_steps``. ``background``: the rows whose mean is the tabular baseline.

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
        detail="; ".join([_score_name("log-odds", sample), f"baseline: {plan.baseline}", *used]),
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
    kind = modality(sample.X)
    start, words = _start(model, differentiable, inputs, background, kind, baseline)

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
    if isinstance(model.preprocessing, TabularPreprocessing):
        return model.preprocessing.features, model.preprocessing.spans
    names = tuple(str(c) for c in as_frame(sample.X, model.features).columns)
    if inputs.ndim != 2 or inputs.shape[1] != len(names):
        raise NotApplicableError(
            f"The model encodes {len(names)} columns as a tensor {tuple(inputs.shape)}, and nothing says which became which: "
            "save it as a bundle that carries its preprocessing, or ask for methods = shap_permutation."
        )
    return names, tuple(slice(i, i + 1) for i in range(len(names)))


def _start(
    model: AuditedModel,
    differentiable: DifferentiableModel,
    inputs: Tensor,
    background: AuditData,
    kind: str,
    baseline: Baseline,
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
    raise NotApplicableError(f"The baseline {chosen!r} is not for {kind} inputs: use mean or zero{', or blur' * (kind == 'image')}.")


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

    The start of the path is the padding's embedding under the sample's own mask: masks follow from the ids, which stay.
    """
    import torch

    if baseline not in ("auto", "pad"):
        raise NotApplicableError(f"The baseline {baseline!r} is not for token ids: use pad.")
    layer = _embedding_of(differentiable, ids)
    pad = layer.padding_idx if layer.padding_idx is not None else 0

    def score(points: Tensor, chosen: Tensor, tokens: Tensor) -> Tensor:
        hook = layer.register_forward_hook(lambda module, args, output: points)
        try:
            return log_odds(differentiable.logits(tokens), chosen)
        finally:
            hook.remove()

    def path(rows: IntArray) -> _Path:
        index = torch.from_numpy(rows).to(ids.device)
        with torch.no_grad():
            end, start = layer(ids[index]), layer(torch.full_like(ids[index], pad))
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
        baseline=f"the embedding of the padding token {pad} in every position",
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


def _token_names(model: AuditedModel, ids: IntArray, pad: int) -> tuple[str, ...]:
    """Each token id as a word, where the model says what its ids mean; padding and unknown words in brackets."""
    names: dict[int, str] = {}
    if isinstance(model.preprocessing, TextPreprocessing):
        names = {index: word for word, index in model.preprocessing.vocabulary.items()}
        if model.preprocessing.unknown is not None:
            names[model.preprocessing.unknown] = "(unknown)"
    elif (tokenizer := getattr(model, "tokenizer", None)) is not None:
        names = dict(zip(ids.tolist(), map(str, tokenizer.convert_ids_to_tokens(ids.tolist())), strict=True))
    names[pad] = "(padding)"
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
            "The model's output does not depend on its input by operations that can be differentiated (it rounds, compares "
            "or detaches): ask for methods = shap_permutation, which needs predictions only."
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


# ---- Shapley values ------------------------------------------------------------------------------------------------


def _shap() -> Any:
    """The shap package, without what it says about matplotlib on import, which it draws with and we do not use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The set_bad function", category=PendingDeprecationWarning)
        import shap
    return shap


@dataclass(frozen=True, eq=False, kw_only=True)
class Final:
    """A scikit-learn estimator at the end of steps that keep columns apart, and numeric rows as it takes them."""

    estimator: Any
    sample: npt.NDArray[Any]
    background: npt.NDArray[Any]


def final_estimator(model: AuditedModel, sample: AuditData, background: AuditData) -> Final | None:
    """The model's own estimator with rows brought before it; None where columns are mixed, text, or missing.

    ``model.estimator`` is what a loader found in the file; steps before the last are passed through where each keeps
    one column one column (scalers do, encoders do not), so that attributions still belong to raw features.
    """
    estimator = getattr(model, "estimator", None)
    if estimator is None or modality(sample.X) != "tabular":
        return None
    from sklearn.base import OneToOneFeatureMixin
    from sklearn.pipeline import Pipeline

    from auditor.data import label_name

    rows: list[Any] = [sample.X, background.X]
    if isinstance(estimator, Pipeline):
        steps, estimator = [s for _, s in estimator.steps[:-1] if s != "passthrough"], estimator.steps[-1][1]
        if not all(isinstance(step, OneToOneFeatureMixin) for step in steps):
            return None
        if any(kind not in "biuf" for kind in _dtype_kinds(sample.X)):
            return None
        for step in steps:
            rows = [step.transform(x) for x in rows]
    if any(kind not in "biuf" for x in rows for kind in _dtype_kinds(x)):
        return None
    if tuple(label_name(c) for c in getattr(estimator, "classes_", ())) != model.classes:
        return None
    numbers = [np.asarray(x, np.float64) for x in rows]
    if not all(np.isfinite(x).all() for x in numbers):
        return None
    return Final(estimator=estimator, sample=rows[0], background=rows[1])


def _dtype_kinds(X: Any) -> set[str]:
    """Kinds of the columns' types; a sparse matrix is no table of numbers to look at."""
    if hasattr(X, "dtypes"):
        return {t.kind for t in X.dtypes}
    return {X.dtype.kind} if isinstance(X, np.ndarray) else {"O"}


def is_linear(final: Final) -> bool:
    """Whether the estimator's score is linear in its columns."""
    from sklearn.linear_model import LogisticRegression

    return isinstance(final.estimator, LogisticRegression)


def is_tree(final: Final) -> bool:
    """Whether shap knows the estimator's trees: forests of any number of classes, boosted trees of two."""
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.tree import DecisionTreeClassifier

    if isinstance(final.estimator, (DecisionTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)):
        return True
    boosted = isinstance(final.estimator, (GradientBoostingClassifier, HistGradientBoostingClassifier))
    return boosted and len(final.estimator.classes_) == 2


def shap_linear(final: Final, sample: AuditData, classes: IntArray, names: tuple[str, ...]) -> Attributions:
    """Exact Shapley values of a linear score, ``w_i (x_i - mean_i)``, with the background's means."""
    shap = _shap()
    masker = shap.maskers.Independent(np.asarray(final.background, np.float64), max_samples=len(final.background))
    explainer = shap.LinearExplainer(final.estimator, masker)
    values = explainer.shap_values(np.asarray(final.sample, np.float64))
    scores, base = (final.estimator.decision_function(x) for x in (final.sample, final.background))
    return _shapley(
        "shap_linear", _per_class(values), _two_sided(scores), _two_sided(base), classes, names, sample, "log-odds",
        len(final.background),
    )


def shap_tree(final: Final, sample: AuditData, classes: IntArray, names: tuple[str, ...]) -> Attributions:
    """Exact interventional Shapley values of trees: of the probability for forests, of the log-odds for boosted trees."""
    shap = _shap()
    explainer = shap.TreeExplainer(
        final.estimator,
        data=np.asarray(final.background, np.float64),
        feature_perturbation="interventional",
        model_output="raw",
    )
    values = explainer.shap_values(np.asarray(final.sample, np.float64), check_additivity=False)
    boosted = hasattr(final.estimator, "decision_function")
    function = final.estimator.decision_function if boosted else final.estimator.predict_proba
    scores, base = function(final.sample), function(final.background)
    return _shapley(
        "shap_tree", _per_class(values), _two_sided(scores), _two_sided(base), classes, names, sample,
        "log-odds" if boosted else "probability", len(final.background),
    )


def shap_permutation(
    model: AuditedModel,
    sample: AuditData,
    background: AuditData,
    classes: IntArray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
) -> Attributions:
    """Shapley values of the probability by sampled permutations, for anything that predicts from a table.

    Each permutation is walked forwards and backwards, ``2 d + 1`` predictions a background row, exact for interactions of
    two features; the sum of the attributions is exact for any number of permutations. shap computes with numbers and
    calls two values the same where they nearly are, so every column is given to it as codes of its distinct values.
    """
    shap = _shap()
    if modality(sample.X) != "tabular":
        raise NotApplicableError(
            "A model that only predicts can be explained on tables; for texts and images give one that can be "
            "differentiated: a model bundle or a Hugging Face folder."
        )
    coded = _Coded.of(model, sample, background)
    seed = int(rng.integers(2**32))
    with seeded_globals(rng):
        explainer = shap.PermutationExplainer(
            lambda codes: model.predict_proba(coded.decode(codes)),
            shap.maskers.Independent(coded.background, max_samples=len(coded.background)),
            seed=seed,
        )
        # A row that differs from the background in fewer columns gets more permutations for the same number of calls.
        evaluations = n_permutations * (2 * coded.sample.shape[1] + 1)
        explained = explainer(coded.sample, max_evals=evaluations, silent=True)
    return _shapley(
        "shap_permutation",
        np.asarray(explained.values, np.float64),
        model.predict_proba(sample.X),
        model.predict_proba(background.X),
        classes,
        coded.names,
        sample,
        "probability",
        len(background),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Coded:
    """A table as codes of each column's distinct values, and the way back. sample, background: (n, d) float codes."""

    names: tuple[str, ...]
    sample: FloatArray
    background: FloatArray
    levels: tuple[pd.Series[Any], ...]
    template: pd.DataFrame | None
    dtype: npt.DTypeLike

    @classmethod
    def of(cls, model: AuditedModel, sample: AuditData, background: AuditData) -> _Coded:
        """Codes over the values of both."""
        import pandas as pd

        frames = [as_frame(part.X, model.features) for part in (sample, background)]
        both = pd.concat(frames, ignore_index=True)
        codes, levels = [], []
        for i in range(both.shape[1]):
            column = both.iloc[:, i]
            first = ~column.duplicated()
            levels.append(column[first].reset_index(drop=True))
            place, _ = pd.factorize(column, use_na_sentinel=False)
            codes.append(place)
        table = np.stack(codes, axis=1).astype(np.float64) if codes else np.empty((len(both), 0))
        is_frame = isinstance(sample.X, pd.DataFrame)
        return cls(
            names=tuple(str(c) for c in both.columns),
            sample=table[: len(sample)],
            background=table[len(sample) :],
            levels=tuple(levels),
            template=both.iloc[:0] if is_frame else None,
            dtype=None if is_frame else cast(npt.NDArray[Any], sample.X).dtype,
        )

    def decode(self, codes: FloatArray) -> pd.DataFrame | npt.NDArray[Any]:
        """The rows (m, d) that codes stand for, typed as the model knows them."""
        import pandas as pd

        places = codes.astype(np.int64)
        columns = [
            level.array.take(places[:, i])  # type: ignore[no-untyped-call,unused-ignore]
            for i, level in enumerate(self.levels)
        ]
        if self.template is None:
            return np.stack([np.asarray(c) for c in columns], axis=1).astype(self.dtype)
        frame = pd.DataFrame(dict(enumerate(columns)))
        frame.columns = self.template.columns
        return frame


def _per_class(values: npt.ArrayLike) -> FloatArray:
    """(n, d, k) from shap's (n, d), which speaks of the last of two classes, or (n, d, k)."""
    a = np.asarray(values, np.float64)
    return np.stack([-a, a], axis=2) if a.ndim == 2 else a


def _two_sided(scores: npt.ArrayLike) -> FloatArray:
    """(n, k) from (n,), which speaks of the last of two classes, or (n, k)."""
    a = np.asarray(scores, np.float64)
    return np.stack([-a, a], axis=1) if a.ndim == 1 else a


def _shapley(
    method: str,
    values: FloatArray,
    scores: FloatArray,
    background_scores: FloatArray,
    classes: IntArray,
    names: tuple[str, ...],
    sample: AuditData,
    score: str,
    n_background: int,
) -> Attributions:
    rows = np.arange(len(classes))
    return Attributions(
        method=method,
        values=values[rows, :, classes],
        outputs=scores[rows, classes],
        baseline=background_scores.mean(axis=0)[classes],
        units=names,
        detail=f"{_score_name(score, sample)}; baseline: the mean over {n_background} background rows",
    )


def _score_name(score: str, sample: AuditData) -> str:
    of: Sequence[str] = sample.classes
    which = f"{of[sample.positive]!r}" if sample.positive is not None and of else "the class decided on"
    return f"explains the {score} of {which}"


def feature_names(model: AuditedModel, sample: AuditData) -> tuple[str, ...]:
    """Names of the raw features of a table, in the order the model is given them; empty for texts and images."""
    if modality(sample.X) != "tabular":
        return ()
    if isinstance(model.preprocessing, TabularPreprocessing):
        return model.preprocessing.features
    return tuple(str(c) for c in as_frame(sample.X, model.features).columns)


__all__ = [
    "Attributions",
    "Baseline",
    "Final",
    "ImagePreprocessing",
]
