"""Membership scores of texts from token statistics of a language model; members score higher."""

from __future__ import annotations

import math
import zlib

import numpy as np

from auditor.core.rows import FloatArray


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
