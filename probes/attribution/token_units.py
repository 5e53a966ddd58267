"""Prompts of a language model: units are words or tokens, and replacement text for removed units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.models.torch_context import without_gradients
from probes.attribution.attribution_task import Problem
from probes.attribution.attribution_units import Blank, Differentiable, Posed, Units
from probes.attribution.prompt_tokens import (
    LOGITS_AT_ONCE,
    TOKENS_AT_ONCE,
    Prompt,
    Row,
    Tokens,
    Unit,
    as_differentiable,
    batches,
    log_probability,
    placed,
    shared_beginnings,
    shared_target_foil,
)
from probes.coalitions import each_once
from probes.probe_inputs import differentiating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel

Infill = Literal["auto", "prompts", "delete", "token", "mask"]
# Other prompts whose words stand in for missing ones; the score is averaged over them, at least so many, or none do.
N_INFILL = 4


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Infill of removed units: the ``others`` at the same positions, else ``token`` for each token, else none.

    words: in words; natural: whether it is what the model is used to see there.
    """

    others: tuple[Tokens, ...] = ()
    token: int | None = None
    words: str
    natural: bool

    def filled(self, tokens: Tokens, keep: BoolArray) -> list[tuple[int, ...]]:
        """The token ids of a prompt with only some units (d,) kept, once per infill of the gaps."""
        if not self.others:
            fill = () if self.token is None else (self.token,)
            parts = ((i,) if u < 0 or keep[u] else fill for i, u in zip(tokens.ids, tokens.unit_of, strict=True))
            return [tuple(i for part in parts for i in part)]
        pieces, n = tokens.pieces, len(tokens.names)
        found = []
        for other in [o for o in self.others if o.ids != tokens.ids][:N_INFILL]:
            theirs, last = other.pieces, len(other.names) - 1
            at = [round(u * last / max(n - 1, 1)) for u in range(n)]
            middle = (pieces[u] if keep[u] else theirs[at[u]] for u in range(n))
            found.append((*tokens.leading_ids, *(i for piece in middle for i in piece), *tokens.behind))
        return found


def infill_of(model: AuditedLanguageModel, tokens: Sequence[Tokens], others: Sequence[Tokens], infill: Infill) -> Fill:
    """The infill method, as requested or by best performance."""
    mask = getattr(model.tokenizer, "mask_token_id", None)
    if model.objective == "masked" and infill in ("auto", "mask"):
        words = "the mask token, which such models are trained to see in place of a word"
        return Fill(token=int(cast(int, mask)), words=words, natural=True)
    if infill == "mask":
        raise NotApplicableError("The infill 'mask' is for masked models: use prompts, delete or token.")
    distinct = tuple({t.ids: t for t in others}.values())
    enough = len(distinct) > N_INFILL
    if infill == "prompts" and not enough:
        raise NotApplicableError(
            f"The infill 'prompts' takes words of at least {N_INFILL} other prompts, and there are "
            f"{max(len(distinct) - 1, 0)}: use delete or token."
        )
    if infill == "prompts" or (infill == "auto" and enough):
        words = f"what stands at the same place in {N_INFILL} other prompts, averaged"
        return Fill(others=distinct, words=words, natural=True)
    in_front = all(any(u < 0 for u in t.unit_of) for t in tokens)
    if infill == "delete" or (infill == "auto" and in_front):
        if not in_front:
            raise NotApplicableError(
                "With every word deleted nothing would be left to predict from, since the tokenizer has no "
                "beginning-of-sequence token: name one by prefix_token, or use the infill 'token'."
            )
        return Fill(words="nothing: the text is closed over the gap", natural=False)
    blanks = blank_tokens(model)
    if not blanks:
        raise NotApplicableError(
            "The tokenizer has no beginning-of-sequence, unknown, padding or end token that could stand where a word "
            "was: name one by prefix_token, after which words can be deleted."
        )
    blank, name = blanks[0]
    return Fill(token=blank, words=f"the {name} token {model.tokenizer.convert_ids_to_tokens(blank)}", natural=False)


def masked_scores(
    ask: Callable[[Sequence[Row]], list[float]], tokens: Sequence[Tokens], rows: IntArray, keep: BoolArray, fill: Fill
) -> FloatArray:
    """(m,) scores, by ``ask``, of prompts with removed units replaced by the infill."""
    owner: list[int] = []
    asked: list[Row] = []
    for i, (row, kept) in enumerate(zip(rows.tolist(), keep, strict=True)):
        # With nothing gone all fillings are the prompt itself.
        made = fill.filled(tokens[row], kept)
        for ids in made[:1] if len(set(made)) == 1 else made:
            asked.append((ids, tokens[row].endings))
            owner.append(i)
    counts = np.bincount(owner, minlength=len(rows))
    return np.bincount(owner, weights=ask(asked), minlength=len(rows)) / np.maximum(counts, 1)


def text_scores(model: AuditedLanguageModel, rows: Iterable[Row]) -> dict[Row, float]:
    """The score of each text with its endings."""
    order = sorted(rows, key=lambda row: (len(row[0]), row[0]))
    if model.objective == "causal":
        return dict(zip(order, shared_beginnings(model, order), strict=True))
    found: dict[Row, float] = {}
    with differentiating(as_differentiable(model)), without_gradients():
        for part in batches(model, order):
            found.update(zip(part, log_probability(model, part).double().cpu().tolist(), strict=True))
    return found


def blank_tokens(model: AuditedLanguageModel) -> list[tuple[int, str]]:
    """Uninformative tokens, with their names."""
    names = (("pad", "padding"), ("unk", "unknown"), ("eos", "end"))
    found = [(getattr(model.tokenizer, f"{key}_token_id", None), name) for key, name in names]
    return [(int(i), name) for i, name in found if i is not None]


TokenBaseline = Literal["auto", "mean", "pad", "zero", "mask"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenSide(Differentiable):
    """n prompts as embedded tokens; ``targets`` are their numbers, ``unit_of`` (n, length) the unit of each token."""

    language: AuditedLanguageModel
    tokens: tuple[Tokens, ...]
    unit_of: IntArray

    def score(self, points: Tensor, targets: Tensor, *extra: Tensor) -> Tensor:
        """(m,) the explained log-probability of prompts ``targets`` at points (m, length, width)."""
        chosen = [self.tokens[i] for i in targets.tolist()]
        rows = [(t.ids, t.endings) for t in chosen]
        return log_probability(self.language, rows, points, ~extra[1])

    def _units_of(self, rows: IntArray) -> IntArray:
        """(m, length) the unit of each token; a prompt that stands in several rows is told by its number."""
        return np.asarray(self.unit_of[self.targets.cpu().numpy()[rows]], np.int64)

    def spread(self, per_unit: npt.NDArray[Any], rows: IntArray) -> npt.NDArray[Any]:
        """(m, length, 1) values of units (m, d), for each of their tokens."""
        unit = self._units_of(rows)
        found = np.take_along_axis(per_unit, np.maximum(unit, 0), axis=1)
        return np.where(unit >= 0, found, np.zeros((), per_unit.dtype))[..., None]

    def at_units(self, per_token: FloatArray, rows: IntArray) -> FloatArray:
        """(m, d) sums over the tokens of each unit."""
        unit = self._units_of(rows)
        out = np.zeros((len(rows), self.present.shape[1]))
        at, column = np.nonzero(unit >= 0)
        np.add.at(out, (at, unit[at, column]), per_token[at, column])
        return out


def token_problem(
    model: AuditedLanguageModel,
    prompts: Sequence[Prompt],
    *,
    others: Sequence[Prompt] = (),
    unit: Unit = "word",
    infill: Infill = "auto",
    baseline: TokenBaseline = "auto",
    max_memory: int | None = None,
) -> Problem:
    """The attribution task of each prompt: ``log p(target) - log p(foil)``, or ``log p(target)`` without a foil.

    ``p`` is the probability of all the continuation's tokens, one after another (causal) or each with all of them
    masked. Units are words, or tokens. infill: where a unit is taken away the text is closed over the gap (``delete``;
    causal, with something in front), or a ``token`` stands that says nothing (unknown, padding or end), or the
    ``mask`` token (masked models). baseline, where gradient paths begin: the ``mean`` embedding of the prompts'
    tokens, that of ``pad`` (else unknown, else end), ``zero``, that of ``mask``; auto: mask where the model was trained
    with it, else pad, unknown or end where it is not embedded as zeros, else mean.

    Raises NotApplicableError where a prompt does not fit the model's context, a target is no token of it, or nothing
    is left to predict from.
    """
    from auditor.data.audit_data import AuditData

    tokens = tuple(placed(model, prompts, unit))
    fill = infill_of(model, tokens, [] if not others else placed(model, others, unit), infill)
    width = max(len(t.names) for t in tokens)
    present = np.arange(width)[None, :] < np.asarray([len(t.names) for t in tokens])[:, None]
    names = tuple((*t.names, *[""] * (width - len(t.names))) for t in tokens)
    output = _output(prompts)
    whose = _differentiable_side(model, tokens, present, baseline)

    def pose_for(other: AuditedModel) -> Posed:
        own = cast("AuditedLanguageModel", other)
        ask = each_once(lambda rows: text_scores(own, rows))

        def score(rows: IntArray, keep: BoolArray) -> FloatArray:
            return masked_scores(ask, tokens, np.asarray(rows, np.int64), keep, fill)

        units = Units(
            kind=unit,
            present=present,
            names=names,
            score=score,
            infill=fill.words,
            in_distribution=fill.natural,
            output=output,
            scale="log-odds" if all(p.foil.strip() for p in prompts) else "log-probability",
            of_prompts=True,
        )
        if isinstance(whose, str):
            return Posed(units=units, differentiable=None, why_not=whose)
        side = replace(whose, model=as_differentiable(own), language=own, layer=_embedding(own.module))
        return Posed(units=units, differentiable=side, why_not="")

    if isinstance(whose, TokenSide):
        try:
            whose = cast("TokenSide", whose.with_memory_limit(max_memory))
        except NotApplicableError as error:
            whose = str(error)
    posed = pose_for(model)
    sample = AuditData(X=np.asarray([p.prompt for p in prompts], object))
    return Problem(
        model=model,
        sample=sample,
        background=sample,
        classes=np.zeros(len(prompts), np.int64),
        units=posed.units,
        differentiable=posed.differentiable,
        why_not=posed.why_not,
        notes=(),
        put=pose_for,
    )


def _output(prompts: Sequence[Prompt]) -> str:
    same = shared_target_foil(prompts)
    if same is None:
        return "log p(target) - log p(foil)" if all(p.foil for p in prompts) else "the log-probability of the target"
    target, foil = same
    if not target:
        return "the log-probability of the likeliest next token"
    return f"log p({target!r}) - log p({foil!r})" if foil else f"log p({target!r})"


def _embedding(module: nn.Module) -> nn.Embedding:
    found: nn.Embedding = module.get_input_embeddings()  # type: ignore[operator]
    return found


def _differentiable_side(
    model: AuditedLanguageModel, tokens: tuple[Tokens, ...], present: BoolArray, baseline: TokenBaseline
) -> TokenSide | str:
    """The differentiable side, or why there is none."""
    import torch
    from torch import nn

    layer = model.module.get_input_embeddings()  # type: ignore[operator]
    if not isinstance(layer, nn.Embedding):
        return f"its input embeddings are a {type(layer).__name__}, no torch.nn.Embedding: occlusion needs none"
    blank, words = _start(model, tokens, baseline)
    length = max(len(t.ids) for t in tokens)
    inputs = torch.tensor([(*t.ids, *[0] * (length - len(t.ids))) for t in tokens], device=model.device)
    unit_of = np.asarray([(*t.unit_of, *[-1] * (length - len(t.ids))) for t in tokens], np.int64)
    return TokenSide(
        model=as_differentiable(model),
        inputs=inputs,
        targets=torch.arange(len(tokens), device=model.device),
        begin=None,
        blank=blank,
        layer=layer,
        held=torch.from_numpy(unit_of < 0).to(model.device),
        places=np.zeros((len(tokens), present.shape[1]), np.int64),
        present=present,
        channels=None,
        baseline=words,
        rows_at_once=max(1, min(TOKENS_AT_ONCE // length, LOGITS_AT_ONCE // layer.num_embeddings)),
        language=model,
        tokens=tokens,
        unit_of=unit_of,
    )


def _start(model: AuditedLanguageModel, tokens: Sequence[Tokens], baseline: TokenBaseline) -> tuple[Blank, str]:
    """Which embedding gradient paths begin at, and what that is in words."""
    import torch

    def single_blank(index: int, weight: float = 1.0) -> Blank:
        return Blank(
            ids=torch.tensor([index], device=model.device), weights=torch.tensor([weight], device=model.device)
        )

    if baseline == "mask" or (baseline == "auto" and model.objective == "masked"):
        mask = getattr(model.tokenizer, "mask_token_id", None)
        if mask is None or model.objective != "masked":
            raise NotApplicableError("The baseline 'mask' is for masked models: use mean, pad or zero.")
        return single_blank(int(mask)), "the embedding of the mask token in place of every word"
    if baseline == "zero":
        return single_blank(0, 0.0), "zeros in place of every word's embedding"
    # A network that normalises its input jumps at zeros, and the path would begin on the jump.
    layer = _embedding(model.module)
    known = [(i, name) for i, name in blank_tokens(model) if baseline == "pad" or bool(layer.weight[i].any())]
    if baseline == "pad" and not known:
        raise NotApplicableError("The baseline 'pad' needs a padding, unknown or end token: use mean or zero.")
    if baseline in ("auto", "pad") and known:
        return single_blank(known[0][0]), f"the embedding of the {known[0][1]} token in place of every word"
    own = torch.tensor([i for t in tokens for i, u in zip(t.ids, t.unit_of, strict=True) if u >= 0])
    found, counts = torch.unique(own, return_counts=True)
    mean = Blank(ids=found.to(model.device), weights=(counts / counts.sum()).to(model.device))
    return mean, "the mean embedding of the prompts' tokens in place of every word"
