"""What a bundle of a table costs beside its own network: one row, and 100,000, with and without a rule by group.

A table of 12 columns, 6 of numbers and 6 of eight levels each, some values missing; an MLP of 64 and 32 units, saved
and loaded. Ours is ``predict_proba`` of the table, from its columns to probabilities. The peer is the same network on a
table, by a user of torch whose columns are numbers already, one for each that the encoding makes: its columns are taken
from the table as single precision, and batch by batch under ``inference_mode`` go through forward pass and softmax to
numpy. ``bare`` is that without a table, from tensors that are there. ``ratio`` is peer / ours, the smallest of one row
and 100,000 without a rule: ours may cost three times the network. Processor time, medians of interleaved repetitions.
The answers are checked to be the network's own to the bit.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from auditor.core.rows import FloatArray
from auditor.data.preprocessing import fit_tabular
from auditor.models.audited_model import BATCH_ROWS, AuditedModel
from auditor.models.networks.architectures import MLP
from auditor.models.postprocessing import GroupRule, PostprocessedModel, Postprocessing, Steps
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.api import load_model
from benchmarks.common import emit

ROWS, REPEATS, INNER, BAR = 100_000, 15, 100, 1 / 3


def table(n: int) -> pd.DataFrame:
    """Numbers and levels, a twentieth of the first of each missing."""
    rng = np.random.default_rng(0)
    found = {f"number {i}": rng.normal(size=n) for i in range(6)}
    levels = {f"level {i}": rng.choice(list("abcdefgh"), n) for i in range(6)}
    X = pd.DataFrame(found | levels)
    for name in ("number 0", "level 0"):
        X[name] = X[name].mask(pd.Series(rng.random(n) < 0.05))
    return X


def bundle(X: pd.DataFrame, folder: Path) -> TorchModel:
    """The bundle, as it is loaded."""
    encoding = fit_tabular(X.iloc[:5_000])
    torch.manual_seed(0)
    arguments = {"n_features": encoding.width, "hidden": [64, 32], "n_outputs": 2}
    module = MLP(**arguments)  # type: ignore[arg-type]
    made = TorchModel(
        module, classes=("no", "yes"), preprocessing=encoding, architecture={"name": "mlp", "args": arguments}
    )
    save(made, folder / "model.pt")
    loaded = load_model(folder / "model.pt")
    assert isinstance(loaded, TorchModel)
    return loaded


def by_group(model: TorchModel) -> PostprocessedModel:
    """A threshold for each level of a column."""
    groups = tuple(
        GroupRule(group=(g,), rule=Steps(thresholds=(0.4 + 0.02 * i,), chances=(0.0, 1.0)))
        for i, g in enumerate("abcdefgh")
    )
    rule = Postprocessing(columns=("level 1",), positive=1, groups=groups, otherwise=groups[0].rule)
    return PostprocessedModel(model, rule)


def alone(module: torch.nn.Module, parts: list[Tensor]) -> FloatArray:
    """The network on encoded rows."""
    with torch.inference_mode():
        return np.concatenate([torch.softmax(module(part).double(), dim=1).numpy() for part in parts])


def on_a_table(module: torch.nn.Module, encoded: pd.DataFrame, columns: list[str]) -> FloatArray:
    """The network on a table of numbers that holds its columns."""
    taken = torch.from_numpy(encoded[columns].to_numpy(np.float32))
    return alone(module, list(taken.split(BATCH_ROWS)))


def processor_seconds(work: Callable[[], object], times: int) -> float:
    """Of one call, over so many."""
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def cost(model: AuditedModel, own: TorchModel, X: pd.DataFrame) -> tuple[float, float, float]:
    """Milliseconds of ours, of the network on a table, and of the bare network."""
    parts = [own.encode(X.iloc[i : i + BATCH_ROWS]) for i in range(0, len(X), BATCH_ROWS)]
    columns = [f"encoded {i}" for i in range(parts[0].shape[1])]
    encoded = pd.DataFrame(torch.cat(parts).numpy(), columns=columns).assign(note=0.0)
    if model is own:
        assert np.array_equal(model.predict_proba(X), alone(own.module, parts))
    times = INNER if len(X) == 1 else 1
    seconds: list[list[float]] = [[], [], []]
    for _ in range(REPEATS):
        for kept, work in zip(
            seconds,
            (
                lambda: model.predict_proba(X),
                lambda: on_a_table(own.module, encoded, columns),
                lambda: alone(own.module, parts),
            ),
            strict=True,
        ):
            kept.append(1e3 * processor_seconds(work, times))
    ours, peer, bare = map(statistics.median, seconds)
    return ours, peer, bare


def main() -> None:
    """Prints the cost of one row and of many."""
    torch.set_num_threads(1)
    X = table(ROWS)
    with tempfile.TemporaryDirectory() as folder:
        own = bundle(X, Path(folder))
    found = {
        (what, n): cost(model, own, X.iloc[:n])
        for what, model in (("plain", own), ("by group", by_group(own)))
        for n in (1, ROWS)
    }
    worst = max((found["plain", n] for n in (1, ROWS)), key=lambda each: each[0] / each[1])
    more = {
        f"{what}, {n:,} rows": f"{a:.3g} ms; {a / b:.2f} times the network on a table, {a / c:.2f} times the bare one"
        for (what, n), (a, b, c) in found.items()
    }
    ours, peer, _ = worst
    emit("predict_cost", ours=ours / 1e3, peer=peer / 1e3, ratio=peer / ours, bar=BAR, threads=1, **more)


if __name__ == "__main__":
    main()
