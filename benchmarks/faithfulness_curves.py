"""Deletion and insertion curves of 256 samples at 10 steps, against the same forward passes without anything around.

Two networks: a BiLSTM over texts of 16 to 32 words, and a small convolutional network over pictures of 28 x 28 pixels.
Ours is what grades an explanation: units ranked, masks made, inputs with units taken away encoded, scores asked for,
curves put together, areas and means taken. Bare is the network alone on as many inputs of that shape, already made, in
batches of the size that was best in a first round, under ``inference_mode``. ratio = bare seconds / our seconds, median
of interleaved pairs, of the network for which it is smaller; ``cpu_ratio``, of processor times, is what to look at
where other work shares the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import ImagePreprocessing, TextPreprocessing
from auditor.models.networks.architectures import BiLSTMText, SmallCNN
from auditor.models.torch_model import TorchModel
from benchmarks.common import emit
from benchmarks.integrated_gradients import timed
from probes.attribution.attribution_task import Problem, pose
from probes.attribution.faithfulness import ends, grade, random_attribution

SAMPLES, LENGTH, WORDS, SIDE, BAR, PAIRS = 256, 32, 5_000, 28, 0.77, 5
SIZES = (32, 128, 256)
FRACTIONS = tuple(round(0.1 * k, 1) for k in range(1, 11))


@dataclass(frozen=True)
class Case:
    """One question, and the network alone on ``n`` inputs in batches of ``at_once``."""

    problem: Problem
    bare: Callable[[int, int], None]


def _question(model: Any, data: AuditData) -> Problem:
    return pose(model, data, data, np.ones(len(data), np.int64), rng=np.random.default_rng(0))


def _bare(module: torch.nn.Module, inputs: torch.Tensor) -> Callable[[int, int], None]:
    """Runs the network over the inputs again and again until ``n`` have gone through."""

    def run(n: int, at_once: int) -> None:
        with torch.inference_mode():
            for i in range(0, n, at_once):
                size = min(at_once, n - i)
                start = i % max(1, len(inputs) - size + 1)
                module(inputs[start : start + size])

    return run


def text() -> Case:
    """A vocabulary of 5,000 words, embeddings of 50, an LSTM of 50 units each way."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = BiLSTMText(WORDS, 2).eval()
    preprocessing = TextPreprocessing(vocabulary={f"w{i}": i for i in range(1, WORDS)}, length=LENGTH)
    model = TorchModel(module, classes=[0, 1], preprocessing=preprocessing)
    texts = [" ".join(f"w{i}" for i in rng.integers(1, WORDS, n)) for n in rng.integers(16, LENGTH + 1, SAMPLES)]
    data = AuditData(X=np.asarray(texts, object))
    return Case(_question(model, data), _bare(module, model.encode(data.X)))


def pictures() -> Case:
    """Three channels, 49 patches."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = SmallCNN(3, 2).eval()
    model = TorchModel(module, classes=[0, 1], preprocessing=ImagePreprocessing(size=(SIDE, SIDE)))
    data = AuditData(X=rng.integers(0, 256, (SAMPLES, SIDE, SIDE, 3)).astype(np.uint8))
    return Case(_question(model, data), _bare(module, model.encode(data.X)))


def compared(case: Case) -> dict[str, float]:
    """Medians over interleaved pairs."""
    units, side = case.problem.units, case.problem.differentiable
    if side is None:
        raise SystemExit(f"The question has no differentiable side: {case.problem.why_not}")
    rows = np.arange(SAMPLES)
    values = random_attribution(units, rows, np.random.default_rng(1))
    asked: list[int] = []

    def counting(rows: Any, keep: Any) -> Any:
        asked.append(len(rows))
        return units.score(rows, keep)

    counted = replace(units, score=counting)
    grade(counted, rows, {"random": values}, np.random.default_rng(2), FRACTIONS)
    n = sum(asked)
    ends(units, rows)

    def ours() -> None:
        grade(units, rows, {"random": values}, np.random.default_rng(2), FRACTIONS)

    def bare(at_once: int) -> None:
        case.bare(n, at_once)

    bare(side.rows_at_once)
    tried = {size: timed(lambda size=size: bare(size))[1] for size in (side.rows_at_once, *SIZES)}  # type: ignore[misc]
    best = min(tried, key=lambda size: tried[size])
    pairs = [(timed(ours), timed(lambda: bare(best))) for _ in range(PAIRS)]
    return {
        "ours": statistics.median(o for (o, _), _ in pairs),
        "peer": statistics.median(p for _, (p, _) in pairs),
        "ratio": statistics.median(p / o for (o, _), (p, _) in pairs),
        "cpu_ratio": statistics.median(p / o for (_, o), (_, p) in pairs),
        "forward_passes": n,
        "peer_size": best,
    }


def main() -> None:
    """Runs the comparison and prints it."""
    found = {name: compared(make()) for name, make in (("bilstm", text), ("cnn", pictures))}
    worst = min(found.values(), key=lambda f: f["ratio"])
    emit(
        "faithfulness_curves", ours=worst["ours"], peer=worst["peer"], ratio=worst["ratio"], bar=BAR,
        threads=torch.get_num_threads(), cpu_ratio=round(min(f["cpu_ratio"] for f in found.values()), 3),
        **{name: {k: float(f"{v:.4g}") for k, v in f.items()} for name, f in found.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
