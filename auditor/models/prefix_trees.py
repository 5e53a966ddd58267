"""Texts with common prefixes, computed once: rows of shared prefixes, and the attention of networks over them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.rows import FloatArray

T = TypeVar("T")
# In longer rows more is shared, and attention takes more than that saves.
_ROW_TOKENS = 128


@dataclass(frozen=True)
class Encoded:
    """One text as model input: token ``ids`` with special tokens; the other fields also have shape (length,).

    ``scored``: whether the token belongs to the text and has a probability. ``ends``: where it ends in the text, in
    characters. ``words``: number of the word it belongs to, -1 for special tokens.
    """

    ids: tuple[int, ...]
    scored: tuple[bool, ...]
    ends: tuple[int, ...]
    words: tuple[int, ...]


def shared_places(first: Encoded, second: Encoded) -> list[tuple[int, int]]:
    """Places (i, j) of the tokens that two texts have in common, in order, special tokens left out.

    By the longest matching blocks of their ids, as in the code of Nangia et al., EMNLP 2020.
    """
    own = [[i for i, scored in enumerate(e.scored) if scored] for e in (first, second)]
    ids = [[e.ids[i] for i in places] for e, places in zip((first, second), own, strict=True)]
    blocks = difflib.SequenceMatcher(None, ids[0], ids[1], autojunk=False).get_matching_blocks()
    return [(own[0][b.a + k], own[1][b.b + k]) for b in blocks for k in range(b.size)]


def shared_of_pairs(encoded: Sequence[Encoded]) -> list[list[int]]:
    """For texts in consecutive pairs, the positions of the tokens that both texts of a pair share."""
    places: list[list[int]] = []
    for first, second in zip(encoded[::2], encoded[1::2], strict=True):
        same = shared_places(first, second)
        places += [[i for i, _ in same], [j for _, j in same]]
    return places


def sums_of_pairs(log_probabilities: Sequence[FloatArray], places: Sequence[list[int]] | None) -> FloatArray:
    """(n, 2) sums over those positions of both texts of each pair, NaN if there are none; None means all."""
    if places is None:
        sums = [float(np.nansum(p)) for p in log_probabilities]
    else:
        sums = [float(np.nansum(p[at])) if at else math.nan for p, at in zip(log_probabilities, places, strict=True)]
    return np.asarray(sums, np.float64).reshape(-1, 2)


@dataclass
class Forest:
    """Texts as one forest: ``tokens`` with their ``parents`` (-1 for a root) and ``depths``; the node of each token of
    each text, except the last, which has no successor."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    texts: list[tuple[tuple[int, ...], list[int]]] = field(default_factory=list)

    @classmethod
    def from_texts(cls, texts: Sequence[tuple[int, ...]]) -> Forest:
        """The forest of texts in sorted order, where each shares most with the one before it."""
        row = cls()
        for text in texts:
            row.add(text)
        return row

    @property
    def branches(self) -> bool:
        """Whether any two tokens of the row must not attend to each other."""
        return len(self.texts) > 1

    def add(self, text: tuple[int, ...]) -> None:
        """Add a text to the forest, on the branch shared with the text before it."""
        last, path = self.texts[-1] if self.texts else ((), [])
        path = path[: _common(last, text)]
        new = text[len(path) : -1]
        nodes = range(len(self.tokens), len(self.tokens) + len(new))
        if new:
            self.parents += [path[-1] if path else -1, *nodes[:-1]]
        self.depths += range(len(path), len(path) + len(new))
        self.tokens += new
        self.texts.append((text, [*path, *nodes]))


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """How many tokens two texts have in common from the start, their last ones left out."""
    most = min(len(first), len(second)) - 1
    for i in range(max(most, 0)):
        if first[i] != second[i]:
            return i
    return max(most, 0)


def pack_texts(texts: Sequence[tuple[int, ...]]) -> list[Forest]:
    """Sorted texts in few rows: neighbours with a common prefix stay together, then first fit."""
    groups: list[tuple[int, list[tuple[int, ...]]]] = []
    last: tuple[int, ...] = ()
    for text in texts:
        shared = _common(last, text)
        new = len(text) - 1 - shared
        if groups and 3 * shared >= new and groups[-1][0] + new <= max(_ROW_TOKENS, 2 * len(text)):
            groups[-1] = (groups[-1][0] + new, [*groups[-1][1], text])
        else:
            groups.append((len(text) - 1, [text]))
        last = text
    groups.sort(key=lambda g: -g[0])
    filled: list[tuple[int, list[tuple[int, ...]]]] = []
    open_rows: list[int] = []
    for size, members in groups:
        # Rows are filled up to the largest group's size, at least _ROW_TOKENS: wider rows would only be padded.
        limit = max(_ROW_TOKENS, size)
        spot = next((r for r in open_rows if filled[r][0] + size <= limit), None)
        if spot is None:
            open_rows.append(len(filled))
            filled.append((size, list(members)))
        else:
            filled[spot] = (filled[spot][0] + size, filled[spot][1] + members)
        open_rows = [r for r in open_rows if filled[r][0] <= limit - 4]
    return [Forest.from_texts(sorted(members)) for _, members in filled]


def batches(items: Sequence[T], budget: int, size: Callable[[T], int]) -> Iterator[list[T]]:
    """Batches of items, largest first, with number times largest size at most ``budget``."""
    batch: list[T] = []
    for item in items:
        if batch and (len(batch) + 1) * size(batch[0]) > budget:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


# Decoders whose attention takes a mask of our own with positions of our own; a test holds each of them to it.
TREE_ATTENTION = frozenset(
    {"gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "gpt_oss", "granite", "granitemoe", "llama", "mistral"}
    | {"mixtral", "olmo2", "olmoe", "phi", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3"}
)


def reads_trees(network: nn.Module, longest: int) -> bool:
    """Whether a causal network can be given forests of texts of at most ``longest`` tokens."""
    config: Any = network.config
    window = getattr(config, "sliding_window", None)
    kernel = getattr(config, "_attn_implementation", None)
    return (
        getattr(config, "model_type", None) in TREE_ATTENTION
        and kernel in ("sdpa", "eager")
        and not (isinstance(window, int) and window < longest)
    )


def laid_out(network: nn.Module, rows: Sequence[Forest], pad: int, before: int = 0) -> dict[str, Tensor]:
    """Input of a causal network: (n_rows, length) ids, with mask and positions if any row branches.

    ``before``: how many tokens it has read that stand before every row.
    """
    length = max(len(row.tokens) for row in rows)
    inputs: dict[str, Tensor] = {"input_ids": filled_up([row.tokens for row in rows], length, pad)}
    # A row that is one chain needs no mask: what lies to the right is never looked at.
    if before or any(row.branches for row in rows):
        mask = ancestors(rows, length, next(network.parameters()).dtype)
        inputs["attention_mask"] = nn.functional.pad(mask, (before, 0))
        inputs["position_ids"] = filled_up([[before + depth for depth in row.depths] for row in rows], length, 0)
    return inputs


def filled_up(rows: Sequence[list[int]], length: int, rest: int) -> Tensor:
    """(n_rows, length) the rows, each padded at its end with ``rest``."""
    return torch.tensor([row + [rest] * (length - len(row)) for row in rows], dtype=torch.long)


def ancestors(rows: Sequence[Forest], length: int, dtype: torch.dtype) -> Tensor:
    """(n_rows, 1, length, length) attention bias: 0 for a token itself and its ancestors, else the minimum."""
    sees = np.zeros((len(rows), length, length), bool)
    sees[:, np.arange(length), np.arange(length)] = True
    for r, row in enumerate(rows):
        for node, parent in enumerate(row.parents):
            if parent >= 0:
                sees[r, node] |= sees[r, parent]
    mask = torch.zeros(sees.shape, dtype=dtype)
    return mask.masked_fill_(torch.from_numpy(~sees), torch.finfo(dtype).min).unsqueeze(1)
