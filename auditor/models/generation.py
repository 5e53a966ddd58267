"""Sampling from a causal language model, its cached keys and values, and its full next-token distributions."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from auditor.core.errors import ModelError, NotApplicableError, OtherKindError
from auditor.models.encoder_decoder import AuditedEncoderDecoder
from auditor.models.forward_passes import laid_out_once, move_tensor
from auditor.models.language_model import AuditedLanguageModel, logits_at
from auditor.models.prefix_trees import Encoded, Forest, batches, laid_out, pack_texts, reads_trees
from auditor.models.torch_context import without_gradients
from auditor.models.torch_model import evaluating

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


Until = Literal["length", "sentence", "word"]

# Tokens looked at first, and where those do not hold the mass; the fewer, the sooner they are sorted.
_LIKELIEST = (128, 2048, 8192)
# A chat template begins every prompt alike; fewer tokens are read again as quickly as they are shared.
_FEWEST_SHARED = 8
# A text that is blank so far has ended nothing.
_ENDED = {
    "sentence": re.compile(r"\S\s*\n|[.!?\u3002][\"')\]\u201d\u2019]*\s*\Z"),
    "word": re.compile(r"\S\s"),
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling settings: ``temperature`` 0 takes the likeliest token, ``top_p`` 1 draws from all tokens.

    ``until``: a continuation ends at ``max_new_tokens``, or before, where it has come to the end of its first sentence
    (a full stop, an exclamation or question mark, a line break) or of its first word.
    """

    max_new_tokens: int = 20
    temperature: float = 1.0
    top_p: float = 0.95
    until: Until = "length"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0.0):
            raise ValueError(f"temperature must be 0 or a positive number, not {self.temperature}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")
        if self.until not in ("length", *_ENDED):
            raise ValueError(f"until must be 'length', 'sentence' or 'word', not {self.until!r}")

    def ended(self, text: str) -> bool:
        """Whether a partially drawn text is already complete."""
        return self.until != "length" and _ENDED[self.until].search(text) is not None

    def truncate(self, text: str) -> str:
        """A drawn text, truncated at its completion."""
        if self.until == "length":
            return text
        return next((text[:i] for i in range(1, len(text) + 1) if self.ended(text[:i])), text)

    def describe(self) -> str:
        """The settings in words, for a finding's detail."""
        how = "greedy" if self.temperature == 0.0 else f"temperature {self.temperature:g}, top_p {self.top_p:g}"
        end = "" if self.until == "length" else f" to the end of the first {self.until}"
        return f"at most {self.max_new_tokens} new tokens{end}, {how}"


def continuations(
    model: AuditedLanguageModel,
    prompts: Sequence[str],
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
    *,
    batch_rows: int = 64,
    rendered: bool = False,
) -> list[list[str]]:
    """``n`` sampled continuations of each prompt, without the prompt, in the order of the prompts.

    Prompts stand to the right of their batch, padded on the left; each is read once, however many continuations it
    has, and a row that has ended leaves the batch. Before a prompt stands the model's prefix, and nothing where a chat
    template wrote it (``rendered``), which puts its own special tokens where they belong. Every random number comes
    from ``generator``, a CPU generator, drawn before the first pass: the texts do not depend on ``batch_rows``, but for
    rounding.

    Raises NotApplicableError where the model is not causal or a prompt with its continuation does not fit the context,
    ModelError where the logits are not finite.
    """
    if getattr(model, "objective", "causal") == "masked":
        raise OtherKindError("Needs a causal language model: a masked one continues no text.")
    ends = _end_tokens(model)
    answers = model if isinstance(model, AuditedEncoderDecoder) else None
    encoded = [
        _prompt_ids(model, prompt, rendered) if answers is None else answers.source(prompt) for prompt in prompts
    ]
    context = getattr(model, "context", None)
    longest = max((len(ids) for ids in encoded), default=0) + sampling.max_new_tokens
    if context is not None and longest > context:
        raise NotApplicableError(
            f"A prompt and its continuation have up to {longest:,} tokens, more than the model's context of "
            f"{context:,}: use shorter prompts or a smaller max_new_tokens."
        )
    # Equal prompts are one; each continuation has its own row of draws.
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for i, ids in enumerate(encoded):
        rows_of.setdefault(tuple(ids), []).extend(range(i * n, (i + 1) * n))
    draws = torch.rand(len(prompts) * n, sampling.max_new_tokens, generator=generator, dtype=torch.float64)
    drawn: list[str] = [""] * len(draws)
    step = _Step.from_network(model.module, model.tokenizer)
    order = sorted(rows_of, key=len)
    n_read = sum(map(len, order)) + draws.numel()
    with without_gradients(), evaluating(model.module), laid_out_once(model.module, n_read):
        for batch in _batches([(ids, rows_of[ids]) for ids in order], batch_rows, step.masked):
            numbers = [row for _, rows in batch for row in rows]
            repeats = [len(rows) for _, rows in batch]
            read = [list(ids) for ids, _ in batch]
            if answers is None:
                found = _sample(model, step, read, repeats, draws[numbers], sampling, ends)
            else:
                found = _decode_answers(answers, step.cache_name, read, repeats, draws[numbers], sampling, ends)
            for row, text in zip(numbers, found, strict=True):
                drawn[row] = text
    return [drawn[i * n : (i + 1) * n] for i in range(len(prompts))]


def _end_tokens(model: AuditedLanguageModel) -> frozenset[int]:
    """Ids that end a text, as far as network or tokenizer name any."""
    named: list[Any] = [getattr(model.tokenizer, "eos_token_id", None)]
    for holder in ("generation_config", "config"):
        named.append(getattr(getattr(model.module, holder, None), "eos_token_id", None))
    return frozenset(
        int(i) for value in named if value is not None for i in (value if isinstance(value, list) else [value])
    )


def _prompt_ids(model: AuditedLanguageModel, prompt: str, rendered: bool) -> list[int]:
    own = model.tokenizer(prompt, add_special_tokens=False).input_ids
    ids = [*(() if rendered else model.prefix), *map(int, own)]
    if not ids:
        raise NotApplicableError(f"The prompt {prompt[:40]!r} has no token for this model: it needs a word.")
    return ids


def _batches(
    prompts: Sequence[tuple[tuple[int, ...], list[int]]], size: int, mixed: bool
) -> list[list[tuple[tuple[int, ...], list[int]]]]:
    """Prompts of rising length with their rows, ``size`` rows a batch; of one length each unless ``mixed``."""
    found: list[list[tuple[tuple[int, ...], list[int]]]] = []
    room, last = 0, -1
    for ids, rows in prompts:
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            if len(some) > room or (len(ids) != last and not mixed):
                found.append([])
                room = size
            found[-1].append((ids, some))
            room, last = room - len(some), len(ids)
    return found


@dataclass(frozen=True)
class _Step:
    """What a network's ``forward`` takes. Without a mask, rows of a batch have one length; without a cache, every
    token is computed anew at every step."""

    network: nn.Module
    masked: bool
    cache_name: str
    positioned: bool
    last_only: bool
    pad: int

    @property
    def begins_anywhere(self) -> bool:
        """Whether it goes on from a cache of what any row has read."""
        return self.masked and self.positioned and bool(self.cache_name)

    @classmethod
    def from_network(cls, network: nn.Module, tokenizer: Any) -> _Step:
        takes = inspect.signature(network.forward).parameters
        return cls(
            network,
            masked="attention_mask" in takes,
            # transformers has called it both.
            cache_name=next((name for name in ("cache", "past_key_values") if name in takes), ""),
            positioned="position_ids" in takes,
            last_only="logits_to_keep" in takes,
            pad=int(getattr(tokenizer, "pad_token_id", None) or 0),
        )

    def logits(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """((n, vocabulary) logits of the next token, the cache): ids (n, length) are new, mask covers the old too."""
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": bool(self.cache_name)}
        if self.masked:
            inputs["attention_mask"] = mask
        if self.positioned:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        if self.cache_name:
            inputs[self.cache_name] = cache
        if self.last_only:
            inputs["logits_to_keep"] = 1
        out = self.network(**inputs)
        return out.logits[:, -1], getattr(out, self.cache_name, None) if self.cache_name else None


def _sample(
    model: AuditedLanguageModel,
    step: _Step,
    prompts: Sequence[list[int]],
    repeats: Sequence[int],
    draws: Tensor,
    sampling: Sampling,
    ends: frozenset[int],
) -> list[str]:
    """One text for each row of draws; prompt k has ``repeats[k]`` rows, one after another."""
    device = model.device
    row_of = torch.arange(len(prompts), device=device).repeat_interleave(torch.tensor(repeats, device=device))
    tokens: list[list[int]] = [[] for _ in range(len(draws))]
    logits, ids, mask, cache = _prefill(model, step, prompts, sampling.max_new_tokens)
    cache = _select_cache_rows(cache, row_of, sampling.max_new_tokens - 1)
    logits, ids, mask, draws = logits[row_of], ids[row_of], mask[row_of], draws.to(device)
    alive = list(range(len(draws)))
    for t in range(sampling.max_new_tokens):
        chosen = _choose(logits, draws[:, t], sampling)
        # The one wait for the device of each token.
        going = {row: token for row, token in zip(alive, chosen.tolist(), strict=True) if token not in ends}
        for row, token in going.items():
            tokens[row].append(token)
        over = _ended(model, tokens, list(going), sampling)
        kept = [k for k, row in enumerate(alive) if row in going and row not in over]
        if not kept or t + 1 == sampling.max_new_tokens:
            break
        if len(kept) < len(alive):
            at = torch.tensor(kept, device=device)
            ids, mask, draws, cache = ids[at], mask[at], draws[at], _select_cache_rows(cache, at)
            chosen, alive = chosen[at], [alive[k] for k in kept]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        new = chosen[:, None] if cache is not None else ids
        _went_in(model, new)
        logits, cache = step.logits(new, mask, cache)
    return list(model.tokenizer.batch_decode(tokens, skip_special_tokens=True))


def _prefill(
    model: AuditedLanguageModel, step: _Step, prompts: Sequence[list[int]], n_new: int
) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Logits behind prompts (n, vocabulary), their ids and a mask of them (n, length), and the cache of them, if any.

    Where a cache has the prompts, their ids are of no use, and those of a part may do.
    """
    begun, cache = _begun(model, step, prompts)
    prompts = [prompt[begun:] for prompt in prompts]
    length = max(map(len, prompts))
    if step.begins_anywhere and len(prompts) > 1 and reads_trees(model.module, begun + length + n_new):
        read = read_as_forest(model, step.cache_name, prompts, begun, cache)
        if read is not None:
            return read[0], read[1][:, :0], *read[1:]
    ids = torch.full((len(prompts), length), step.pad)
    mask = torch.zeros((len(prompts), begun + length), dtype=torch.long)
    mask[:, :begun] = 1
    for r, prompt in enumerate(prompts):
        ids[r, length - len(prompt) :] = torch.tensor(prompt)
        mask[r, begun + length - len(prompt) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    if begun:
        cache = _select_cache_rows(cache, torch.zeros(len(prompts), dtype=torch.long, device=model.device))
    _went_in(model, ids)
    logits, cache = step.logits(ids, mask, cache)
    return logits, ids, mask, cache


def _begun(model: AuditedLanguageModel, step: _Step, prompts: Sequence[list[int]]) -> tuple[int, Any]:
    """How many tokens all prompts begin with, and the cache of these in one row; 0 and None where they are too few to
    be worth a pass, or the network cannot go on from a cache."""
    shared = 0
    for first, *others in zip(*(prompt[:-1] for prompt in prompts), strict=False):
        if any(other != first for other in others):
            break
        shared += 1
    if len(prompts) < 2 or shared < _FEWEST_SHARED or not step.begins_anywhere:
        return 0, None
    ids = torch.tensor([prompts[0][:shared]], device=model.device)
    _went_in(model, ids)
    _, cache = step.logits(ids, torch.ones_like(ids), None)
    cache = _select_cache_rows(cache, torch.zeros(1, dtype=torch.long, device=model.device))
    return (0, None) if cache is None else (shared, cache)


def _went_in(model: AuditedLanguageModel, ids: Tensor) -> None:
    # What stands in for a model may count nothing.
    if getattr(model, "forwarded", None) is not None:
        model.forwarded["tokens",] += ids.numel()


def _ended(
    model: AuditedLanguageModel, tokens: Sequence[list[int]], rows: Sequence[int], sampling: Sampling
) -> set[int]:
    """Those of the rows whose texts are complete; none is read where the number of tokens alone ends them."""
    if sampling.until == "length" or not rows:
        return set()
    texts = model.tokenizer.batch_decode([tokens[row] for row in rows], skip_special_tokens=True)
    return {row for row, text in zip(rows, texts, strict=True) if sampling.ended(text)}


def _decode_answers(
    model: AuditedEncoderDecoder,
    cache_name: str,
    prompts: Sequence[list[int]],
    repeats: Sequence[int],
    draws: Tensor,
    sampling: Sampling,
    ends: frozenset[int],
) -> list[str]:
    """The same from a decoder whose encoder has read the prompts; all rows stay until the last has ended."""
    from transformers.modeling_outputs import BaseModelOutput

    network: Any = model.module
    ids, mask = model.filled(prompts)
    row_of = torch.arange(len(prompts)).repeat_interleave(torch.tensor(list(repeats))).to(model.device)
    states = network.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state[row_of]
    mask, draws = mask[row_of], draws.to(model.device)
    new = torch.tensor([model.prefix] * len(draws), device=model.device)
    tokens: list[list[int]] = [[] for _ in range(len(draws))]
    going, cache = set(range(len(draws))), None
    for t in range(sampling.max_new_tokens):
        out = network(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=new,
            use_cache=True,
            **{cache_name: cache},
        )
        cache = getattr(out, cache_name)
        chosen = _choose(out.logits[:, -1], draws[:, t], sampling)
        new = chosen[:, None]
        # The one wait for the device of each token.
        ids_drawn = chosen.tolist()
        going = {row for row in going if ids_drawn[row] not in ends}
        for row in going:
            tokens[row].append(ids_drawn[row])
        going -= _ended(model, tokens, sorted(going), sampling)
        if not going:
            break
    return list(model.tokenizer.batch_decode(tokens, skip_special_tokens=True))


def _select_cache_rows(cache: Any, rows: Tensor, room: int = 0) -> Any:
    if cache is None:
        return None
    return select_cache_rows(cache, rows, room)


def _choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """(n,) token ids from (n, vocabulary) logits and (n,) uniform draws, by inverting the distribution function.

    ``top_p`` keeps the fewest likeliest tokens whose probabilities add up to it (Holtzman et al., ICLR 2020).
    """
    # A sum shows in one pass whether any is NaN or infinite; an excluded token's may be the least there is.
    total = logits.sum(dim=1, dtype=torch.float32)
    if bool((torch.isnan(total) | torch.isposinf(total)).any()):
        raise ModelError("The model's logits are NaN or infinite: it cannot continue a text.")
    if sampling.temperature == 0.0:
        return logits.argmax(dim=1)
    log_probabilities = torch.log_softmax(logits.float() / sampling.temperature, dim=1)
    # Sorting a whole vocabulary costs more than the network; the likeliest tokens nearly always hold the mass.
    return _draw_tokens(log_probabilities, draws, sampling.top_p, (*_LIKELIEST, logits.shape[1]))


def _draw_tokens(log_probabilities: Tensor, draws: Tensor, top_p: float, sizes: Sequence[int]) -> Tensor:
    """(n,) token ids among the fewest likeliest, out of ``sizes``, that hold ``top_p``; the last is all there are."""
    chosen, enough = _inverted(log_probabilities, draws, top_p, sizes[0])
    rest = (~enough).nonzero().squeeze(1)
    if len(rest) and len(sizes) > 1:
        chosen[rest] = _draw_tokens(log_probabilities[rest], draws[rest], top_p, sizes[1:])
    return chosen


def _inverted(log_probabilities: Tensor, draws: Tensor, top_p: float, size: int) -> tuple[Tensor, Tensor]:
    """Token ids (n,) among the ``size`` likeliest, and whether (n,) these hold ``top_p``, without which they are void.

    All of a vocabulary hold it, whatever rounding makes of their sum.
    """
    size = min(size, log_probabilities.shape[1])
    best, order = log_probabilities.topk(size, dim=1)
    probabilities = best.double().exp()
    reached = probabilities.cumsum(dim=1)
    kept = (reached - probabilities < top_p).sum(dim=1, keepdim=True)
    mass = reached.gather(1, kept - 1)
    place = torch.searchsorted(reached, draws[:, None] * mass, right=True)
    return order.gather(1, torch.minimum(place, kept - 1)).squeeze(1), reached[:, -1] >= top_p


def next_token_log_probabilities(model: AuditedLanguageModel, text: Encoded) -> tuple[Tensor, Tensor]:
    """(n, vocabulary) float32 log-probabilities at the n scored positions of a text, and the actual tokens (n,).

    Of a causal model given all tokens before a place, of a masked one given all others.
    """
    places = [i for i, scored in enumerate(text.scored) if scored]
    ids = torch.tensor([text.ids])
    if model.objective == "causal":
        inputs = {"input_ids": ids.to(model.device)}
        where = torch.tensor([[0, place - 1] for place in places])
    else:
        hidden = ids.repeat(len(places), 1)
        hidden[torch.arange(len(places)), torch.tensor(places)] = int(model.tokenizer.mask_token_id)
        inputs = {"input_ids": hidden.to(model.device)}
        where = torch.tensor([[row, place] for row, place in enumerate(places)])
    with without_gradients(), evaluating(model.module):
        logits = logits_at(model.module, inputs, where.to(model.device)).float()
    return torch.log_softmax(logits, dim=-1).cpu(), torch.tensor([text.ids[i] for i in places])
