"""The task of every attribution method: the score, the samples, the units and the baseline."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from probes.attribution.attribution_units import (
    ONLY_PREDICTS,
    Baseline,
    Blank,
    Differentiable,
    Posed,
    Question,
    Scale,
    UnitKind,
    Units,
    score_name,
    scored,
)
from probes.attribution.table_units import raw_scores
from probes.probe_inputs import differentiable, differentiating, draw, rows_at_once

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import DifferentiableModel


_MASK = re.compile(r"[<\[]mask[>\]]", re.IGNORECASE)
_TEXTS_AT_ONCE = 1024


def text_question(
    model: AuditedModel, sample: AuditData, classes: IntArray, baseline: Baseline, max_memory: int | None
) -> Question:
    """The text task: on embedded tokens if the model is differentiable, else on removed words."""
    import torch

    own = differentiable(model)
    if own is None:
        return Question(put=lambda other: _raw(other, sample, classes, ONLY_PREDICTS))
    if baseline not in ("auto", "pad", "mean", "mask"):
        raise NotApplicableError(f"The baseline {baseline!r} is not for texts: use pad, mask or mean.")
    with torch.no_grad():
        ids = own.encode(sample.X)
    if ids.is_floating_point() or ids.ndim != 2:
        why = (
            "The model's encoding turns a text into numbers without positions, so no gradient belongs to a word: "
            "occlusion, kernel_shap, lime and shap_permutation need predictions only."
        )
        return Question(put=lambda other: _raw(other, sample, classes, why))
    with differentiating(own), torch.no_grad():
        layer, why = _layer(own, ids)
        text = _Text.from_sample(model, own, sample, ids, layer)
        blank, words = _blank(text, ids, layer, baseline) if layer is not None else (None, "")
    side = None
    if layer is not None:
        side = Differentiable(
            model=own,
            inputs=ids,
            targets=torch.from_numpy(classes).to(ids.device),
            begin=None,
            blank=blank,
            layer=layer,
            held=torch.from_numpy(text.held).to(ids.device),
            places=text.places,
            present=text.present,
            channels=None,
            baseline=words,
            rows_at_once=rows_at_once(layer(ids[:1]).detach()),
        )
        try:
            side = side.with_memory_limit(max_memory)
        except NotApplicableError as error:
            side, why = None, str(error)
    at_once = side.rows_at_once if side is not None else rows_at_once(ids)
    targets = torch.from_numpy(classes).to(ids.device)
    return Question(
        put=lambda other: _encoded(other, text, side, ids, targets, at_once, sample, why),
        notes=_truncation_notes(own, sample, text),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Text:
    """What is known of n texts as token ids (n, length): ``places`` and ``present`` (n, d) of their units.

    held: (n, length) padding and what the tokenizer puts around a text. pad, mask: token ids, ``mask`` None where
    there is none. left: padding stands before the text. names: of each text's units, with "" where there is none.
    """

    tokens: IntArray
    held: BoolArray
    places: IntArray
    present: BoolArray
    pad: int
    mask: int | None
    left: bool
    kind: UnitKind
    names: tuple[tuple[str, ...], ...]

    @classmethod
    def from_sample(
        cls,
        model: AuditedModel,
        differentiable_model: DifferentiableModel,
        sample: AuditData,
        ids: Tensor,
        layer: nn.Embedding | None,
    ) -> _Text:
        from auditor.data.preprocessing import TextPreprocessing

        tokens = ids.cpu().numpy()
        pad = _padding(differentiable_model, layer)
        held = (tokens == pad) | _around(differentiable_model, tokens, pad)
        width = max(int((~held).sum(axis=1).max(initial=0)), 1)
        # Units first, in their order; the rest of the row is filled up with positions that are not present.
        places = np.argsort(held, axis=1, kind="stable")[:, :width]
        present = ~np.take_along_axis(held, places, axis=1)
        read = _reader(model, pad)
        found = np.take_along_axis(tokens, places, axis=1)
        named = {i: read(i) for i in np.unique(found[present]).tolist()}
        names = tuple(
            tuple(named[i] if there else "" for i, there in zip(row, mask, strict=True))
            for row, mask in zip(found.tolist(), present.tolist(), strict=True)
        )
        words = isinstance(model.preprocessing, TextPreprocessing)
        return cls(
            tokens=tokens,
            held=held,
            places=places,
            present=present,
            pad=pad,
            mask=_mask_token(model, layer),
            left=_is_left(model, differentiable_model, tokens, pad),
            kind="word" if words else "token",
            names=names,
        )

    def remove_units(self, rows: IntArray, keep: BoolArray) -> IntArray:
        """(m, length) the tokens of texts ``rows`` in which only the units that ``keep`` keeps are left."""
        tokens = self.tokens[rows].copy()
        removed = np.zeros(tokens.shape, bool)
        at, unit = np.nonzero(~keep & self.present[rows])
        removed[at, self.places[rows[at], unit]] = True
        if self.mask is not None:
            tokens[removed] = self.mask
            return tokens
        stays = ~removed
        moved = np.full(tokens.shape, self.pad, np.int64)
        order = np.cumsum(stays, axis=1) - 1
        if self.left:
            order += (tokens.shape[1] - stays.sum(axis=1))[:, None]
        row, column = np.nonzero(stays)
        moved[row, order[row, column]] = tokens[row, column]
        return moved


def _around(differentiable_model: DifferentiableModel, tokens: IntArray, pad: int) -> BoolArray:
    """(n, length) the positions that a tokenizer fills around any text: what it makes of an empty one."""
    try:
        around = differentiable_model.encode(np.asarray([""], object)).cpu().numpy().ravel()
    except (KeyError, IndexError, ValueError):
        # An encoder that cannot read an empty text puts nothing around one.
        return np.zeros(tokens.shape, bool)
    # What stands around any text stands in every text; an encoder that makes words out of nothing has no such.
    ids = [i for i in np.unique(around).tolist() if i != pad and (tokens == i).any(axis=1).all()]
    return np.isin(tokens, ids)


def _encoded(
    model: AuditedModel,
    text: _Text,
    side: Differentiable | None,
    ids: Tensor,
    targets: Tensor,
    at_once: int,
    sample: AuditData,
    reason: str,
) -> Posed:
    import torch

    own = differentiable(model)
    assert own is not None

    def score(rows: IntArray, keep: BoolArray) -> FloatArray:
        rows = np.asarray(rows, np.int64)

        def inputs(part: slice) -> Tensor:
            return torch.from_numpy(text.remove_units(rows[part], keep[part])).to(ids.device)

        return scored(own, inputs, targets[torch.from_numpy(rows).to(ids.device)], len(rows), at_once)

    masked = "the mask token, which such models are trained to see in place of a word"
    closed = "nothing: the text is closed over the gap"
    units = Units(
        kind=text.kind,
        present=text.present,
        names=text.names,
        score=score,
        infill=masked if text.mask is not None else closed,
        in_distribution=text.mask is not None,
        output=score_name("log-odds", sample).removeprefix("explains "),
    )
    # Another module has an embedding layer of its own.
    if side is not None and own is not side.model:
        with differentiating(own), torch.no_grad():
            side = replace(side, model=own, layer=embedding_of(own, ids[:2]))
    return Posed(units=units, differentiable=side, why_not=reason)


def _layer(differentiable_model: DifferentiableModel, ids: Tensor) -> tuple[nn.Embedding | None, str]:
    """The embedding layer, or why there is none; raises NotApplicableError where the texts are too long."""
    if not len(ids):
        return None, "there are no texts"
    try:
        differentiable_model.logits(ids[:1])
    except (IndexError, RuntimeError) as error:
        raise NotApplicableError(
            f"The model cannot read texts of {ids.shape[1]:,} tokens ({str(error).splitlines()[0][:100]}): they are "
            "longer than its context, or hold tokens that it does not know. Cut them, or lower its encoder's limit."
        ) from error
    try:
        return embedding_of(differentiable_model, ids[:2]), ""
    except NotApplicableError as error:
        return None, str(error)


def embedding_of(differentiable: DifferentiableModel, ids: Tensor) -> nn.Embedding:
    """The embedding layer that gets the token ids themselves, found by observing one pass."""
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
            "Gradients need inputs that can be differentiated, and these are whole numbers of which "
            f"{'no' if not found else 'more than one'} embedding layer (torch.nn.Embedding) makes vectors. "
            "For a table, encode the columns as floating-point numbers; for texts, occlusion, kernel_shap, lime and "
            "shap_permutation need predictions only."
        )
    return found[0]


def _padding(differentiable_model: DifferentiableModel, layer: nn.Embedding | None) -> int:
    """The padding's token id: what the module or its embedding calls so, else 0."""
    for known in (getattr(differentiable_model.module, "pad", None), None if layer is None else layer.padding_idx):
        if isinstance(known, int):
            return known
    return 0


def _is_left(model: AuditedModel, differentiable_model: DifferentiableModel, tokens: IntArray, pad: int) -> bool:
    from auditor.data.preprocessing import TextPreprocessing

    if isinstance(model.preprocessing, TextPreprocessing):
        return model.preprocessing.padding == "left"
    stated = getattr(differentiable_model.module, "left", None)
    if isinstance(stated, bool):
        return stated
    return bool(((tokens[:, 0] == pad) & (tokens[:, -1] != pad)).any())


def _reader(model: AuditedModel, pad: int) -> Callable[[int], str]:
    """Reads a token id as a word, where the model says what its ids mean."""
    from auditor.data.preprocessing import TextPreprocessing

    names: dict[int, str] = {}
    token_name = getattr(model, "token_name", None)
    if isinstance(model.preprocessing, TextPreprocessing):
        names = {index: word for word, index in model.preprocessing.vocabulary.items()}
        if model.preprocessing.unknown is not None:
            names[model.preprocessing.unknown] = "(unknown)"

    def read_token(index: int) -> str:
        if index == pad:
            return "(padding)"
        if token_name is not None and not names:
            return str(token_name(index))
        return names.get(index, f"token {index}")

    return read_token


def _mask_token(model: AuditedModel, layer: nn.Embedding | None) -> int | None:
    """The id of the mask token, where the tokenizer has one; a model that has one was trained with it."""
    token_name = getattr(model, "token_name", None)
    if token_name is None or layer is None or model.preprocessing is not None:
        return None
    return next((i for i in range(layer.num_embeddings) if _MASK.fullmatch(str(token_name(i)))), None)


def _blank(text: _Text, ids: Tensor, layer: nn.Embedding, baseline: Baseline) -> tuple[Blank, str]:
    """Which embedding gradient paths begin at, and what that is in words."""
    import torch

    device = ids.device
    if baseline == "mask" and text.mask is None:
        raise NotApplicableError("The baseline 'mask' needs a tokenizer with a mask token: use pad or mean.")
    if text.mask is not None and baseline in ("auto", "mask"):
        one = torch.tensor([text.mask], device=device)
        return Blank(ids=one, weights=torch.ones(1, device=device)), "the embedding of the mask token in every position"
    one = torch.tensor([text.pad], device=device)
    # A network that normalises its input jumps at zeros, and the path would begin on the jump.
    if baseline == "mean" or (baseline == "auto" and not layer(one).any()):
        real = ids[torch.from_numpy(~text.held).to(device)]
        if len(real):
            found, counts = torch.unique(real, return_counts=True)
            words = "the mean embedding of the samples' tokens in every position"
            return Blank(ids=found, weights=counts / counts.sum()), words
    words = f"the embedding of the padding token {text.pad} in every position"
    return Blank(ids=one, weights=torch.ones(1, device=device)), words


def _truncation_notes(differentiable_model: DifferentiableModel, sample: AuditData, text: _Text) -> tuple[str, ...]:
    """How many texts fill the context, found by asking for more of them; what lies beyond it cannot be explained."""
    length = text.tokens.shape[1]
    full = np.flatnonzero((text.tokens != text.pad).all(axis=1))
    if not full.size:
        return ()
    longer = differentiable_model.encode(np.asarray([f"{sample.X[full[0]]} {sample.X[full[0]]}"], object))
    if longer.shape[1] > length:
        return ()
    return (
        f"{full.size:,} of {len(text.tokens):,} texts fill the model's context of {length:,} tokens; what is cut off "
        "reaches neither the model nor its explanation",
    )


def _raw(model: AuditedModel, sample: AuditData, classes: IntArray, reason: str) -> Posed:
    """Units are the words between white space, and the text is closed over those taken away."""
    words = [str(text).split() for text in sample.X]
    width = max((len(w) for w in words), default=1) or 1
    present = np.arange(width)[None, :] < np.asarray([len(w) for w in words], np.int64)[:, None]

    def score(rows: IntArray, keep: BoolArray) -> FloatArray:
        parts = []
        for i in range(0, len(rows), _TEXTS_AT_ONCE):
            some, kept = rows[i : i + _TEXTS_AT_ONCE], keep[i : i + _TEXTS_AT_ONCE]
            texts = [
                " ".join(w for w, k in zip(words[row], mask, strict=False) if k)
                if not mask[: len(words[row])].all()
                else str(sample.X[row])
                for row, mask in zip(some.tolist(), kept, strict=True)
            ]
            parts.append(raw_scores(model, np.asarray(texts, object), classes[some]))
        return np.concatenate(parts) if parts else np.empty(0)

    scale: Scale = "probability" if differentiable(model) is None else "log-odds"
    units = Units(
        kind="word",
        present=present,
        names=tuple((*w, *[""] * (width - len(w))) for w in words),
        score=score,
        infill="nothing: the text is closed over the gap",
        in_distribution=False,
        output=score_name(scale, sample).removeprefix("explains "),
        scale=scale,
    )
    return Posed(units=units, differentiable=None, why_not=reason)


# Observed rows whose values stand in for a table's missing ones; the score is averaged over them.
INFILL_ROWS = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """The explained object: a score of each of n samples over their units.

    classes: (n,) the class whose score is explained. background: rows that say what absence means. units: what can be
    taken away. differentiable: points, paths and their score for gradient methods; None where there is none, and
    ``why_not`` says why. notes: what a reader should know, such as texts that were cut. again: the same question about
    as many other samples, with a generator for what it draws; None where it can be asked of these only.
    """

    model: AuditedModel
    sample: AuditData
    background: AuditData
    classes: IntArray
    units: Units
    differentiable: Differentiable | None
    why_not: str
    notes: tuple[str, ...]
    put: Callable[[AuditedModel], Posed]
    again: Callable[[AuditData, np.random.Generator], Problem] | None = None

    def __len__(self) -> int:
        return len(self.sample)

    def with_module(self, module: nn.Module) -> Problem:
        """The same task for another module of the same kind: same samples, classes, infill and baseline."""
        model = _with_module(self.model, module)
        posed = self.put(model)
        return replace(self, model=model, units=posed.units, differentiable=posed.differentiable, why_not=posed.why_not)


def pose(
    model: AuditedModel,
    sample: AuditData,
    background: AuditData,
    classes: IntArray,
    *,
    baseline: Baseline = "auto",
    rng: np.random.Generator,
    max_memory: int | None = None,
    n_infill: int = INFILL_ROWS,
) -> Problem:
    """The question for some samples; ``classes`` (n,) are explained.

    Units are the raw features of a table, the words or tokens of a text by position, a grid of patches of an image.
    What stands where a unit was taken away: a table's values come from ``n_infill`` background rows, and the score is
    averaged over them; a text's token becomes the mask token where the tokenizer has one, else the text is closed over
    the gap; a patch is blurred. baseline, where gradient paths begin: ``mean`` of the background rows (tables),
    ``zero``, ``uniform`` (drawn from between the least and the largest value), ``blur`` (images), ``pad``, ``mask``,
    ``mean`` of the tokens (texts). auto: mean, blur, and mask where there is one, else pad, or mean where the padding
    is embedded as zeros. max_memory: bytes that one forward and backward pass may take, 1 GiB by default.

    Raises NotApplicableError where the baseline is not for this modality, or the texts are too long for the model.
    """
    from probes.attribution.image_units import image_question
    from probes.attribution.table_units import table_question

    if sample.modality == "tabular":
        infill = draw(background, n_infill, rng)
        question = table_question(model, sample, background, infill, classes, baseline, rng, max_memory)
    elif sample.modality == "text":
        question = text_question(model, sample, classes, baseline, max_memory)
    else:
        question = image_question(model, sample, classes, baseline, rng, max_memory)
    posed = question.put(model)

    def pose_again(other: AuditData, generator: np.random.Generator) -> Problem:
        return pose(
            model,
            other,
            background,
            classes,
            baseline=baseline,
            rng=generator,
            max_memory=max_memory,
            n_infill=n_infill,
        )

    return Problem(
        model=model,
        sample=sample,
        background=background,
        classes=classes,
        units=posed.units,
        differentiable=posed.differentiable,
        why_not=posed.why_not,
        notes=question.notes,
        put=question.put,
        again=pose_again,
    )


def _with_module(model: AuditedModel, module: nn.Module) -> AuditedModel:
    """A copy of the model around another module; outputs that the model remembers are not the copy's."""
    from auditor.models.torch_model import TorchModel

    if isinstance(model, TorchModel):
        return model.with_module(module)
    other = copy.copy(model)
    other.module = module  # type: ignore[attr-defined]
    return other
