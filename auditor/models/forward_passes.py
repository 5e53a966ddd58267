"""Forward passes of a network: devices, batch sizes, and matrix products on a CPU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from auditor.core.errors import MissingExtraError, ModelError

Spread = Literal["auto", "balanced", "sequential"]
_QUANTISED = ("Linear4bit", "Linear8bitLt")
_SAID = ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized")


def stays(module: nn.Module) -> bool:
    """Whether the module must not move: accelerate sharded or offloaded it, or bitsandbytes packed it."""
    return any(
        bool(getattr(m, "hf_device_map", None))
        or hasattr(m, "_hf_hook")
        or any(getattr(m, name, False) is True for name in _SAID)
        or any(kind.__name__ in _QUANTISED for kind in type(m).__mro__)
        for m in module.modules()
    )


def move_module(module: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device, or on its present device if it must not be moved."""
    return module if stays(module) else module.to(device)


def move_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from pinned memory for a GPU, so that the CPU does not wait."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def exact_products(device: str) -> None:
    """Turn off reduced precision on a GPU: by default torch rounds the factors of convolutions to 10 bits.

    For a process of its own, since it holds for all of it.
    """
    if torch.device(device).type == "cuda":
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False


def device_of(module: nn.Module) -> torch.device:
    """The input device of a network: that of its first part, if accelerate sharded or offloaded it."""
    for m in module.modules():
        said = getattr(getattr(m, "_hf_hook", None), "execution_device", None)
        if said is not None:
            return torch.device(said)
    held = (p.device for p in module.parameters() if p.device.type != "meta")
    return next(held, torch.device("cpu"))


def spread(
    sketch: nn.Module, strategy: Spread, dtype: torch.dtype, most: Mapping[Any, int] | None = None
) -> dict[str, int | str]:
    """Assignment of a network's layers to GPUs by accelerate: in order, no layer split.

    ``strategy``: ``sequential`` fills one card after another, the others give all about as much. ``most``: bytes by
    card, all that is free by default. Raises MissingExtraError without accelerate, ModelError where the cards do not
    hold all of it: what is left would be read from the machine's memory or a disk for every batch.
    """
    try:
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_balanced_memory, get_max_memory
    except ImportError:
        raise MissingExtraError(
            "--device-map needs accelerate: pip install 'responsible-auditor[distributed]'."
        ) from None
    whole: list[str] = sorted(getattr(sketch, "_no_split_modules", None) or ())
    free = get_max_memory() if most is None else dict(most)
    if strategy != "sequential":
        free = get_balanced_memory(sketch, max_memory=free, no_split_module_classes=whole, dtype=dtype)
    sketch.tie_weights()  # type: ignore[operator]
    found: dict[str, int | str] = infer_auto_device_map(
        sketch, max_memory=free, no_split_module_classes=whole, dtype=dtype
    )
    beside = sorted({str(where) for where in found.values()} & {"cpu", "disk"})
    if beside:
        kinds = " and ".join(beside)
        raise ModelError(
            f"The cards do not hold this model: parts of it would lie in memory of the kind {kinds}, and be read from "
            "there for every batch. Use --dtype bfloat16, more cards, or --device cpu.",
            code="AUD-LOAD-LIMIT",
        )
    return found


def told_spread(strategy: Spread, parts: Mapping[str, int | str] | None, device: str) -> str:
    """The report's sentence on a network's device placement; ``parts`` is None for an unsharded network."""
    if parts is None:
        return f"--device-map {strategy}: computed on {device}, one device, so that nothing was spread."
    counted = Counter(f"cuda:{where}" if isinstance(where, int) else str(where) for where in parts.values())
    told = ", ".join(f"{n} part{'s' * (n > 1)} on {where}" for where, n in sorted(counted.items()))
    return f"Spread over devices by --device-map {strategy}: {told}."


# Tokens of a forward pass on a CPU: more of them leave its caches.
ON_CPU = 512
_MOST_TOKENS, _MOST_ROWS = 1 << 16, 4096
# The rest is for weights that are read, logits, and what the allocator keeps.
_SHARE = 4


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU, including torch's unused reserve; None for any other device."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def tokens_at_once(network: nn.Module, free: int | None) -> int:
    """Tokens per forward pass of a language model for a share of ``free`` bytes; the CPU's number for None.

    A token takes what a layer makes of it, inputs and outputs of attention and feed-forward both, and its row of
    attention in float32, were that made. A power of two, so that a few bytes more or less are the same batches.
    """
    if free is None:
        return ON_CPU
    config: Any = network.config
    held = next((p for p in network.parameters() if p.is_floating_point()), None)
    size = 4 if held is None else held.element_size()
    width = int(getattr(config, "hidden_size", 1024))
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    heads = int(getattr(config, "num_attention_heads", 16))
    row = min(int(getattr(config, "max_position_embeddings", None) or 2048), 2048)
    a_token = size * (12 * width + 3 * inner) + 2 * 4 * heads * row
    return max(ON_CPU, min(_MOST_TOKENS, _power_of_two(free // _SHARE // a_token)))


def rows_at_once(network: nn.Module, row: Tensor, least: int, free: int | None) -> int:
    """Rows per forward pass of a classifier for a share of ``free`` bytes; ``least`` of them for None.

    ``row``: (1, ...) one input, of the largest size. It takes what all layers make of it, as if gradients were kept.
    """
    if free is None:
        return least
    made = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal made
        if isinstance(output, Tensor):
            made += output.numel() * output.element_size()

    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(count) for module in leaves]
    try:
        with torch.inference_mode():
            network(row)
    finally:
        for handle in handles:
            handle.remove()
    return max(least, min(_MOST_ROWS, _power_of_two(free // _SHARE // max(made, 1))))


def _power_of_two(n: int) -> int:
    return 1 << max(n.bit_length() - 1, 0)


# With fewer rows neither library is the quicker one.
_FEWEST_ROWS = 64
# To lay weights out takes as long as some hundred rows gain by it, and as much memory as there are weights.
_FEWEST_IN_ALL, _MOST_BYTES = 1024, 2 << 30
# Input, weight and bias of the product by which it is told whether oneDNN's is right.
_TRIED = ((2, 64, 24), (40, 24), (40,))

_TILE = 2048


def quick_products() -> AbstractContextManager[object]:
    """Context in which float32 linear layers on a CPU, without gradients, are computed by oneDNN.

    torch itself gives them to MKL, which takes a tenth longer on an AMD EPYC; sums may differ in their last digits.
    Nothing changes where torch was built without oneDNN.
    """
    by_onednn = _by_onednn()
    return nullcontext() if by_onednn is None or torch.is_grad_enabled() else _Quick(by_onednn)


@contextmanager
def laid_out_once(network: object, rows: int) -> Iterator[None]:
    """Context like :func:`quick_products` with weights reordered once instead of at each product.

    Of few rows, as where texts are drawn a token at a time, that takes as long as to multiply them. ``rows``: how many
    there will be in all. Nothing changes where they are few, weights are too large to be held twice, or it is no module
    of torch. Inside, weights must stay as they are, and the network must not be copied: the products would be those of
    before.
    """
    by_onednn = _by_onednn()
    parts = network.modules() if isinstance(network, nn.Module) else ()
    layers = [m for m in parts if type(m) is nn.Linear and _plain(m.weight) and "forward" not in vars(m)]
    if by_onednn is None or rows < _FEWEST_IN_ALL or 4 * sum(m.weight.numel() for m in layers) > _MOST_BYTES:
        yield
        return
    try:
        for layer in layers:
            layer.forward = partial(_product, by_onednn, layer, _laid_out(layer.weight.detach()))  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _laid_out(weight: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return found


def _product(by_onednn: Callable[..., Tensor], layer: nn.Linear, laid_out: Tensor, x: Tensor) -> Tensor:
    if torch.is_grad_enabled() or x.dtype != torch.float32:
        return nn.functional.linear(x, layer.weight, layer.bias)
    return by_onednn(x, laid_out, layer.bias, "none", [], "")


class _Quick(TorchFunctionMode):
    def __init__(self, by_onednn: Callable[..., Tensor]) -> None:
        super().__init__()
        self.by_onednn = by_onednn

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.linear and not kwargs and _fits(*args[:2]):
            x, weight, *bias = args
            return self.by_onednn(x, weight, bias[0] if bias else None, "none", [], "")
        return func(*args, **(kwargs or {}))


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Whether it is a plain product in float32, and of enough rows."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and (x.dtype, x.device.type) == (torch.float32, "cpu")
        and _plain(weight)
        and x.numel() >= _FEWEST_ROWS * x.shape[-1] > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _plain(weight: Tensor) -> bool:
    return (
        type(weight) in (Tensor, nn.Parameter)
        and (weight.dtype, weight.device.type, weight.layout) == (torch.float32, "cpu", torch.strided)
        and weight.is_contiguous()
    )


@lru_cache(maxsize=1)
def _by_onednn() -> Callable[..., Tensor] | None:
    """oneDNN's product as torch has it for compiled networks, or None where it has none that is right."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
        x, weight, bias = (torch.linspace(-1.0, 1.0, math.prod(shape)).reshape(shape) for shape in _TRIED)
        with torch.no_grad():
            plain = nn.functional.linear(x, weight, bias)
            own, again = (found(x, each, bias, "none", [], "") for each in (weight, _laid_out(weight)))
            right = all(torch.allclose(each, plain, rtol=1e-5, atol=1e-5) for each in (own, again))
    except (AttributeError, RuntimeError):
        return None
    return found if right else None


def pick_log_probabilities(logits: Tensor, row_numbers: Tensor, targets: Tensor) -> Tensor:
    """(n,) float64 log-probabilities of the targets by the rows ``row_numbers`` of logits, (n_places, vocabulary)."""
    wide = logits.float()
    return (wide[row_numbers, targets] - torch.logsumexp(wide, dim=-1)[row_numbers]).double().cpu()


def tiled_log_probabilities(states: Tensor, head: nn.Linear, row_numbers: Tensor, targets: Tensor) -> Tensor:
    """(n,) float64 log-probabilities of the targets by the last layer of states (n_places, width), in vocabulary tiles.

    A tile of logits stays in the processor's cache and its weights are read once, which whole rows of them are not. On
    a CPU all of it is in float32: logits rounded to half of its digits are off by hundredths of a nat each.
    """
    # Where a network is spread, its last layer may lie on another card than what goes into it.
    states, row_numbers, targets = (each.to(head.weight.device) for each in (states, row_numbers, targets))
    wide = torch.float32 if states.device.type == "cpu" else states.dtype
    weights = torch.split(head.weight, _TILE)
    offsets = [None] * len(weights) if head.bias is None else torch.split(head.bias, _TILE)
    parts = [
        torch.logsumexp(
            nn.functional.linear(states.to(wide), w.to(wide), b if b is None else b.to(wide)).float(), dim=-1
        )
        for w, b in zip(weights, offsets, strict=True)
    ]
    total = torch.logsumexp(torch.stack(parts), dim=0)
    picked = (states[row_numbers].float() * head.weight[targets].float()).sum(dim=-1)
    if head.bias is not None:
        picked = picked + head.bias[targets].float()
    return (picked - total[row_numbers]).double().cpu()
