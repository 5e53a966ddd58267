"""What is wanted of one GPU, measured where there is one: each line against a bare way of doing the same on that card.

- ``pairs``: log-likelihoods of sentence pairs by SmolLM2-135M in bfloat16, against bare forward passes over the same
  tokens, padded, at the best of some batch sizes; at least 0.9 of their speed
- ``shadow_mlps``: 256 MLPs 50-64-64-2 trained together, against one by one by the same loop; at least 20 times
- ``shadow_cnns``: 32 small convolutional networks, likewise; at least 3 times

Without a card nothing is measured, which the exit code says. ``--smoke`` runs every line of it on the processor, as
small as can be: that it runs is all that this says. Names of measurements choose some of them. The step of DP-SGD
against Opacus (at least 1.0) and lm-eval on a card (at least 2 times) have no measurement here yet.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP, SmallCNN
from auditor.training.ensembles import random_halves, train_together
from benchmarks.common import emit, interleaved

PAIRS = 3


@dataclass(frozen=True)
class Size:
    """How large the measurements are."""

    texts: int = 1_000
    batch_sizes: Sequence[int] = (8, 16, 32, 64, 128, 256)
    mlps: int = 256
    cnns: int = 32
    rows: int = 4_000
    turns: int = PAIRS


TINY = Size(texts=4, batch_sizes=(2, 4), mlps=2, cnns=2, rows=32, turns=1)


def synchronised(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done the work."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def shadows(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    n_models: int,
    device: torch.device,
    *,
    rows: int = 4_000,
    turns: int = PAIRS,
) -> tuple[float, float, float]:
    """Seconds of training together and one by one, and how many times faster the first is."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(rows, *shape)).astype(np.float32))
    y = (x.reshape(rows, -1)[:, :5].sum(dim=1) > 0).long()
    x, y = x.to(device), y.to(device)
    members = random_halves(n_models, rows, rng)
    recipe = Recipe(optimizer="sgd", learning_rate=0.05, momentum=0.9, epochs=5, batch_size=128)

    def trained(stacked: bool) -> Callable[[], float]:
        return lambda: synchronised(
            lambda: train_together(
                make, x, y, members, seeds=range(n_models), recipe=recipe, stacked=stacked, most_together=n_models
            ),
            device,
        )

    return interleaved(trained(True), trained(False), turns)


def pairs(device: torch.device, size: Size) -> tuple[float, float, float]:
    """Seconds of scoring and of bare forward passes at their best batch, and the share of that speed."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from auditor.models.language_model import AuditedLanguageModel
    from benchmarks.lm_scoring import prepare, sentences

    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    texts, _ = sentences(size.texts)
    model = AuditedLanguageModel(network, tokenizer, device=device)
    encoded = sorted((tokenizer(text).input_ids for text in texts), key=len)

    def bare(n: int) -> None:
        with torch.inference_mode():
            for start in range(0, len(encoded), n):
                some = encoded[start : start + n]
                ids = torch.zeros(len(some), len(some[-1]), dtype=torch.long)
                for row, own in zip(ids, some, strict=True):
                    row[: len(own)] = torch.tensor(own)
                logits: Tensor = model.module(input_ids=ids.to(device), use_cache=False).logits
                logits.logsumexp(dim=-1)

    best = min(size.batch_sizes, key=lambda n: min(synchronised(lambda: bare(n), device) for _ in range(2)))
    return interleaved(
        lambda: synchronised(lambda: model.log_likelihoods(texts), device),
        lambda: synchronised(lambda: bare(best), device),
        size.turns,
    )


def main() -> None:
    """Measures what was named, or all, on the first card; with ``--smoke`` nothing, on the processor."""
    smoke = "--smoke" in sys.argv
    if not smoke and not torch.cuda.is_available():
        raise SystemExit("Nothing was measured: torch sees no CUDA device on this machine.")
    device, size = (torch.device("cpu"), TINY) if smoke else (torch.device("cuda"), Size())
    card = "none: --smoke on the processor, so no figure" if smoke else torch.cuda.get_device_name(device)

    def together(make: Callable[[], nn.Module], shape: tuple[int, ...], n: int) -> tuple[float, float, float]:
        return shadows(make, shape, n, device, rows=size.rows, turns=size.turns)

    measurements: dict[str, tuple[Callable[[], tuple[float, float, float]], float]] = {
        "pairs": (lambda: pairs(device, size), 0.9),
        "shadow_mlps": (lambda: together(lambda: MLP(50, [64, 64], 2), (50,), size.mlps), 20.0),
        "shadow_cnns": (lambda: together(lambda: SmallCNN(1, 2), (1, 28, 28), size.cnns), 3.0),
    }
    wanted = [name for name in sys.argv[1:] if not name.startswith("--")] or list(measurements)
    for name in wanted:
        measure, bar = measurements[name]
        mine, peer, ratio = measure()
        emit(name, ours=mine, peer=peer, ratio=ratio, bar=bar, threads=torch.get_num_threads(), card=card)


if __name__ == "__main__":
    main()
