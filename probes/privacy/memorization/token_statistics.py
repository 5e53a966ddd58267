"""Statistics of a causal model for every token of a text: probability, rank, and expected values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray, IntArray
from auditor.models.gradients import without_gradients
from auditor.models.language_model import NO_PROBABILITY, AuditedLanguageModel
from auditor.models.prefix_trees import Encoded
from auditor.models.torch_model import evaluating

_LOGITS_BYTES = 128 << 20


@dataclass(frozen=True, eq=False)
class TokenStatistics:
    """Statistics of the scored tokens of one text, each (n_tokens,).

    ``log_p``: log p(x_t | x_<t) in nats. ``expected`` and ``deviation``: mean and standard deviation of log p(z | x_<t)
    over z drawn from the model. ``rank``: how many tokens of the vocabulary are likelier, 0 for the greedy choice; of
    equally likely ones the first is chosen. ``log_p_sampled``: log-probability under the sampling asked for, -inf where
    it would never be drawn. ``ids``: the tokens.
    """

    log_p: FloatArray
    expected: FloatArray
    deviation: FloatArray
    rank: IntArray
    log_p_sampled: FloatArray
    ids: IntArray


def token_statistics(
    model: AuditedLanguageModel, texts: Sequence[Encoded], *, temperature: float = 1.0, top_k: int | None = None
) -> list[TokenStatistics]:
    """Statistics of every scored token of every text, in batches of similar length, with float64 logits if needed.

    ``temperature`` and ``top_k`` are of the sampling behind ``log_p_sampled``: logits are divided by the temperature
    and all but the ``top_k`` likeliest tokens are left out. Raises ModelError where the logits are NaN.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    vocabulary = int(model.module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    budget = max(1, min(4 * model.batch_tokens, _LOGITS_BYTES // (8 * vocabulary)))
    found: dict[int, TokenStatistics] = {}
    with without_gradients(), evaluating(model.module):
        at = 0
        while at < len(order):
            size = 1
            while at + size < len(order) and (size + 1) * len(texts[order[at + size]].ids) <= budget:
                size += 1
            batch = order[at : at + size]
            at += size
            for i, statistics in zip(batch, _batch(model, [texts[i] for i in batch], temperature, top_k), strict=True):
                found[i] = statistics
    return [found[i] for i in range(len(texts))]


def _batch(
    model: AuditedLanguageModel, texts: Sequence[Encoded], temperature: float, top_k: int | None
) -> list[TokenStatistics]:
    length = max(len(t.ids) for t in texts)
    # What stands to the right of a text is never looked at; a padding token there would only be warned of.
    ids = torch.tensor([[t.ids[0]] * length for t in texts])
    for r, text in enumerate(texts):
        ids[r, : len(text.ids)] = torch.tensor(text.ids)
    logits = model.module(input_ids=ids.to(model.device), use_cache=False).logits
    found = []
    for r, text in enumerate(texts):
        places = torch.tensor([i for i, scored in enumerate(text.scored) if scored])
        targets = torch.tensor(text.ids)[places].to(logits.device)
        rows = logits[r, places.to(logits.device) - 1].double()
        log_p = torch.log_softmax(rows, dim=1)
        if bool(torch.isnan(log_p).any()):
            raise ModelError(NO_PROBABILITY)
        p = log_p.exp()
        expected = (p * log_p.clamp_min(-1e30)).sum(dim=1)
        variance = (p * (log_p.clamp_min(-1e30) - expected[:, None]) ** 2).sum(dim=1)
        own = rows.gather(1, targets[:, None])
        index = torch.arange(rows.shape[1], device=rows.device)
        rank = ((rows > own) | ((rows == own) & (index < targets[:, None]))).sum(dim=1)
        scaled = rows / temperature
        if top_k is not None and top_k < rows.shape[1]:
            total = torch.logsumexp(scaled.topk(top_k, dim=1).values, dim=1)
        else:
            total = torch.logsumexp(scaled, dim=1)
        sampled = scaled.gather(1, targets[:, None]).squeeze(1) - total
        if top_k is not None:
            sampled = torch.where(rank < top_k, sampled, -torch.inf)
        found.append(
            TokenStatistics(
                log_p=log_p.gather(1, targets[:, None]).squeeze(1).cpu().numpy(),
                expected=expected.cpu().numpy(),
                deviation=variance.sqrt().cpu().numpy(),
                rank=rank.cpu().numpy().astype(np.int64),
                log_p_sampled=sampled.cpu().numpy(),
                ids=targets.cpu().numpy().astype(np.int64),
            )
        )
    return found
