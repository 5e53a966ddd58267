"""A network that is looked at while it learns, and is left exactly as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from auditor.gradients import amid_training


def bare(model: nn.Module) -> nn.Module:
    """The network inside its wrappers: DistributedDataParallel, Opacus's GradSampleModule, ``torch.compile``."""
    while True:
        for inner in ("_orig_mod", "_module", "module"):
            found = getattr(model, inner, None)
            # A network of one's own may have a layer of that name; a wrapper has nothing beside it.
            if isinstance(found, nn.Module) and len(list(model.children())) == 1:
                model = found
                break
        else:
            return model


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; flags, gradients, ``requires_grad`` and all global generators as they were afterwards.

    Gradients are set aside and not copied. Parameters and buffers are the business of whoever asks: probes read them.
    """
    flags = [(m, m.training) for m in module.modules()]
    held = [(p, p.grad, p.requires_grad) for p in module.parameters()]
    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with_gradients = torch.is_grad_enabled()
    for parameter, _, _ in held:
        parameter.grad = None
    module.eval()
    try:
        torch.set_grad_enabled(True)
        with amid_training():
            yield
    finally:
        torch.set_grad_enabled(with_gradients)
        for m, flag in flags:
            m.training = flag
        for parameter, gradient, required in held:
            parameter.grad = gradient
            parameter.requires_grad_(required)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)


def stamp(module: nn.Module) -> tuple[tuple[int, int], ...]:
    """Where each parameter and buffer lies and how often it was written: equal stamps, unchanged weights."""
    return tuple((t.data_ptr(), t._version) for t in (*module.parameters(), *module.buffers()))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights and buffers, in main memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}


def put_back(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Writes a snapshot into the network that it was taken of, in place."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(weights[name])
