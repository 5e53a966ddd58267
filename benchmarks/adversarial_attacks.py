"""The gradient attack of ``robustness`` against the strongest of its peers, row by row.

Digits (8 x 8) by small networks, plain and trained on adversarial examples. Each peer attacks the rows that the network
decides rightly; a row is broken by peers where any of them breaks it: torchattacks' APGD-CE and targeted APGD (APGDT),
100 steps each, and ART's PGD, 100 steps with 5 restarts. Ours is what the probe calls, on all rows, wrongly decided
ones too. ``only_peers``: share of the rows that peers break and ours does not, largest over networks and levels, to be
at most 0.005; ``only_ours``: the other way round; ``strength``: rows that ours breaks / rows that peers break, of those
decided rightly, the smallest. ratio = APGDT's processor time / ours, the smallest: the bar is 2.
``python -m benchmarks.adversarial_attacks``
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.rows import BoolArray, IntArray
from auditor.models.torch_model import TorchModel
from benchmarks.common import emit
from probes.robustness.perturbation_set import ball_of
from probes.robustness.worst_case_search import attack
from tests.toys import masks

ROWS, BAR, MOST = 400, 2.0, 0.005
LEVELS = (0.05, 0.1, 0.15)


def _networks() -> dict[str, nn.Module]:
    return {
        "mlp": masks.mlp(),
        "mlp, trained at 0.1": masks.mlp((64, 32), 1, 0.1),
        "cnn": masks.cnn(8),
        "cnn, trained at 0.1": masks.trained_well(8, 0.1),
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


def _peers(net: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> tuple[BoolArray, dict[str, float], float]:
    import torchattacks
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    art = PyTorchClassifier(net, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), device_type="cpu")
    ways: dict[str, Callable[[], Tensor]] = {
        "APGD-CE": lambda: torchattacks.APGD(net, eps=epsilon, steps=100, n_restarts=1)(x, y),
        "APGDT": lambda: torchattacks.APGDT(net, eps=epsilon, steps=100, n_classes=10)(x, y),
        "ART PGD": lambda: torch.from_numpy(
            ProjectedGradientDescentPyTorch(
                art, eps=epsilon, eps_step=epsilon / 10, max_iter=100, num_random_init=5, batch_size=512, verbose=False
            ).generate(x.numpy(), y=y.numpy())
        ),
    }
    broken, left, seconds = np.zeros(len(x), bool), {}, 0.0
    for name, way in ways.items():
        found, took = _timed(way)
        seconds = took if name == "APGDT" else seconds
        assert float((found - x).abs().max()) <= epsilon + 1e-6
        with torch.no_grad():
            own = (net(found).argmax(dim=1) != y).numpy()
        left[name], broken = round(1.0 - float(own.mean()), 4), broken | own
    return broken, left, seconds


def main() -> None:
    """Runs all and prints one record."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    data = masks.rows(ROWS)
    assert data.y_true is not None
    worst, more, ratios, strengths, times, said = 0.0, 0.0, [], [], (0.0, 0.0), {}
    for name, net in _networks().items():
        model: TorchModel = masks.model(net)
        x = model.encode(data.X)
        clean: IntArray = model.decide(model.predict_proba(data.X), None)
        right = clean == data.y_true
        y = torch.from_numpy(np.asarray(data.y_true))
        for level in LEVELS:
            broken, left, theirs = _peers(net, x, y, level)
            attacked, mine = _timed(
                lambda model=model, x=x, clean=clean, level=level: attack(  # type: ignore[misc]
                    model, x, clean, lambda p: p.argmax(axis=1), ball=ball_of(model, data, x), levels=[level],
                    n_steps=20, rng=np.random.default_rng(0),
                )
            )  # fmt: skip
            own = attacked.broken[0] | ~right
            worst, more = max(worst, float((broken & ~own).mean())), max(more, float((own & ~broken).mean()))
            ratios.append(theirs / mine)
            strengths.append(float((own & right).sum() / (broken & right).sum()))
            times = (times[0] + mine, times[1] + theirs)
            said[f"{name} at {level:g}"] = (
                f"accuracy ours {1 - own.mean():.4f}, {left}; only peers {(broken & ~own).sum()}, only ours "
                f"{(own & ~broken).sum()} of {len(own)}; {mine:.2f} s, APGDT {theirs:.2f} s"
            )
    emit(
        "adversarial_attacks", ours=times[0], peer=times[1], ratio=min(ratios), bar=BAR, threads=1,
        strength=round(min(strengths), 4), only_peers=worst, only_peers_bar=MOST, only_ours=more, **said,
    )  # fmt: skip


if __name__ == "__main__":
    main()
