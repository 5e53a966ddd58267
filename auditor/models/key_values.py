"""Key-value cache of a causal network: row selection, room for growth, and prompts read as one forest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from auditor.models.forward_passes import move_tensor
from auditor.models.language_model import AuditedLanguageModel, logits_at
from auditor.models.prefix_trees import Forest, batches, laid_out, pack_texts

States: TypeAlias = tuple[Tensor, Tensor]


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's ``keys`` and ``values``, each (rows, heads, length, width), with ``room`` for more positions.

    What is new is written behind them. The layer of transformers copies all there is for each new token.
    """

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.device, self.is_initialized = keys.device, True
        self._held = [nn.functional.pad(states, (0, 0, 0, room)) for states in (keys, values)]
        self._show(keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The keys and values with those of new positions appended."""
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, begin:end] = new
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the cache."""
        self._held = [held[indices] for held in self._held]
        self._show(self.get_seq_length())

    def _show(self, length: int) -> None:
        self.keys, self.values = (held[:, :, :length] for held in self._held)


def select_cache_rows(cache: Any, rows: Tensor, room: int = 0) -> Any:
    """The cache of those rows (repeats allowed), with ``room`` for positions; None if it cannot be indexed, so that
    everything is recomputed."""
    layers = getattr(cache, "layers", None)
    if not layers or not all(hasattr(layer, "batch_select_indices") for layer in layers):
        return None
    for i, layer in enumerate(layers):
        # Where a network is spread, so is its cache.
        layer.batch_select_indices(rows.to(layer.keys.device) if isinstance(layer.keys, Tensor) else rows)
        if room and type(layer) is DynamicLayer and isinstance(layer.keys, Tensor):
            layers[i] = RoomyLayer(layer.keys, layer.values, room)
    return cache


def read_as_forest(
    model: AuditedLanguageModel, cache_name: str, prompts: Sequence[Sequence[int]], begun: int, cache: Any
) -> tuple[Tensor, Tensor, Any] | None:
    """Logits after prompts (n, vocabulary), the left-padded mask (n, length) of the tokens read, and their cache;
    common prefixes of prompts are read once.

    None where that spares no token.

    ``begun``: how many tokens stand before every prompt, read into the one row of ``cache``.
    """
    # Nothing follows a text's last token in a forest, so something is put behind it.
    texts = [(*prompt, 0) for prompt in prompts]
    forests = sorted(pack_texts(sorted(set(texts))), key=lambda forest: -len(forest.tokens))
    parts = list(batches(forests, model.batch_tokens, lambda forest: len(forest.tokens)))
    longest = max(len(prompt) for prompt in prompts)
    if sum(len(part) * len(part[0].tokens) for part in parts) >= len(prompts) * longest:
        return None
    read = [_read_forests(model, cache_name, part, begun, cache, begun + longest) for part in parts]
    where = {text: k for k, text in enumerate(text for part in parts for row in part for text, _ in row.texts)}
    rows = torch.tensor([where[text] for text in texts])
    # Layer by layer what was read in parts is given up.
    whole = DynamicCache([_gather_rows([own.pop(0) for _, own in read], rows) for _ in range(len(read[0][1]))])
    logits = torch.cat([own for own, _ in read])
    mask = torch.tensor([[0] * (longest - len(own)) + [1] * (begun + len(own)) for own in prompts])
    return logits[rows.to(logits.device)], mask.to(model.device), whole


def _read_forests(
    model: AuditedLanguageModel, cache_name: str, part: Sequence[Forest], begun: int, cache: Any, width: int
) -> tuple[Tensor, list[States]]:
    """Of rows of forests the logits behind each text, and of each layer its keys and values, ``width`` long."""
    length = len(part[0].tokens)
    paths = [(r, path) for r, row in enumerate(part) for _, path in row.texts]
    ends = torch.tensor([[r, path[-1]] for r, path in paths])
    # The place of each token of each text among those of all rows, one row after another; on the left any.
    at = torch.zeros((len(paths), width), dtype=torch.long)
    for k, (r, path) in enumerate(paths):
        places = torch.tensor([*range(begun), *(begun + node for node in path)])
        at[k, width - len(places) :] = r * (begun + length) + places
    before = [] if cache is None else [(layer.keys, layer.values) for layer in cache.layers]
    own = DynamicCache([tuple(states.expand(len(part), -1, -1, -1) for states in each) for each in before] or None)
    # All see what stands before them.
    inputs = laid_out(model.module, part, 0, before=begun)
    inputs = {name: move_tensor(value, model.device) for name, value in inputs.items()}
    logits = logits_at(model.module, inputs | {cache_name: own, "use_cache": True}, move_tensor(ends, model.device))
    model.forwarded["tokens",] += inputs["input_ids"].numel()
    return logits, [(_gather_places(layer.keys, at), _gather_places(layer.values, at)) for layer in own.layers]


def _gather_rows(states: Sequence[States], rows: Tensor) -> States:
    """Those rows out of a layer's keys and values, of all that was read."""
    keys, values = (torch.cat(some) for some in zip(*states, strict=True))
    rows = rows.to(keys.device)
    return keys[rows], values[rows]


def _gather_places(states: Tensor, places: Tensor) -> Tensor:
    """(n, heads, length, width) of states (rows, heads, places, width) at places (n, length), counted over all rows."""
    flat = states.transpose(1, 2).flatten(0, 1)
    return flat[places.to(flat.device)].transpose(1, 2)
