"""Inspection of a network during training that leaves it unchanged; sharded parameters are gathered temporarily."""

from __future__ import annotations

import functools
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.models.torch_context import amid_training

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
# What fully_shard writes into a layer, and what cannot be copied with it.
_OF_SHARDING = ("__composable_api_", "_is_fsdp", "_fsdp")


def is_sharded(module: nn.Module) -> bool:
    """Whether the parameters are DTensors, or sharded by ``fully_shard``, so that no process has all of them."""
    return any(hasattr(p, "placements") for p in module.parameters()) or any(map(_is_fsdp, module.modules()))


def gathered(module: nn.Module) -> nn.Module:
    """A copy with complete parameters and without sharding hooks; all processes of the job must call it.

    It holds the numbers of a full state dict, in the precision that the shards are kept in, and needs the memory for
    them in every process. Buffers, and whatever else the layers hold, are shared with the network itself.
    """
    for m in module.modules():
        if _is_fsdp(m):
            # Between a forward and a backward pass they may be whole, and of another precision.
            m.reshard()  # type: ignore[operator]
    return _copied(module, {}, {})


def put_back_whole(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Write a snapshot of the whole network into its shards; all processes of the job must call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    options = StateDictOptions(full_state_dict=True, strict=False)
    set_model_state_dict(module, dict(weights), options=options)


def _copied(module: nn.Module, copies: dict[int, nn.Module], whole: dict[int, nn.Parameter]) -> nn.Module:
    if id(module) in copies:
        return copies[id(module)]
    kind = type(module)
    if _is_fsdp(module):
        # fully_shard makes a class of its own, of FSDPModule and of the layer's.
        kind = kind.__mro__[2]
    copy: nn.Module = object.__new__(kind)
    copies[id(module)] = copy
    copy.__dict__.update({n: value for n, value in vars(module).items() if not n.startswith(_OF_SHARDING)})
    copy.__dict__.update(
        _parameters={name: None if p is None else _whole(p, whole) for name, p in module._parameters.items()},
        _buffers=dict(module._buffers),
        _modules={n: None if m is None else _copied(m, copies, whole) for n, m in module._modules.items()},
        **{name: _without_shards(getattr(module, name)) for name in _HOOKS},
    )
    return copy


def _whole(parameter: nn.Parameter, copies: dict[int, nn.Parameter]) -> nn.Parameter:
    if id(parameter) not in copies:
        full_tensor = getattr(parameter, "full_tensor", None)
        if full_tensor is None and hasattr(parameter, "placements"):
            raise ModelError("The parameters are sharded in a way that is not torch's own (FSDP by fully_shard).")
        tensor = parameter.detach() if full_tensor is None else full_tensor().detach()
        copies[id(parameter)] = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
    return copies[id(parameter)]


def _without_shards(hooks: Mapping[int, Any]) -> OrderedDict[int, Any]:
    kept = {number: hook for number, hook in hooks.items() if not _of_torch_distributed(hook)}
    return OrderedDict(kept)


def _of_torch_distributed(hook: Any) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed.")


def _is_fsdp(module: nn.Module) -> bool:
    return any(kind.__name__ == "FSDPModule" and kind.__module__.startswith("torch.") for kind in type(module).__mro__)


_CHUNK = 1 << 22
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bare(model: nn.Module) -> nn.Module:
    """The network inside its wrappers: DistributedDataParallel, Opacus's GradSampleModule, ``torch.compile``.

    Raises ModelError for sharded parameters, of which no process has the whole.
    """
    model = unwrapped(model)
    if is_sharded(model) or any("FullyShardedDataParallel" in type(m).__name__ for m in model.modules()):
        raise ModelError(
            "The parameters are sharded over processes (FSDP), so that no process can answer alone: shard by "
            "fully_shard, which is gathered for each look, or audit the saved model."
        )
    return model


def unwrapped(model: nn.Module) -> nn.Module:
    """The innermost network, sharded or not."""
    for layer in wrappers(model):
        model = layer
    return model


def wrappers(model: nn.Module) -> Iterator[nn.Module]:
    """The modules inside each wrapper in turn, by type: a user's network may have a layer called ``module``."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    # Imported for its own sake it takes seconds; where nobody imported it nothing has been compiled.
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    compiled: type | tuple[()] = () if compiler is None else compiler.OptimizedModule

    while True:
        inner: object = None
        if isinstance(model, compiled):
            inner = model._orig_mod
        elif isinstance(model, (DataParallel, DistributedDataParallel)):
            inner = model.module
        elif type(model).__module__.startswith("opacus."):
            inner = getattr(model, "_module", None)
        if not isinstance(inner, nn.Module):
            return
        model = inner
        yield model


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; flags, devices, gradients, ``requires_grad`` and global generators as before afterwards.

    Gradients are set aside and not copied; hooks that Opacus hung on the layers do nothing inside. What parameters and
    buffers hold is for :func:`unchanged` to tell.
    """
    module = bare(model)
    flags = [(m, m.training) for m in module.modules()]
    held = [(p, p.data, p.grad, p.requires_grad) for p in module.parameters()]
    places = [(m, name, p) for m in module.modules() for name, p in m._parameters.items() if p is not None]
    buffers = [(m, name, b) for m in module.modules() for name, b in m._buffers.items() if b is not None]
    hooked = [w for w in (model, *wrappers(model)) if getattr(w, "hooks_enabled", False) is True]
    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with_gradients = torch.is_grad_enabled()
    for wrapper in hooked:
        wrapper.hooks_enabled = False  # type: ignore[assignment]
    for parameter, _, _, _ in held:
        parameter.grad = None
    module.eval()
    try:
        torch.set_grad_enabled(True)
        with amid_training():
            yield
    finally:
        torch.set_grad_enabled(with_gradients)
        module.train(dict(flags)[module])
        for m, flag in flags:
            m.training = flag
        for m, name, parameter in places:
            m._parameters[name] = parameter
        for parameter, data, gradient, required in held:
            if parameter.data_ptr() != data.data_ptr() or parameter.device != data.device:
                parameter.data = data
            parameter.grad = gradient
            parameter.requires_grad_(required)
        for m, name, buffer in buffers:
            m._buffers[name] = buffer
        for wrapper in hooked:
            wrapper.hooks_enabled = True  # type: ignore[assignment]
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Context that raises ModelError at its end if parameters or buffers have changed."""
    module = bare(model)
    before = digest(module)
    yield
    if digest(module) != before:
        raise ModelError(
            "The network's weights are not what they were before it was asked: it, or a probe, changes them in "
            "train(), eval() or forward()."
        )


def digest(module: nn.Module) -> tuple[int, ...]:
    """A number per parameter and buffer that changes with any of its bits and with their order."""
    return tuple(digest_of(t) for t in (*module.parameters(), *module.buffers()))


def digest_of(tensor: Tensor) -> int:
    """The digest of one tensor."""
    tensor = tensor.detach()
    if tensor.device.type == "meta" or not tensor.numel():
        return 0
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    flat = real.contiguous().reshape(-1)
    bits = flat.to(torch.uint8) if flat.dtype == torch.bool else flat.view(_INTEGERS[flat.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(bits), _CHUNK):
        part = bits[start : start + _CHUNK].to(torch.int64)
        odd = torch.arange(2 * start + 1, 2 * (start + len(part)), 2, device=tensor.device)
        # Sums of 64 bits wrap around, which is exact, whatever the order of summation.
        total += (part * odd * 0x9E3779B97F4A7C1 ^ part).sum()
    return int(total)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights and buffers, in main memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in _tensors(module)}


def put_back(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Write a snapshot back into its network, in place."""
    with torch.no_grad():
        for name, tensor in _tensors(module):
            tensor.copy_(weights[name])


def fits(module: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether a snapshot has the network's names, shapes and dtypes."""
    own = dict(_tensors(module))
    return own.keys() == weights.keys() and all(_form(own[name]) == _form(t) for name, t in weights.items())


def _form(tensor: Tensor) -> tuple[object, ...]:
    # Not its precision, which a training may change when it goes on.
    return tensor.shape, tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool


def finite(weights: Mapping[str, Tensor]) -> bool:
    """Whether a snapshot contains neither NaN nor infinity."""
    return all(bool(torch.isfinite(t).all()) for t in weights.values() if t.is_floating_point())


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
