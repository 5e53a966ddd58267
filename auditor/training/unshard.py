"""A network with sharded parameters, temporarily gathered from all processes for reading."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from auditor.core.errors import ModelError

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
