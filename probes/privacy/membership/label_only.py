"""The label-only attack by perturbation of Choquette-Choo, Tramer, Carlini and Papernot (ICML 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import FloatArray, IntArray, is_number
from probes.robustness.corruptions import image_noise, sound_noise
from probes.robustness.table_noise import number_columns, with_noise
from probes.robustness.text_perturbations import with_typos

if TYPE_CHECKING:
    import pandas as pd

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Standard deviations of numbers, and shares of other values that are drawn anew.
_TABLE_LEVELS = ((0.1, 0.02), (0.3, 0.1), (1.0, 0.3))
_IMAGE_LEVELS = (0.02, 0.05, 0.1)
_SOUND_LEVELS = (0.02, 0.05, 0.1)
_TYPOS = (1, 2, 4)


def scores(
    model: AuditedModel, rows: AuditData, labels: IntArray, n_queries: int, rng: np.random.Generator
) -> FloatArray:
    """Share of ``n_queries`` perturbed copies of each row, and the row itself, with its true label decided; (n,).

    Members lie farther from the decision boundary. Only decisions are looked at. Copies of a table: noise of 0.1, 0.3
    and 1 standard deviations in its numbers, and 2, 10 and 30 % of its codes and words drawn anew from the column; of a
    text 1, 2 or 4 typing errors; of an image noise of 2, 5 or 10 % of the range.
    """
    held = model.decide(model.outputs(rows), rows.positive, rows.X) == labels
    total = held.astype(np.float64)
    for copy in _copies(rows, n_queries, rng):
        total += model.decide(model.predict_proba(copy), rows.positive, copy) == labels
    share: FloatArray = total / (n_queries + 1)
    return share


def _copies(rows: AuditData, n: int, rng: np.random.Generator) -> Iterator[Rows]:
    X = rows.X
    if rows.modality == "tabular":
        import pandas as pd

        for i in range(n):
            if isinstance(X, pd.DataFrame):
                yield _perturb(X, *_TABLE_LEVELS[i % 3], rng)
            else:
                yield _perturb(pd.DataFrame(X), *_TABLE_LEVELS[i % 3], rng).to_numpy()
    elif rows.modality == "text":
        for i in range(n):
            yield np.asarray([with_typos(str(text), [_TYPOS[i % 3]], rng)[0] for text in X], object)
    elif rows.modality == "audio":
        sound = np.asarray(X, np.int16)
        for i in range(n):
            yield sound_noise(sound, rng.standard_normal(sound.shape, dtype=np.float32), _SOUND_LEVELS[i % 3])
    else:
        pixels = np.asarray(X, np.uint8)
        for i in range(n):
            yield image_noise(pixels, rng.standard_normal(pixels.shape, dtype=np.float32), _IMAGE_LEVELS[i % 3])


def _perturb(frame: pd.DataFrame, noise: float, share: float, rng: np.random.Generator) -> pd.DataFrame:
    numeric = number_columns(frame, [name for name in frame.columns if is_number(frame[name])])
    out = with_noise(frame, numeric, rng.standard_normal((len(frame), len(numeric))), noise)
    for name in frame.columns:
        if name not in {column.name for column in numeric}:
            drawn = rng.random(len(frame)) < share
            others = frame[name].iloc[rng.integers(0, max(len(frame), 1), len(frame))].set_axis(frame.index)
            out[name] = frame[name].mask(drawn, others)
    return out
