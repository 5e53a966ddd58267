"""Shadow models in a stack against one by one, and whether the rule that counts operations takes the faster way.

Eight models each on half of a pool, for networks from a small MLP to a transformer. ``ours`` is the processor time of
the way that the rule takes, ``peer`` that of the better one of both, summed over the networks in units of the better
one; ``ratio`` is 1 where the rule is always right. Ways are timed in turns, the least of ``TURNS`` is taken. Beside
each the seconds that ``predicted_seconds`` says of either way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP, BiLSTMText, SmallCNN, TransformerEncoder
from auditor.training.ensembles import predicted_seconds, random_halves, train_together
from benchmarks.common import emit

MODELS, TURNS, BAR = 8, 3, 0.9


def networks() -> dict[str, tuple[Callable[[], nn.Module], Tensor, int]]:
    """Untrained networks, rows for them, and how many are a batch."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    def words(n: int, length: int) -> Tensor:
        return torch.from_numpy(rng.integers(0, 500, (n, length)))

    return {
        "mlp 20-64-32, batches of 32": (lambda: MLP(20, [64, 32], 2), numbers(2048, 20), 32),
        "mlp 50-64-64, batches of 128": (lambda: MLP(50, [64, 64], 2), numbers(4096, 50), 128),
        "mlp 100-256-256, batches of 256": (lambda: MLP(100, [256, 256], 2), numbers(4096, 100), 256),
        "mlp with dropout 50-64-64": (lambda: MLP(50, [64, 64], 2, 0.2), numbers(4096, 50), 128),
        "mlp with dropout 100-256-256": (lambda: MLP(100, [256, 256], 2, 0.2), numbers(4096, 100), 256),
        "cnn 8 x 8, batches of 32": (lambda: SmallCNN(1, 10), numbers(512, 1, 8, 8), 32),
        "cnn 8 x 8, batches of 128": (lambda: SmallCNN(1, 10), numbers(1024, 1, 8, 8), 128),
        "cnn 16 x 16, batches of 64": (lambda: SmallCNN(1, 10), numbers(512, 1, 16, 16), 64),
        "cnn 28 x 28, batches of 64": (lambda: SmallCNN(1, 10), numbers(256, 1, 28, 28), 64),
        "transformer, 10 words, batches of 16": (lambda: TransformerEncoder(500, 2, 10, 16, 2, 1), words(256, 10), 16),
        "transformer, 20 words, batches of 64": (lambda: TransformerEncoder(500, 2, 20, 32, 2, 1), words(512, 20), 64),
        "transformer, 40 words, batches of 64": (lambda: TransformerEncoder(500, 2, 40), words(256, 40), 64),
        "bilstm, 20 words, batches of 64": (lambda: BiLSTMText(500, 2), words(512, 20), 64),
    }


def main() -> None:
    """Times both ways and prints what the rule takes."""
    torch.set_num_threads(1)
    chosen, best, lines = [], [], {}
    for name, (make, x, batch_size) in networks().items():
        recipe = Recipe(epochs=2, batch_size=batch_size)
        members = random_halves(MODELS, len(x), np.random.default_rng(0))
        y = torch.from_numpy(np.random.default_rng(1).integers(0, 2, len(x)))

        def taken(stacked: bool, make=make, x=x, y=y, members=members, recipe=recipe) -> tuple[float, bool]:  # type: ignore[no-untyped-def]
            started = time.process_time()
            found = train_together(make, x, y, members, seeds=range(MODELS), recipe=recipe, stacked=stacked)
            return time.process_time() - started, bool(found.notes)

        def said(stacked: bool | None, make=make, x=x, recipe=recipe) -> float:  # type: ignore[no-untyped-def]
            return predicted_seconds(
                make, x, n_models=MODELS, n_learned=len(x) // 2, n_classes=2, recipe=recipe, stacked=stacked
            )

        cannot = taken(True)[1]
        times = {way: min(taken(way)[0] for _ in range(TURNS)) for way in (False, True)}
        stacks = not cannot and said(None) < said(False)
        rule, better = times[stacks], min(times.values()) if not cannot else times[False]
        chosen.append(rule / better)
        best.append(1.0)
        lines[name] = (
            f"stacked {times[True]:.2f} s (predicted {said(True):.2f}), one by one {times[False]:.2f} s "
            f"(predicted {said(False):.2f}); "
            + ("cannot be stacked" if cannot else f"the rule {'stacks' if stacks else 'does not stack'}")
        )
    emit(
        "shadow_ways", ours=sum(chosen), peer=sum(best), ratio=sum(best) / sum(chosen), bar=BAR, threads=1,
        load=round(os.getloadavg()[0], 1), **lines,
    )  # fmt: skip


if __name__ == "__main__":
    main()
