"""Prompts of a language model: units are words or tokens, and the score is how likely a continuation is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from auditor.errors import NotApplicableError
from auditor.model.gradients import without_gradients
from auditor.rows import FloatArray, IntArray
from probes.attribution.differentiable import Blank, Differentiable
from probes.attribution.problem import Problem
from probes.attribution.question import Posed
from probes.attribution.token_prompts import Prompt, alike, spaced
from probes.attribution.units import BoolArray, Units
from probes.inputs import differentiating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.model.audited_model import AuditedModel
    from auditor.model.language_model import AuditedLanguageModel
    from auditor.model.prefix_trees import Encoded
    from auditor.model.torch_model import DifferentiableModel

Unit = Literal["word", "token"]
Infill = Literal["auto", "prompts", "delete", "token", "mask"]
TokenBaseline = Literal["auto", "mean", "pad", "zero", "mask"]
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")
# Logits of so many values are made at once: 64 MiB, and what a backward pass keeps of them.
_LOGITS_AT_ONCE = 1 << 24
_TOKENS_AT_ONCE = 1024
# Other prompts whose words stand in for missing ones; the score is averaged over them, at least so many, or none do.
N_INFILL = 4


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What stands behind the prompt in the input, and what is asked of the model there, from place ``first`` on.

    ``first``: 0 is the place right behind the prompt, -1 the prompt's last. ``sign``: 1 for the target, -1 for a foil.
    """

    tail: tuple[int, ...]
    asked: tuple[int, ...]
    first: int
    sign: float


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A prompt as the model reads it: ``ids`` with what stands before any text, and the unit (-1 for none) of each."""

    ids: tuple[int, ...]
    unit_of: tuple[int, ...]
    names: tuple[str, ...]
    endings: tuple[Ending, ...]

    @cached_property
    def pieces(self) -> tuple[tuple[int, ...], ...]:
        """The token ids of each unit."""
        found: list[list[int]] = [[] for _ in self.names]
        for i, unit in zip(self.ids, self.unit_of, strict=True):
            if unit >= 0:
                found[unit].append(i)
        return tuple(map(tuple, found))

    @cached_property
    def before(self) -> tuple[int, ...]:
        """The token ids in front of the first unit."""
        return self.ids[: next((i for i, u in enumerate(self.unit_of) if u >= 0), len(self.ids))]

    @cached_property
    def behind(self) -> tuple[int, ...]:
        """The token ids behind the last unit."""
        return self.ids[max((i + 1 for i, u in enumerate(self.unit_of) if u >= 0), default=len(self.ids)) :]


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
        """(m, length, 1) what is said of units (m, d), said of each of their tokens."""
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
    """What is explained of each prompt: ``log p(target) - log p(foil)``, or ``log p(target)`` where there is no foil.

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
    fill = _infill(model, tokens, [] if not others else placed(model, others, unit), infill)
    width = max(len(t.names) for t in tokens)
    present = np.arange(width)[None, :] < np.asarray([len(t.names) for t in tokens])[:, None]
    names = tuple((*t.names, *[""] * (width - len(t.names))) for t in tokens)
    output = _output(prompts)
    whose = _whose(model, tokens, present, baseline)

    def put(other: AuditedModel) -> Posed:
        own = cast("AuditedLanguageModel", other)

        def score(rows: IntArray, keep: BoolArray) -> FloatArray:
            return _masked_scores(own, tokens, np.asarray(rows, np.int64), keep, fill)

        units = Units(
            kind=unit,
            present=present,
            names=names,
            score=score,
            infill=fill.words,
            in_distribution=fill.natural,
            output=output,
        )
        if isinstance(whose, str):
            return Posed(units=units, differentiable=None, why_not=whose)
        side = replace(whose, model=_as_differentiable(own), language=own, layer=_embedding(own.module))
        return Posed(units=units, differentiable=side, why_not="")

    if isinstance(whose, TokenSide):
        try:
            whose = cast("TokenSide", whose.within(max_memory))
        except NotApplicableError as error:
            whose = str(error)
    posed = put(model)
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
        put=put,
    )


def _output(prompts: Sequence[Prompt]) -> str:
    same = alike(prompts)
    if same is None:
        return "log p(target) - log p(foil)" if all(p.foil for p in prompts) else "the log-probability of the target"
    target, foil = same
    if not target:
        return "the log-probability of the likeliest next token"
    return f"log p({target!r}) - log p({foil!r})" if foil else f"log p({target!r})"


def _as_differentiable(model: AuditedLanguageModel) -> DifferentiableModel:
    # Its logits are not those of classes: a TokenSide asks it by itself.
    return cast("DifferentiableModel", model)


# ---- prompts to tokens -----------------------------------------------------------------------------------------------


def placed(model: AuditedLanguageModel, prompts: Sequence[Prompt], unit: Unit) -> list[Tokens]:
    """The prompts as tokens; see :func:`token_problem` for what it raises."""
    masked = model.objective == "masked"
    texts: list[str] = []
    for p in prompts:
        ends = [e for e in (p.target, p.foil) if e.strip()] or [""]
        texts += [p.prompt + spaced(p.prompt, e) + (p.rest if masked and e else "") for e in ends]
    encoded = iter(model.encode(texts))
    found = []
    for p in prompts:
        ends = [e for e in (p.target, p.foil) if e.strip()]
        if not ends:
            found.append(_open_ended(model, p, next(encoded), unit))
            continue
        parts = [_split(next(encoded), p, spaced(p.prompt, e)) for e in ends]
        heads = {head for head, _, _ in parts}
        if len(heads) > 1 or not parts[0][1]:
            raise NotApplicableError(
                f"The tokenizer makes one token of the end of {p.prompt[-40:]!r} and the beginning of what follows it, "
                "so what follows cannot be asked about alone: end the prompt at a word, and begin target and foil with "
                "a space."
            )
        for (_, asked, _), end in zip(parts, ends, strict=True):
            _known(model, asked, end)
        endings = tuple(
            _ending(model, asked, after, sign) for (_, asked, after), sign in zip(parts, (1.0, -1.0), strict=False)
        )
        head = parts[0][0]
        found.append(_tokens(model, p, tuple(i for i, _ in head), tuple(end for _, end in head), unit, endings))
    return found


def _split(
    encoded: Encoded, prompt: Prompt, end: str
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...], tuple[int, ...]]:
    """The (id, end) of the prompt's tokens, the ids of the continuation, and those behind it."""
    own = [i for i, word in enumerate(encoded.words) if word >= 0]
    limit = len(prompt.prompt)
    begin = next((i for i in own if encoded.ends[i] > limit), len(encoded.ids))
    stop = next((i for i in own if encoded.ends[i] > limit + len(end)), None)
    if stop is None:
        stop = own[-1] + 1 if own else begin
    head = tuple(zip(encoded.ids[:begin], encoded.ends[:begin], strict=True))
    return head, encoded.ids[begin:stop], encoded.ids[stop:]


def _open_ended(model: AuditedLanguageModel, prompt: Prompt, encoded: Encoded, unit: Unit) -> Tokens:
    head, _, after = _split(encoded, prompt, "")
    ids, ends = tuple(i for i, _ in head), tuple(end for _, end in head)
    if after:
        raise NotApplicableError(f"The prompt {prompt.prompt[:40]!r} cannot be told apart from what follows it.")
    special = tuple(i for i, word in enumerate(encoded.words) if word < 0 and i > 0 and encoded.words[i - 1] >= 0)
    cut = special[0] if special and model.objective == "masked" else len(ids)
    blank = _ending(model, (0,), ids[cut:], 1.0)
    likeliest = next_tokens(model, [(ids[:cut], blank)])[0]
    return _tokens(model, prompt, ids[:cut], ends[:cut], unit, (replace(blank, asked=(likeliest,)),))


def _ending(model: AuditedLanguageModel, asked: tuple[int, ...], after: tuple[int, ...], sign: float) -> Ending:
    if model.objective == "masked":
        mask = int(model.tokenizer.mask_token_id)
        return Ending(tail=(*[mask] * len(asked), *after), asked=asked, first=0, sign=sign)
    return Ending(tail=asked[:-1], asked=asked, first=-1, sign=sign)


def _known(model: AuditedLanguageModel, asked: Sequence[int], end: str) -> None:
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    if unknown is not None and unknown in asked and getattr(model.tokenizer, "unk_token", None) != end.strip():
        raise NotApplicableError(
            f"The tokenizer does not know {end.strip()!r} and reads it as {model.tokenizer.unk_token!r}, so its "
            "probability is that of any unknown word: choose a target and a foil out of its vocabulary."
        )


def _tokens(
    model: AuditedLanguageModel,
    prompt: Prompt,
    ids: tuple[int, ...],
    ends: tuple[int, ...],
    unit: Unit,
    endings: tuple[Ending, ...],
) -> Tokens:
    if model.objective == "causal" and not ids:
        raise NotApplicableError(
            f"Nothing stands before the target of {prompt.prompt[:40]!r}: a causal model needs a token to predict from."
        )
    own = [i for i, end in enumerate(ends) if end > 0]
    unit_of = [-1] * len(ids)
    if unit == "token":
        starts = [0, *[ends[i] for i in own]]
        names = tuple(prompt.prompt[a:b] for a, b in zip(starts, starts[1:], strict=False))
        for place, i in enumerate(own):
            unit_of[i] = place
    else:
        words = list(_WORD.finditer(prompt.prompt))
        if not words:
            raise NotApplicableError(f"The prompt {prompt.prompt[:40]!r} holds no word to attribute anything to.")
        names = tuple(word.group() for word in words)
        limits = np.asarray([word.end() for word in words])
        for i in own:
            # A token belongs to the word in which it ends; white space behind the last word belongs to none.
            at = int(np.searchsorted(limits, ends[i]))
            unit_of[i] = at if at < len(words) and ends[i] > words[at].start() else -1
    return Tokens(ids=ids, unit_of=tuple(unit_of), names=names, endings=endings)


# ---- scores ----------------------------------------------------------------------------------------------------------


def _masked_scores(
    model: AuditedLanguageModel, tokens: Sequence[Tokens], rows: IntArray, keep: BoolArray, fill: Fill
) -> FloatArray:
    """(m,) scores of prompts in which units are gone and the infill stands; what is equal is asked once."""

    owner: list[int] = []
    asked: list[tuple[tuple[int, ...], tuple[Ending, ...]]] = []
    for i, (row, kept) in enumerate(zip(rows.tolist(), keep, strict=True)):
        # With nothing gone all fillings are the prompt itself.
        made = dict.fromkeys(fill.filled(tokens[row], kept))
        whole = len(made) == 1
        for ids in made if whole else fill.filled(tokens[row], kept):
            asked.append((ids, tokens[row].endings))
            owner.append(i)
    distinct = sorted(set(asked), key=lambda key: (len(key[0]), key[0]))
    found: dict[Any, float] = {}
    if model.objective == "causal":
        found = dict(zip(distinct, _shared_beginnings(model, distinct), strict=True))
    else:
        with differentiating(_as_differentiable(model)), without_gradients():
            for part in _batches(model, distinct):
                scores = log_probability(model, part)
                found.update(zip(part, scores.double().cpu().tolist(), strict=True))
    values = np.asarray([found[key] for key in asked], np.float64)
    counts = np.bincount(owner, minlength=len(rows))
    return np.bincount(owner, weights=values, minlength=len(rows)) / np.maximum(counts, 1)


def _shared_beginnings(
    model: AuditedLanguageModel, rows: Sequence[tuple[tuple[int, ...], tuple[Ending, ...]]]
) -> list[float]:
    """The same as :func:`log_probability` of a causal model, where texts that begin alike share that work."""
    from auditor.model.prefix_trees import Encoded

    texts: list[Encoded] = []
    asked: list[range] = []
    signs: list[float] = []
    owner: list[int] = []
    for row, (ids, endings) in enumerate(rows):
        for e in endings:
            n = len(ids) + len(e.asked)
            texts.append(Encoded(ids=(*ids, *e.asked), scored=(True,) * n, ends=(0,) * n, words=(0,) * n))
            asked.append(range(len(ids), n))
            signs.append(e.sign)
            owner.append(row)
    found = [float(np.nansum(p)) for p in model.token_log_probabilities(texts, asked)]
    sums: list[float] = np.bincount(owner, weights=np.multiply(signs, found), minlength=len(rows)).tolist()
    return sums


def _batches(
    model: AuditedLanguageModel, rows: Sequence[tuple[tuple[int, ...], tuple[Ending, ...]]]
) -> list[list[tuple[tuple[int, ...], tuple[Ending, ...]]]]:
    size = int(model.module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    most = max(1, _LOGITS_AT_ONCE // size)
    out: list[list[tuple[tuple[int, ...], tuple[Ending, ...]]]] = [[]]
    for row in rows:
        # In ascending order of length, so the last row is the longest.
        if out[-1] and (len(out[-1]) >= most or (len(out[-1]) + 1) * (len(row[0]) + 1) > _TOKENS_AT_ONCE):
            out.append([])
        out[-1].append(row)
    return out if rows else []


def next_tokens(model: AuditedLanguageModel, rows: Sequence[tuple[tuple[int, ...], Ending]]) -> list[int]:
    """The likeliest token behind each prompt."""

    with differentiating(_as_differentiable(model)), without_gradients():
        return [int(_logits(model, [(ids, e)], None, None, [0])[0, 0].argmax()) for ids, e in rows]


def log_probability(
    model: AuditedLanguageModel,
    rows: Sequence[tuple[tuple[int, ...], tuple[Ending, ...]]],
    points: Tensor | None = None,
    free: Tensor | None = None,
) -> Tensor:
    """(m,) ``sum over endings of sign * log p(asked)`` behind prompts (ids, endings).

    ``points`` (m, length, width) stand for the embeddings of the prompts' tokens where ``free`` (m, length). Endings
    that put the same behind a prompt share one pass.
    """
    import torch

    passes: list[tuple[tuple[int, ...], Ending]] = []
    owner: list[int] = []
    answers: list[tuple[int, Ending, int]] = []
    for m, (ids, endings) in enumerate(rows):
        at: dict[tuple[tuple[int, ...], int], int] = {}
        for e in endings:
            place = at.setdefault((e.tail, len(e.asked)), len(passes))
            if place == len(passes):
                passes.append((ids, e))
                owner.append(m)
            answers.append((place, e, m))
    logits = _logits(model, passes, points, free, owner)
    log_p = torch.log_softmax(logits.float(), dim=-1)
    device = log_p.device
    longest = log_p.shape[1]
    wanted = torch.zeros(len(answers), longest, dtype=torch.long)
    weights = torch.zeros(len(answers), longest)
    for i, (_, e, _) in enumerate(answers):
        wanted[i, : len(e.asked)] = torch.tensor(e.asked)
        weights[i, : len(e.asked)] = e.sign
    which = torch.tensor([place for place, _, _ in answers])
    picked = log_p[which[:, None].to(device), torch.arange(longest, device=device)[None], wanted.to(device)]
    each = (picked * weights.to(device)).sum(dim=1)
    belongs = torch.tensor([m for _, _, m in answers], device=device)
    return torch.zeros(len(rows), dtype=each.dtype, device=device).index_add(0, belongs, each)


def _logits(
    model: AuditedLanguageModel,
    passes: Sequence[tuple[tuple[int, ...], Ending]],
    points: Tensor | None,
    free: Tensor | None,
    owner: Sequence[int],
) -> Tensor:
    """(n_passes, n_asked, vocabulary) logits where something is asked; shorter ones repeat their last place."""
    import torch
    from torch.nn import functional

    device = model.device
    length = max(len(ids) + len(e.tail) for ids, e in passes)
    asked = max(len(e.asked) for _, e in passes)
    pad = int(getattr(model.tokenizer, "pad_token_id", None) or 0)
    tokens = torch.full((len(passes), length), pad)
    there = torch.zeros((len(passes), length), dtype=torch.long)
    places = torch.zeros((len(passes), asked), dtype=torch.long)
    for r, (ids, e) in enumerate(passes):
        row = (*ids, *e.tail)
        tokens[r, : len(row)] = torch.tensor(row, dtype=torch.long)
        there[r, : len(row)] = 1
        places[r] = torch.clamp(torch.arange(asked), max=len(e.asked) - 1) + len(ids) + e.first
    tokens, places = tokens.to(device), places.to(device)
    module: Any = model.module
    # Padding to the right is never looked at by a causal model.
    inputs: dict[str, Any] = {"input_ids": tokens}
    inputs |= {"attention_mask": there.to(device)} if model.objective == "masked" else {"use_cache": False}
    head = module.get_output_embeddings()

    def select(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_at(args[0], places), *args[1:])

    def embed(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if points is None or free is None or args[0].shape != tokens.shape:
            return None
        index = torch.tensor(owner, device=device)
        room = length - points.shape[1]
        put, where = points[index], free[index]
        if room < 0:
            put, where = put[:, :length], where[:, :length]
        else:
            put, where = functional.pad(put, (0, 0, 0, room)), functional.pad(where, (0, room))
        return torch.where(where.unsqueeze(-1), put, output)

    with ExitStack() as stack:
        stack.callback(module.get_input_embeddings().register_forward_hook(embed).remove)
        if head is not None:
            stack.callback(head.register_forward_pre_hook(select).remove)
        logits: Tensor = module(**inputs).logits
    return logits if head is not None else _at(logits, places)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """(n, k, width) of values (n, length, width) at places (n, k)."""
    return values.gather(1, places.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


# ---- infill and baseline ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fill:
    """What stands where units were: the ``others`` at the same places, else ``token`` for each of theirs, else nothing.

    words: in words; natural: whether it is what the model is used to see there.
    """

    others: tuple[Tokens, ...] = ()
    token: int | None = None
    words: str
    natural: bool

    def filled(self, own: Tokens, keep: BoolArray) -> list[tuple[int, ...]]:
        """The token ids of a prompt of which only some units (d,) are kept, once for each way to fill the gaps."""
        if not self.others:
            fill = () if self.token is None else (self.token,)
            parts = ((i,) if u < 0 or keep[u] else fill for i, u in zip(own.ids, own.unit_of, strict=True))
            return [tuple(i for part in parts for i in part)]
        pieces, n = own.pieces, len(own.names)
        found = []
        for other in [o for o in self.others if o.ids != own.ids][:N_INFILL]:
            theirs, last = other.pieces, len(other.names) - 1
            at = [round(u * last / max(n - 1, 1)) for u in range(n)]
            middle = (pieces[u] if keep[u] else theirs[at[u]] for u in range(n))
            found.append((*own.before, *(i for piece in middle for i in piece), *own.behind))
        return found


def _infill(model: AuditedLanguageModel, tokens: Sequence[Tokens], others: Sequence[Tokens], infill: Infill) -> Fill:
    """How gaps are filled, as asked for or as serves best."""
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
    blanks = _blank_tokens(model)
    if not blanks:
        raise NotApplicableError(
            "The tokenizer has no beginning-of-sequence, unknown, padding or end token that could stand where a word "
            "was: name one by prefix_token, after which words can be deleted."
        )
    blank, name = blanks[0]
    return Fill(token=blank, words=f"the {name} token {model.tokenizer.convert_ids_to_tokens(blank)}", natural=False)


def _blank_tokens(model: AuditedLanguageModel) -> list[tuple[int, str]]:
    """Tokens that say nothing, with their names."""
    names = (("pad", "padding"), ("unk", "unknown"), ("eos", "end"))
    found = [(getattr(model.tokenizer, f"{key}_token_id", None), name) for key, name in names]
    return [(int(i), name) for i, name in found if i is not None]


def _embedding(module: nn.Module) -> nn.Embedding:
    found: nn.Embedding = module.get_input_embeddings()  # type: ignore[operator]
    return found


def _whose(
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
        model=_as_differentiable(model),
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
        rows_at_once=max(1, min(_TOKENS_AT_ONCE // length, _LOGITS_AT_ONCE // layer.num_embeddings)),
        language=model,
        tokens=tokens,
        unit_of=unit_of,
    )


def _start(model: AuditedLanguageModel, tokens: Sequence[Tokens], baseline: TokenBaseline) -> tuple[Blank, str]:
    """Which embedding gradient paths begin at, and what that is in words."""
    import torch

    def one(index: int, weight: float = 1.0) -> Blank:
        return Blank(
            ids=torch.tensor([index], device=model.device), weights=torch.tensor([weight], device=model.device)
        )

    if baseline == "mask" or (baseline == "auto" and model.objective == "masked"):
        mask = getattr(model.tokenizer, "mask_token_id", None)
        if mask is None or model.objective != "masked":
            raise NotApplicableError("The baseline 'mask' is for masked models: use mean, pad or zero.")
        return one(int(mask)), "the embedding of the mask token in place of every word"
    if baseline == "zero":
        return one(0, 0.0), "zeros in place of every word's embedding"
    # A network that normalises its input jumps at zeros, and the path would begin on the jump.
    layer = _embedding(model.module)
    known = [(i, name) for i, name in _blank_tokens(model) if baseline == "pad" or bool(layer.weight[i].any())]
    if baseline == "pad" and not known:
        raise NotApplicableError("The baseline 'pad' needs a padding, unknown or end token: use mean or zero.")
    if baseline in ("auto", "pad") and known:
        return one(known[0][0]), f"the embedding of the {known[0][1]} token in place of every word"
    own = torch.tensor([i for t in tokens for i, u in zip(t.ids, t.unit_of, strict=True) if u >= 0])
    found, counts = torch.unique(own, return_counts=True)
    mean = Blank(ids=found.to(model.device), weights=(counts / counts.sum()).to(model.device))
    return mean, "the mean embedding of the prompts' tokens in place of every word"
