"""Integrated gradients of 1,000 rows at 50 steps, against captum's own loop with ``internal_batch_size`` tuned by hand.

Two networks: an MLP of 20 features, and a BiLSTM over 1,000 texts of 8 to 16 words, integrated in the embeddings. Ours
is what the probe calls: the question posed, memory measured, scores at both ends of every path, attributions summed to
features or words. The peer is ``captum.attr.IntegratedGradients`` on the same tensors and baselines, nothing else, at
the size that was its best in a first round. Both attribute the log-odds by 50 Gauss-Legendre steps and must agree to
1e-4 of the range, which is checked, not assumed. ratio = peer seconds / our seconds, median of interleaved pairs, of
the network for which it is smaller; ``cpu_ratio``, of processor times, is what to look at where other work shares the
machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from auditor.core.rows import FloatArray
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import NumericColumn, TabularPreprocessing, TextPreprocessing
from auditor.models.networks.architectures import MLP, BiLSTMText
from auditor.models.torch_model import TorchModel
from benchmarks.common import emit
from probes.attribution.attribution_task import pose
from probes.attribution.gradient import Effort
from probes.attribution.methods import explain

ROWS, STEPS, FEATURES, LENGTH, WORDS, BAR = 1_000, 50, 20, 16, 5_000, 0.95
# captum takes at least one step of every row at once.
SIZES = (1_000, 2_000, 4_000, 8_000, 16_000)


@dataclass(frozen=True)
class Case:
    """One network with both ways to ask it; each returns (rows, units)."""

    ours: Callable[[], FloatArray]
    peer: Callable[[int], FloatArray]
    pairs: int
    sizes: tuple[int, ...] = SIZES


def _log_odds(logits: Tensor) -> Tensor:
    return logits[:, 1] - logits[:, 0]


def _captum(score: Callable[[Tensor], Tensor], points: Tensor, start: Tensor, size: int) -> Tensor:
    from captum.attr import IntegratedGradients

    found: Tensor = IntegratedGradients(score).attribute(
        points, baselines=start, n_steps=STEPS, method="gausslegendre", internal_batch_size=size
    )
    return found


def table() -> Case:
    """20 features, hidden layers of 64 and 32."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = MLP(FEATURES, [64, 32], 2).eval()
    columns = tuple(NumericColumn(name=f"x{i}") for i in range(FEATURES))
    model = TorchModel(module, classes=[0, 1], preprocessing=TabularPreprocessing(columns=columns))
    data = AuditData(X=pd.DataFrame(rng.normal(size=(ROWS, FEATURES)), columns=[c.name for c in columns]))
    inputs = model.encode(data.X)

    def ours() -> FloatArray:
        return _explained(model, data)

    def peer(size: int) -> FloatArray:
        start = inputs.mean(dim=0, keepdim=True)
        return _captum(lambda x: _log_odds(module(x)), inputs, start, size).numpy().astype(np.float64)

    return Case(ours, peer, pairs=15)


def text() -> Case:
    """A vocabulary of 5,000 words, embeddings of 32, an LSTM of 32 units each way."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = BiLSTMText(WORDS, 2, embedding_dim=32, hidden_size=32, dense=32).eval()
    vocabulary = {f"w{i}": i for i in range(1, WORDS)}
    preprocessing = TextPreprocessing(vocabulary=vocabulary, length=LENGTH)
    model = TorchModel(module, classes=[0, 1], preprocessing=preprocessing)
    texts = [" ".join(f"w{i}" for i in rng.integers(1, WORDS, n)) for n in rng.integers(8, LENGTH + 1, ROWS)]
    data = AuditData(X=np.asarray(texts, object))
    ids = model.encode(data.X)

    def from_embeddings(x: Tensor) -> Tensor:
        states, _ = module.lstm(x)
        return _log_odds(module.output(torch.relu(module.dense(states.max(dim=1).values))))

    def peer(size: int) -> FloatArray:
        with torch.no_grad():
            points = module.embedding(ids)
            start = module.embedding(torch.zeros_like(ids))
        per_token = _captum(from_embeddings, points, start, size).sum(dim=2).numpy().astype(np.float64)
        out = np.zeros((ROWS, LENGTH))
        for i, row in enumerate((ids != 0).numpy()):
            out[i, : row.sum()] = per_token[i, row]
        return out

    return Case(lambda: _explained(model, data), peer, pairs=3, sizes=SIZES[:3])


def _explained(model: Any, data: AuditData) -> FloatArray:
    rng = np.random.default_rng(0)
    problem = pose(model, data, data, np.ones(ROWS, np.int64), rng=rng)
    # Both take 50 steps: what the probe adds for rows that 50 do not suffice for is left out.
    return explain("integrated_gradients", problem, rng, Effort(n_steps=STEPS, max_steps=STEPS)).values


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - busy


def compared(case: Case) -> dict[str, float]:
    """Medians over interleaved pairs, at the peer's best size by processor time."""
    mine = case.ours()
    tried = {size: timed(lambda size=size: case.peer(size))[1] for size in case.sizes}  # type: ignore[misc]
    best = min(tried, key=lambda size: tried[size])
    theirs = case.peer(best)
    width = min(mine.shape[1], theirs.shape[1])
    apart = float(np.abs(mine[:, :width] - theirs[:, :width]).max()) / float(np.ptp(theirs.sum(axis=1)))
    if apart > 1e-4 or np.abs(theirs[:, width:]).any():
        raise SystemExit(f"The attributions disagree by {apart:.2g} of the range.")
    pairs = [(timed(case.ours), timed(lambda: case.peer(best))) for _ in range(case.pairs)]
    return {
        "ours": statistics.median(o for (o, _), _ in pairs),
        "peer": statistics.median(p for _, (p, _) in pairs),
        "ratio": statistics.median(p / o for (o, _), (p, _) in pairs),
        "cpu_ratio": statistics.median(p / o for (_, o), (_, p) in pairs),
        "peer_size": best,
        "largest_difference": float(f"{apart:.2g}"),
    }


def main() -> None:
    """Runs the comparison and prints it."""
    found = {name: compared(make()) for name, make in (("mlp", table), ("bilstm", text))}
    worst = min(found.values(), key=lambda f: f["ratio"])
    emit(
        "integrated_gradients", ours=worst["ours"], peer=worst["peer"], ratio=worst["ratio"], bar=BAR,
        threads=torch.get_num_threads(), cpu_ratio=round(min(f["cpu_ratio"] for f in found.values()), 3),
        **{name: {k: float(f"{v:.4g}") for k, v in f.items()} for name, f in found.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
