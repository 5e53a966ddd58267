"""The attack calibrated by difficulty of Watson, Guo, Cormode and Sablayrolles (ICLR 2022)."""

from __future__ import annotations

from auditor.core.rows import BoolArray, FloatArray


def scores(loss: FloatArray, shadow_loss: FloatArray, inside: BoolArray) -> FloatArray:
    """``mean of the out-models' losses - loss`` (n,): the loss reduction against models not trained on the row.

    loss (n,) of the audited model; shadow_loss, inside (k, n): losses of the shadow models, and which learned the row.
    """
    out = ~inside
    difference: FloatArray = (shadow_loss * out).sum(axis=0) / out.sum(axis=0) - loss
    return difference
