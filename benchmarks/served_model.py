"""How often `served_model` accuses a server of the reference itself, and how often it catches one of something else.

`python -m benchmarks.served_model` draws ranks of simulated worlds, whose distributions are known.
`python -m benchmarks.served_model FOLDER [RUNS]` lets a language model in a folder draw texts in this process, as
it is and as others serve it, and holds them against it: by tokens alone (power), and by log-probabilities (bounds of
the distance).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditor.models.endpoint.reference_ranks import NAMELESS, Placing, Spelling, compare, p_of_usual
from auditor.models.endpoint.served_model import FALSE_RANKS, LENGTH, TESTED, openings
from auditor.models.endpoint.server_findings import ServedText, ServedTexts
from auditor.models.language_model import AuditedLanguageModel
from auditor.statistics.significance_tests import p_of_uniform
from benchmarks.common import machine

N = 685
Sampler = Callable[[Tensor], Tensor]


def worlds(runs: int = 1_000) -> None:
    """False alarms and power where 64 tokens have probabilities that differ from place to place."""
    rng = np.random.default_rng(0)

    def shares(logits: np.ndarray) -> np.ndarray:
        raised: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    def tested(p: np.ndarray, q: np.ndarray) -> tuple[float, float]:
        """p-values of draws from q as draws from p, by ranks alone and as the command has them; both (N, tokens)."""
        x = (q.cumsum(axis=1) < rng.random((N, 1)) * q.sum(axis=1, keepdims=True)).sum(axis=1)
        places = [Placing(row).place_of(int(drawn)) for row, drawn in zip(p, x, strict=True)]
        by_ranks = p_of_uniform([place.above + v * place.own for place, v in zip(places, rng.random(N), strict=True)])
        return by_ranks, min(1.0, 2.0 * min(by_ranks, p_of_usual(places)))

    alter: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "the same": lambda z: z,
        "temperature 0.9": lambda z: z / 0.9,
        "top_k 40": lambda z: np.where(np.arange(z.shape[1]) < 40, z, -np.inf),
        "noise of 1 nat": lambda z: z + rng.normal(0.0, 1.0, z.shape),
        "another order": lambda z: rng.permuted(z, axis=1),
    }
    for name, change in alter.items():
        found = []
        for _ in range(runs if name == "the same" else runs // 10):
            logits = -np.sort(-rng.normal(0.0, 2.0, (N, 64)), axis=1)
            found.append(tested(shares(logits), shares(change(logits))))
        for how, p in zip(("ranks alone", "both tests"), np.transpose(found), strict=True):
            rates = ", ".join(f"{np.mean(p <= level):.4f} at {level:g}" for level in (0.05, 0.01, FALSE_RANKS))
            print(f"{name:<16} {len(p)} runs of {N} tokens, {how}: rejected {rates}", flush=True)


def on_a_grid(network: Any, bits: int, group: int = 32) -> Any:
    """The network with every matrix but the embeddings rounded to so many bits, by the largest of each 32 weights."""
    made = deepcopy(network)
    for name, weights in made.named_parameters():
        if weights.ndim == 2 and "embed" not in name:
            parts = weights.data.view(-1, group)
            step = parts.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            weights.data = ((parts / step).round() * step).view_as(weights)
    return made


def llama_cpp(logs: Tensor) -> Tensor:
    """top_k 40, top_p 0.95 and min_p 0.05, as an ordinary request to llama.cpp samples."""
    best, order = logs.softmax(-1).sort(dim=-1, descending=True)
    best[:, 40:] = 0.0
    best = best / best.sum(-1, keepdim=True)
    best[best.cumsum(-1) - best >= 0.95] = 0.0
    best[best < 0.05 * best[:, :1]] = 0.0
    return torch.zeros_like(logs).scatter(-1, order, best)


def top_k(logs: Tensor) -> Tensor:
    return torch.where(logs >= logs.topk(40).values[:, -1:], logs, -torch.inf).softmax(-1)


@torch.inference_mode()
def texts_of(
    network: Any, reference: AuditedLanguageModel, spelling: Spelling, sampler: Sampler, seed: int
) -> ServedTexts:
    """Texts as a server of the network would answer them with their tokens."""
    generator = torch.Generator().manual_seed(seed)
    prompts = openings(TESTED // LENGTH, np.random.default_rng(seed))
    encoded = [list(e.ids) for e in reference.as_sent().encode(prompts)]
    longest = max(map(len, encoded))
    ids = torch.tensor([[0] * (longest - len(e)) + e for e in encoded])
    mask = torch.tensor([[0] * (longest - len(e)) + [1] * len(e) for e in encoded])
    cache, fed = None, ids
    tokens: list[list[int]] = [[] for _ in prompts]
    values: list[list[float]] = [[] for _ in prompts]
    for _ in range(LENGTH):
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -fed.shape[1] :]
        out = network(
            input_ids=fed, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True, logits_to_keep=1
        )
        cache = out.cache
        logs = out.logits[:, -1].float().log_softmax(-1)
        fed = torch.multinomial(sampler(logs), 1, generator=generator)
        mask = torch.cat([mask, torch.ones_like(fed)], 1)
        for r, token in enumerate(fed[:, 0].tolist()):
            tokens[r].append(token)
            values[r].append(float(logs[r, token]))
    return ServedTexts(
        route="completions",
        texts=tuple(_text(spelling, *each) for each in zip(prompts, tokens, values, strict=True)),
        n_tested=TESTED,
    )


def _text(spelling: Spelling, prompt: str, tokens: list[int], values: list[float]) -> ServedText:
    names = [spelling.names[i] for i in tokens]
    classes = spelling.classes[tokens].tolist()
    end = classes.index(NAMELESS) if NAMELESS in classes else len(classes)
    return ServedText(
        prompt=prompt,
        text="".join(names[:end]),
        reported=True,
        ended=end < len(classes),
        tokens=tuple(names[:end]),
        log_probabilities=tuple(values[:end]),
    )


def of_a_model(folder: str, runs: int) -> None:
    """A model against itself, and against itself as others serve it."""
    from auditor.loading.formats import load_model
    from auditor.loading.job_specs import ModelSpec

    reference = load_model(ModelSpec(path=folder))
    assert isinstance(reference, AuditedLanguageModel)
    spelling, whole = Spelling.from_model(reference), reference.module.eval()
    ways: dict[str, tuple[Callable[[], Any], Sampler]] = {
        "as it is": (lambda: whole, lambda logs: logs.softmax(-1)),
        "temperature 0.9": (lambda: whole, lambda logs: (logs / 0.9).softmax(-1)),
        "4 bits": (lambda: on_a_grid(whole, 4), lambda logs: logs.softmax(-1)),
        "8 bits": (lambda: on_a_grid(whole, 8), lambda logs: logs.softmax(-1)),
        "bfloat16": (lambda: deepcopy(whole).bfloat16(), lambda logs: logs.softmax(-1)),
        "top_k 40": (lambda: whole, top_k),
        "llama.cpp": (lambda: whole, llama_cpp),
    }
    for name, (make, sampler) in ways.items():
        begun, network = time.process_time(), make()
        found = []
        for seed in range(runs):
            texts = texts_of(network, reference, spelling, sampler, seed)
            found.append(compare(reference, texts, np.random.default_rng(seed)))
        p = np.asarray([each.p for each in found])
        print(
            f"{name:<16} {runs} runs of {TESTED} tokens: rejected {np.mean(p <= 0.05):.2f} at 0.05, "
            f"{np.mean(p <= FALSE_RANKS):.2f} at {FALSE_RANKS:g}, median p {np.median(p):.2g}; total variation from "
            f"{np.mean([each.nearest for each in found]):.4f} to {np.mean([each.farthest for each in found]):.4f}; "
            f"{(time.process_time() - begun) / runs:.1f} s of processor time a run",
            flush=True,
        )


if __name__ == "__main__":
    print(machine())
    if len(sys.argv) > 1:
        of_a_model(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20)
    else:
        worlds()
