"""Membership scores of texts: token statistics of a language model, scores from them, and the blind baseline."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray, IntArray
from auditor.models.language_model import NO_PROBABILITY, AuditedLanguageModel
from auditor.models.prefix_trees import Encoded
from auditor.models.torch_context import without_gradients
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


def loss_score(log_p: FloatArray) -> float:
    """Mean log-likelihood of a token, in nats: LOSS. Source: Yeom et al., CSF 2018."""
    return float(log_p.mean())


def zlib_score(log_p: FloatArray, text: str) -> float:
    """``-(mean loss) / (bytes of the text compressed by zlib)``. Source: Carlini et al., USENIX Security 2021."""
    return float(log_p.mean()) / len(zlib.compress(text.encode("utf-8", "replace")))


def min_k_score(log_p: FloatArray, share: float) -> float:
    """Mean log-likelihood of the least likely ``share`` of the tokens, at least one. Source: Shi et al., ICLR 2024."""
    return _lowest(log_p, share)


def min_k_plus_plus_score(log_p: FloatArray, expected: FloatArray, deviation: FloatArray, share: float) -> float:
    """:func:`min_k_score` of ``(log p - mu) / sigma``, with mu and sigma over the vocabulary at each position.

    A place where the model is certain (sigma = 0) counts as 0, as the limit where the token is the certain one.
    Source: Zhang et al., ICLR 2025 (arXiv:2404.02936).
    """
    safe = np.where(deviation > 1e-6, deviation, 1.0)
    z = np.where(deviation > 1e-6, (log_p - expected) / safe, np.where(log_p >= expected - 1e-3, 0.0, -1e6))
    return _lowest(z, share)


def reference_score(log_likelihood: float, reference: float, n_tokens: int) -> float:
    """``(log p(text) - log p_reference(text)) / tokens``. Source: Carlini et al., USENIX Security 2021."""
    return (log_likelihood - reference) / n_tokens


def _lowest(values: FloatArray, share: float) -> float:
    k = max(1, math.floor(share * values.size))
    return float(np.partition(values, k - 1)[:k].mean())


FEWEST_TEXTS = 40
_FOLDS = 5
_YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d)(?!\d)")
_WORDS = 1 << 13


def surface(text: str) -> list[float]:
    """Length, words, shares of kinds of characters, and the years that a text names: (9,) numbers."""
    size, words = max(len(text), 1), text.split()
    years = [int(y) for y in _YEAR.findall(text)]
    return [
        np.log1p(len(text)),
        np.log1p(len(words)),
        len(text) / max(len(words), 1),
        sum(c.isdigit() for c in text) / size,
        sum(c.isupper() for c in text) / size,
        sum(not (c.isalnum() or c.isspace()) for c in text) / size,
        float(max(years)) if years else 1900.0,
        float(min(years)) if years else 1900.0,
        float(len(years)),
    ]


def blind_scores(
    members: Sequence[str], others: Sequence[str], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Scores (n_members,), (n_others,) in (0, 1), higher for members, by two classifiers of the texts alone.

    Logistic regression on words and gradient-boosted trees on length, characters and years, each cross-fitted over five
    folds, so that no text is scored by what learned it. Scores are ranks within a fold, because learners of different
    folds have no common scale, averaged over both.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = [*members, *others]
    label = np.repeat([1, 0], [len(members), len(others)])
    words = HashingVectorizer(n_features=_WORDS, token_pattern=r"\w+|[^\w\s]", alternate_sign=False).transform(texts)
    numbers = np.asarray([surface(text) for text in texts])
    fold = np.empty(len(texts), np.int64)
    for side in (0, 1):
        own = rng.permutation(np.flatnonzero(label == side))
        fold[own] = np.arange(own.size) % _FOLDS
    scores = np.empty(len(texts))
    for k in range(_FOLDS):
        out = fold == k
        linear = LogisticRegression(C=10.0, solver="liblinear", max_iter=500, random_state=0)
        trees = HistGradientBoostingClassifier(
            max_iter=30, max_leaf_nodes=6, min_samples_leaf=10, early_stopping=False, random_state=0
        )
        by_words = linear.fit(words[~out], label[~out]).decision_function(words[out])
        by_surface = trees.fit(numbers[~out], label[~out]).decision_function(numbers[out])
        scores[out] = 0.5 * (_ranks(by_words) + _ranks(by_surface))
    return scores[: len(members)], scores[len(members) :]


def _ranks(values: FloatArray) -> FloatArray:
    ordered = np.sort(values)
    middle = 0.5 * (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right"))
    return np.asarray(middle / values.size, np.float64)
