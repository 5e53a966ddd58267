"""A prefix cache for causal networks: texts with a common beginning reuse the cached computation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from auditor.models.prefix_trees import Forest, ancestors, filled_up

Text = tuple[int, ...]
# In longer rows what stands before them is long too, and attention takes more than fewer rows save.
_ROW_TOKENS = 64
# Some 10,000 tokens of a network of 135 million parameters in float32.
_MOST_BYTES = 512 << 20


@dataclass
class _Row:
    """What is new of some texts, as a forest.

    ``known``: places in the cache of what stands before each root. ``numbers``: of each node by what stands before it,
    a place in the cache or ``-2 - node``, and its token. ``ends``: the node that each text ends with.
    """

    forest: Forest = field(default_factory=Forest)
    known: dict[int, list[int]] = field(default_factory=dict)
    numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    ends: dict[Text, int] = field(default_factory=dict)

    def nodes_of(self, text: Text, known_nodes: list[int]) -> list[int]:
        """The nodes that a text has already, behind what is known of it."""
        nodes: list[int] = []
        for token in text[len(known_nodes) :]:
            node = self.numbers.get((_parent_key(nodes, known_nodes), token))
            if node is None:
                break
            nodes.append(node)
        return nodes

    def add(self, text: Text, known_nodes: list[int]) -> None:
        """Grows the forest by what is new of a text."""
        nodes = self.nodes_of(text, known_nodes)
        for depth in range(len(known_nodes) + len(nodes), len(text)):
            new = len(self.numbers)
            self.numbers[_parent_key(nodes, known_nodes), text[depth]] = new
            self.forest.tokens.append(text[depth])
            self.forest.parents.append(nodes[-1] if nodes else -1)
            self.forest.depths.append(depth)
            if not nodes:
                self.known[new] = known_nodes
            nodes.append(new)
        self.ends[text] = nodes[-1]


def _parent_key(nodes: Sequence[int], known_nodes: Sequence[int]) -> int:
    return -2 - nodes[-1] if nodes else known_nodes[-1] if known_nodes else -1


class PrefixCache:
    """Keys, values and last states of the tokens that a network has read, each behind those before it.

    ``network``: one that :func:`~auditor.models.prefix_trees.reads_trees`, whose weights stay as they are.
    ``most_bytes``: before there are more, all is forgotten, and read anew.
    """

    def __init__(self, network: nn.Module, most_bytes: int = _MOST_BYTES) -> None:
        self.network = network
        self.most_bytes = most_bytes
        # Of each token by the place of the one before it, -1 for none, and its id.
        self._places: dict[tuple[int, int], int] = {}
        self._n_kept = 0
        self._kept: list[Tensor] = []

    def states_behind(
        self, texts: Iterable[Text], forward: Callable[..., Tensor], batch_tokens: int
    ) -> dict[Text, Tensor]:
        """For each text (ids as read) the last state after it, (width,).

        ``forward``: passes its inputs forward and gives the last states, (n, length, width); what it is given by name
        is no tensor.
        """
        found: dict[Text, Tensor] = {}
        rows: list[_Row] = []
        for text in sorted(set(texts)):
            known = self._kept_path(text)
            if len(known) == len(text):
                found[text] = self._kept[-1][known[-1]].clone()
                continue
            new = len(text) - len(known) - (len(rows[-1].nodes_of(text, known)) if rows else 0)
            if not rows or len(rows[-1].forest.tokens) + new > _ROW_TOKENS:
                longest = max([len(text), _ROW_TOKENS, *(len(row.forest.tokens) for row in rows)])
                if rows and (len(rows) + 1) * longest > batch_tokens:
                    found.update(self._read_rows(rows, forward))
                    rows, known = [], self._kept_path(text)
                rows.append(_Row())
            rows[-1].add(text, known)
        return found | (self._read_rows(rows, forward) if rows else {})

    def _kept_path(self, text: Text) -> list[int]:
        """Places of the tokens that a text begins with, as far as they are kept."""
        path: list[int] = []
        for token in text:
            place = self._places.get((path[-1] if path else -1, token))
            if place is None:
                break
            path.append(place)
        return path

    def _read_rows(self, rows: Sequence[_Row], forward: Callable[..., Tensor]) -> dict[Text, Tensor]:
        forests = [row.forest for row in rows]
        before = [sorted({place for known in row.known.values() for place in known}) for row in rows]
        length, width = max(len(forest.tokens) for forest in forests), max(map(len, before))
        sees = np.zeros((len(rows), 1, length, width), bool)
        for r, row in enumerate(rows):
            for node, parent in enumerate(row.forest.parents):
                own = np.searchsorted(before[r], row.known[node]) if parent < 0 else sees[r, 0, parent]
                sees[r, 0, node, own] = True
        own_mask = ancestors(forests, length, next(self.network.parameters()).dtype)
        mask = torch.zeros(sees.shape, dtype=own_mask.dtype)
        mask.masked_fill_(torch.from_numpy(~sees), torch.finfo(mask.dtype).min)
        cache = DynamicCache()
        if width:
            at = filled_up(before, width, 0)
            held = [kept[at.to(kept.device)].transpose(1, 2) for kept in self._kept[:-1]]
            cache = DynamicCache(list(zip(held[::2], held[1::2], strict=True)))
        # transformers has called it both.
        name = next(n for n in ("cache", "past_key_values") if n in inspect.signature(self.network.forward).parameters)
        inputs = {
            "input_ids": filled_up([forest.tokens for forest in forests], length, 0),
            "attention_mask": torch.cat([mask, own_mask], dim=-1),
            "position_ids": filled_up([forest.depths for forest in forests], length, 0),
        }
        states = forward(inputs, **{name: cache, "use_cache": True})
        new = [each[:, :, width:].transpose(1, 2) for layer in cache.layers for each in (layer.keys, layer.values)]
        self._keep(rows, [*new, states])
        return {text: states[r, node] for r, row in enumerate(rows) for text, node in row.ends.items()}

    def _keep(self, rows: Sequence[_Row], new: Sequence[Tensor]) -> None:
        """``new``: each (n_rows, length, ...), of the rows' nodes."""
        at = torch.tensor([(r, node) for r, row in enumerate(rows) for node in range(len(row.numbers))]).T
        begin, end = self._n_kept, self._n_kept + at.shape[1]
        most = self.most_bytes // sum(each[0, 0].numel() * each.element_size() for each in new)
        if end > most:
            self._places, self._n_kept, self._kept = {}, 0, []
            return
        for i, each in enumerate(new):
            if not begin:
                self._kept.append(each.new_empty((end, *each.shape[2:])))
            elif end > len(self._kept[i]):
                grown = each.new_empty((min(2 * end, most), *each.shape[2:]))
                grown[:begin] = self._kept[i][:begin]
                self._kept[i] = grown
            self._kept[i][begin:end] = each[tuple(at.to(each.device))]
        self._n_kept = end
        for row in rows:
            places: list[int] = []
            for node, ((_, token), parent) in enumerate(zip(row.numbers, row.forest.parents, strict=True)):
                known = row.known.get(node) or [-1]
                before = places[parent] if parent >= 0 else known[-1]
                # What two rows of a batch have both read is taken from the first.
                places.append(self._places.setdefault((before, token), begin + node))
            begin += len(places)
