"""Differentiable likelihood of a continuation after a prompt, in few forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from auditor.models.gradients import without_gradients
from probes.probe_inputs import differentiating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.models.language_model import AuditedLanguageModel
    from auditor.models.torch_model import DifferentiableModel

Row: TypeAlias = "tuple[tuple[int, ...], tuple[Ending, ...]]"
# Logits of so many values are made at once: 64 MiB, and what a backward pass keeps of them.
LOGITS_AT_ONCE = 1 << 24
TOKENS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The input after the prompt, and the scored tokens there, from position ``first`` on.

    ``first``: 0 is the place right behind the prompt, -1 the prompt's last. ``sign``: 1 for the target, -1 for a foil.
    """

    tail: tuple[int, ...]
    asked: tuple[int, ...]
    first: int
    sign: float


def log_probability(
    model: AuditedLanguageModel,
    rows: Sequence[Row],
    points: Tensor | None = None,
    free: Tensor | None = None,
) -> Tensor:
    """(m,) ``sum over endings of sign * log p(asked)`` after prompts (ids, endings).

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


def next_tokens(model: AuditedLanguageModel, rows: Sequence[tuple[tuple[int, ...], Ending]]) -> list[int]:
    """The likeliest token behind each prompt."""
    with differentiating(as_differentiable(model)), without_gradients():
        return [int(_logits(model, [(ids, e)], None, None, [0])[0, 0].argmax()) for ids, e in rows]


def shared_beginnings(model: AuditedLanguageModel, rows: Sequence[Row]) -> list[float]:
    """:func:`log_probability` of a causal model, with shared computation for texts with common beginnings."""
    from auditor.models.prefix_trees import Encoded

    kinds = [[(e.sign, len(e.asked)) for e in endings] for _, endings in rows]
    if rows and all(kind == [(1.0, 1), (-1.0, 1)] for kind in kinds):
        odds = model.log_odds([ids for ids, _ in rows], [(a.asked[0], b.asked[0]) for _, (a, b) in rows])
        if odds is not None:
            return [float(value) for value in odds]
    each = [(row, ids, e, len(ids) + len(e.asked)) for row, (ids, endings) in enumerate(rows) for e in endings]
    texts = [Encoded(ids=(*ids, *e.asked), scored=(True,) * n, ends=(0,) * n, words=(0,) * n) for _, ids, e, n in each]
    found = model.token_log_probabilities(texts, [range(len(ids), n) for _, ids, _, n in each])
    signed = [e.sign * float(np.nansum(p)) for (_, _, e, _), p in zip(each, found, strict=True)]
    return list(np.bincount([row for row, *_ in each], weights=signed, minlength=len(rows)))


def batches(model: AuditedLanguageModel, rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in ascending order of length, in parts with logits that fit into memory."""
    size = int(model.module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    most = max(1, LOGITS_AT_ONCE // size)
    out: list[list[Row]] = [[]]
    for row in rows:
        # In ascending order of length, so the last row is the longest.
        if out[-1] and (len(out[-1]) >= most or (len(out[-1]) + 1) * (len(row[0]) + 1) > TOKENS_AT_ONCE):
            out.append([])
        out[-1].append(row)
    return out if rows else []


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
        return (_gather_places(args[0], places), *args[1:])

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
        return torch.where(where.unsqueeze(-1), put.to(output.dtype), output)

    with ExitStack() as stack:
        stack.callback(module.get_input_embeddings().register_forward_hook(embed).remove)
        if head is not None:
            stack.callback(head.register_forward_pre_hook(select).remove)
        logits: Tensor = module(**inputs).logits
    return logits if head is not None else _gather_places(logits, places)


def _gather_places(values: Tensor, places: Tensor) -> Tensor:
    """(n, k, width) of values (n, length, width) at places (n, k)."""
    return values.gather(1, places.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def as_differentiable(model: AuditedLanguageModel) -> DifferentiableModel:
    """The model with the interface for differentiable input."""
    # Its logits are not those of classes: a TokenSide asks it by itself.
    return cast("DifferentiableModel", model)
