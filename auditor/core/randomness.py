"""Seeding of the global random generators of other libraries, with their state restored afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@contextmanager
def seeded_globals(rng: np.random.Generator) -> Iterator[None]:
    """Seeds python's, numpy's legacy and torch's global generators from ``rng``; restores all of them afterwards.

    For libraries that draw from a global generator: inside, the same ``rng`` gives the same draws; outside, nobody's
    sequence has moved. Takes three draws of ``rng``. CUDA generators take part where CUDA is in use already.
    """
    import torch

    seeds = [int(seed) for seed in rng.integers(2**32, size=3)]
    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])
    if of_cuda:
        torch.cuda.manual_seed_all(seeds[2])
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)


def forked(*devices: torch.device) -> AbstractContextManager[None]:
    """Context in which torch's global generators may change; CPU and these devices are restored afterwards.

    Without names ``torch.random.fork_rng`` saves those of every card of the machine, and warns of several.
    """
    import torch

    cards = {
        torch.cuda.current_device() if device.index is None else device.index
        for device in devices
        if device.type == "cuda"
    }
    return torch.random.fork_rng(devices=sorted(cards))
