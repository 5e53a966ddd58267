"""Language models under audit: exact likelihoods of texts, without redundant computation.

A causal model is scored by ``log p(x_i | x_<i)``, a masked one by its pseudo form, ``log p(x_i | all others)``.
Texts that begin alike share that work: they are laid out as prefix trees, several to a row, and every token attends to
its ancestors alone. Logits are taken in tiles, at the places that are asked for, so no (batch, length, vocabulary)
tensor exists; only a network that transforms its logits afterwards makes them itself, and is given smaller batches.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import ConfigError, ModelError, NotApplicableError
from auditor.core.rows import FloatArray
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.forward_passes import (
    device_of,
    free_bytes,
    move_module,
    move_tensor,
    pick_log_probabilities,
    quick_products,
    stays,
    tiled_log_probabilities,
    tokens_at_once,
)
from auditor.models.prefix_trees import Encoded, Forest, batches, laid_out, pack_texts, reads_trees
from auditor.models.text_scores import Objective, ScoresTexts
from auditor.models.torch_context import without_gradients
from auditor.models.torch_model import evaluating

if TYPE_CHECKING:
    from auditor.models.prefix_cache import PrefixCache

# Their positions begin after the padding index, so that many fewer tokens fit than there are position embeddings.
_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "data2vec-text", "longformer"}
    | {"mpnet", "ibert"}
)
NO_PROBABILITY = (
    "The model's logits are NaN or infinite, so texts have no probability: check its weights, or its number format."
)
_WHOLE_BYTES = 256 << 20


class AuditedLanguageModel(ScoresTexts, AuditedModel):
    """A causal or masked language model of transformers with its tokenizer.

    ``network``: a ``...ForCausalLM`` or ``...ForMaskedLM`` module, left as it was by everything here. ``tokenizer``: a
    fast tokenizer of transformers. ``prefix``: ids that stand before every text of a causal model, one that it scores
    and one that it continues; None means what the tokenizer puts there, else its beginning-of-sequence token where it
    has one (:func:`~auditor.models.chat.document_start` in place of one that opens the turns of a chat), else nothing,
    and then the first token of a text has no probability. ``batch_tokens``: tokens in one forward pass; None means what
    the device holds.

    Raises ModelError for a module that is neither, or a tokenizer that does not fit it.
    """

    kind = "language_model"

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        *,
        objective: Objective | None = None,
        prefix: Sequence[int] | None = None,
        device: str | torch.device = "cpu",
        batch_tokens: int | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(_no_classes, classes=(), provenance=provenance)
        self.objective: Objective = objective or objective_of(network)
        self.module = move_module(network, torch.device(device))
        self.device = device_of(network) if stays(network) else torch.device(device)
        self.tokenizer = tokenizer
        free = free_bytes(self.device)
        self.batch_tokens = tokens_at_once(network, free) if batch_tokens is None else batch_tokens
        self._whole_bytes = _WHOLE_BYTES if free is None else max(_WHOLE_BYTES, free // 8)
        self.forwarded: Counter[tuple[Any, ...]] = Counter()
        self.context = _context(network)
        self._backend = _backend(tokenizer)
        self._check_vocabulary()
        self._prefix_named = prefix is not None
        self.prefix = () if self.objective == "masked" else self._prefix(prefix)
        self._pad = int(getattr(tokenizer, "pad_token_id", None) or 0)
        self._plain_head: bool | None = None
        self._keeps = False
        self._cache: PrefixCache | None = None

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def vocabulary(self) -> int:
        """The vocabulary size of the network."""
        return int(self.module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]

    @property
    def dtype(self) -> str:
        """The compute dtype, such as ``bfloat16``."""
        return str(next(p.dtype for p in self.module.parameters() if p.is_floating_point())).removeprefix("torch.")

    @property
    def notes(self) -> str:
        """The method of scoring texts, in one sentence, for a finding's detail."""
        if self.objective == "masked":
            return "Pseudo-log-likelihood: each token is masked and predicted from all others."
        if not self.prefix:
            return (
                "Log-likelihood with nothing in front of a text (the tokenizer has no beginning-of-sequence token, or "
                "none was asked for), so first tokens are not scored."
            )
        mark = self.chat_mark
        apart = "" if mark is None else f", not after {self._backend.id_to_token(mark)}, which opens a turn of its chat"
        return f"Log-likelihood after {self.prefix_text} (token id {', '.join(map(str, self.prefix))}){apart}."

    @property
    def prefix_text(self) -> str:
        """The prefix of every text of a causal model, in its tokenizer's spelling; "" for none."""
        return " ".join(str(self._backend.id_to_token(i)) for i in self.prefix)

    @property
    def chat_mark(self) -> int | None:
        """The beginning-of-sequence token, where it opens the turns of a chat and another one is the prefix for it."""
        begin: int | None = getattr(self.tokenizer, "bos_token_id", None)
        derived = self.objective == "causal" and not self._prefix_named
        if begin is None or not derived or self.prefix in ((int(begin),), self._tokenizer_prefix()):
            return None
        return int(begin)

    def with_prefix(self, prefix: str | int | Sequence[int]) -> AuditedLanguageModel:
        """The same network and tokenizer, with another prefix: a token, its id, ids, or "" for none.

        Raises ConfigError where the tokenizer does not have it, or the model is a masked one, which has no prefix.
        """
        if self.objective == "masked":
            raise ConfigError("A masked model sees the whole text at once: prefix_token is for causal models.")
        ids: tuple[int, ...]
        if isinstance(prefix, str):
            found = self._backend.token_to_id(prefix) if prefix else None
            if prefix and found is None:
                raise ConfigError(
                    f"The tokenizer has no token {prefix!r} for prefix_token: name one of its tokens or an id, such as "
                    f"{self._special_tokens()}."
                )
            ids = () if found is None else (int(found),)
        else:
            ids = (prefix,) if isinstance(prefix, int) else tuple(int(i) for i in prefix)
        size = int(self.module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
        wrong = next((i for i in ids if not 0 <= i < size), None)
        if wrong is not None:
            raise ConfigError(f"prefix_token {wrong} is no token of this model: its ids go from 0 to {size - 1:,}.")
        other = copy.copy(self)
        other.prefix, other._prefix_named = ids, True
        return other

    def as_sent(self) -> AuditedLanguageModel:
        """The same model with no text prefix except the tokenizer's own, or a prefix that was named.

        A beginning-of-sequence token that no caller sends gives a text's first token a probability, and what follows
        another one than it has in use.
        """
        if self.objective == "masked" or self._prefix_named:
            return self
        other = copy.copy(self)
        other.prefix = self._tokenizer_prefix()
        return other

    def by_possible_prefixes(self) -> tuple[AuditedLanguageModel, ...]:
        """The same model with each possible prefix of its training texts: only one if it was named or the tokenizer
        adds it; both none and the beginning-of-sequence token if the tokenizer names one and does not add it."""
        sent = self.as_sent()
        return (sent,) if sent.prefix == self.prefix else (sent, self.with_prefix(self.prefix))

    def with_prefix_cache(self) -> AuditedLanguageModel:
        """The same model with a cache of read texts for :meth:`log_odds`, valid while its weights are unchanged."""
        other = copy.copy(self)
        other._keeps, other._cache = True, None
        return other

    def forget(self) -> None:
        """Discard cached outputs and states."""
        super().forget()
        self._cache = None

    def _prefix_cache(self) -> PrefixCache:
        from auditor.models.prefix_cache import PrefixCache

        # A copy of the model around another network begins anew.
        if self._cache is None or self._cache.network is not self.module:
            self._cache = PrefixCache(self.module)
        return self._cache

    def _special_tokens(self) -> str:
        added = sorted(self._backend.get_added_tokens_decoder().items())[:4]
        return ", ".join(f"{token.content!r} (id {i})" for i, token in added) or "0"

    # ---- texts to tokens -------------------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The texts as tokens. Raises NotApplicableError where one does not fit the context or has nothing to score."""
        found = self._encode_batch(texts)
        if self.context is not None:
            long = [len(e.ids) for e in found if len(e.ids) > self.context]
            if long:
                raise NotApplicableError(
                    f"{len(long):,} of {len(found):,} texts are longer than the model's context of {self.context:,} "
                    f"tokens (the longest has {max(long):,}): use a model with a longer context, or shorter texts."
                )
        return _with_something_to_score(texts, found)

    def encode_cut(self, texts: Sequence[str], max_tokens: int | None = None) -> tuple[list[Encoded], int]:
        """The texts as tokens of a causal model, cut to ``max_tokens`` and to the context, and how many were cut.

        The first tokens are kept. What stands before every text is no token of it. A text that fits is the same as by
        :meth:`encode`. Raises NotApplicableError where nothing is left to score.
        """
        room = None if self.context is None else max(self.context - len(self.prefix), 0)
        limit = min((n for n in (max_tokens, room) if n is not None), default=None)
        whole = self._encode_batch(texts)
        if limit is None:
            return _with_something_to_score(texts, whole), 0
        most = len(self.prefix) + limit
        found = [
            e if len(e.ids) <= most else Encoded(e.ids[:most], e.scored[:most], e.ends[:most], e.words[:most])
            for e in whole
        ]
        return _with_something_to_score(texts, found), sum(len(e.ids) > most for e in whole)

    def _encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        masked = self.objective == "masked"
        if masked:
            self._mask_id()
        with _uncut(self._backend):
            encodings = self._backend.encode_batch(list(texts), add_special_tokens=masked)
        return [self._encoded(e) for e in encodings]

    def _encoded(self, encoding: Any) -> Encoded:
        special = [bool(s) for s in encoding.special_tokens_mask]
        lead = self.prefix
        scored = [not s for s in special] if self.objective == "masked" else [True] * len(encoding.ids)
        if self.objective != "masked" and not lead and scored:
            scored[0] = False
        words = [-1 if w is None else int(w) for w in encoding.word_ids]
        return Encoded(
            ids=(*lead, *encoding.ids),
            scored=(*(False for _ in lead), *scored),
            ends=(*(0 for _ in lead), *(int(end) for _, end in encoding.offsets)),
            words=(*(-1 for _ in lead), *words),
        )

    def _prefix(self, prefix: Sequence[int] | None) -> tuple[int, ...]:
        if prefix is not None:
            return tuple(int(i) for i in prefix)
        own, begin = self._tokenizer_prefix(), getattr(self.tokenizer, "bos_token_id", None)
        if own or begin is None:
            return own
        from auditor.models.chat import document_start

        return (document_start(self.tokenizer, int(begin), getattr(self.tokenizer, "eos_token_id", None)),)

    def _tokenizer_prefix(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text."""
        with _uncut(self._backend):
            plain = list(self._backend.encode("a", add_special_tokens=False).ids)
            dressed = list(self._backend.encode("a", add_special_tokens=True).ids)
        if plain and len(dressed) > len(plain):
            at = next((i for i in range(len(dressed)) if dressed[i : i + len(plain)] == plain), 0)
            return tuple(dressed[:at])
        return ()

    def _mask_id(self) -> int:
        mask = getattr(self.tokenizer, "mask_token_id", None)
        if mask is None:
            raise NotApplicableError(
                "The tokenizer names no mask token, without which a masked model cannot be scored: add mask_token to "
                "its tokenizer_config.json."
            )
        return int(mask)

    def _check_vocabulary(self) -> None:
        embeddings: Any = self.module.get_input_embeddings()  # type: ignore[operator]
        largest = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)
        known = int(embeddings.weight.shape[0])
        if not 0 <= largest < known:
            raise ModelError(
                f"The tokenizer has {largest + 1:,} tokens, the network knows {known:,}: they do not belong together."
            )

    # ---- log-probabilities -----------------------------------------------------------------------------------------

    def token_log_probabilities(
        self, texts: Sequence[Encoded], places: Sequence[Sequence[int]] | None = None, *, within_word: bool = False
    ) -> list[FloatArray]:
        """For each text (length,) log-probabilities of its tokens in nats, NaN where not requested.

        ``places``: which tokens of each text, default all that are scored. ``within_word``: for a masked model, hide
        the later tokens of the same word too (Kauf and Ivanova, ACL 2023), which the plain form gives away. Raises
        ModelError where the model gives no probability but NaN.
        """
        wanted = places or [[i for i, scored in enumerate(t.scored) if scored] for t in texts]
        with without_gradients(), evaluating(self.module), quick_products():
            if self._plain_head is None and texts:
                # What follows the last layer acts on each place alone, so a few will show it.
                self._plain_head = self._has_plain_head(texts[0].ids[:4])
            if self.objective == "masked":
                found = self._masked(texts, wanted, within_word)
            else:
                found = self._causal([t.ids for t in texts], wanted)
        # A sum over NaN would be that of the other tokens, and equal for all texts where there are none.
        if any(np.isnan(p[list(at)]).any() for p, at in zip(found, wanted, strict=True)):
            raise ModelError(NO_PROBABILITY)
        return found

    def _causal(self, texts: Sequence[tuple[int, ...]], wanted_places: Sequence[Sequence[int]]) -> list[FloatArray]:
        unique = sorted(set(texts))
        found = {ids: np.full(len(ids), np.nan) for ids in unique}
        asked: dict[tuple[int, ...], set[int]] = {ids: set() for ids in unique}
        for ids, places in zip(texts, wanted_places, strict=True):
            asked[ids].update(places)
        for batch in batches(self._rows(unique), self._budget(), lambda row: len(row.tokens)):
            self._score_rows(batch, asked, found)
        return [_keep_places(found[ids], places) for ids, places in zip(texts, wanted_places, strict=True)]

    def _rows(self, texts: Sequence[tuple[int, ...]]) -> list[Forest]:
        """Sorted texts as rows, the longest first."""
        longest = max((len(ids) for ids in texts), default=0)
        rows = pack_texts(texts) if reads_trees(self.module, longest) else [Forest.from_texts((ids,)) for ids in texts]
        return sorted(rows, key=lambda row: -len(row.tokens))

    def _score_rows(
        self,
        rows: Sequence[Forest],
        wanted_places: Mapping[tuple[int, ...], set[int]],
        scores: Mapping[tuple[int, ...], FloatArray],
    ) -> None:
        nodes: dict[tuple[int, int], int] = {}
        answers: list[tuple[int, int, tuple[int, ...], int]] = []
        for r, row in enumerate(rows):
            for text, path in row.texts:
                for place in sorted(wanted_places[text]):
                    node = nodes.setdefault((r, path[place - 1]), len(nodes))
                    answers.append((node, text[place], text, place))
        if not answers:
            return
        values = self._forward(
            laid_out(self.module, rows, self._pad),
            torch.tensor(list(nodes)),
            torch.tensor([a[0] for a in answers]),
            torch.tensor([a[1] for a in answers]),
        )
        for (_, _, text, place), value in zip(answers, values.tolist(), strict=True):
            scores[text][place] = value

    def mean_states(self, texts: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], FloatArray] | None:
        """For each text (ids as read) the mean over its tokens of the last hidden states, (width,).

        None where texts that begin alike cannot share that work.
        """
        longest = max((len(ids) for ids in texts), default=0)
        if self.objective != "causal" or not reads_trees(self.module, longest):
            return None
        found: dict[tuple[int, ...], FloatArray] = {}
        with without_gradients(), evaluating(self.module), quick_products():
            # A row leaves out the last token of a text, which nothing follows: here that is one more than it has.
            rows = self._rows(sorted({(*ids, self._pad) for ids in texts}))
            for batch in batches(rows, self.batch_tokens, lambda row: len(row.tokens)):
                inputs = self._to_device(laid_out(self.module, batch, self._pad))
                reader: Any = self.module.base_model
                states = reader(**inputs, **self._no_cache()).last_hidden_state
                for row, own in zip(batch, states, strict=True):
                    for text, path in row.texts:
                        found[text[:-1]] = own[path].double().mean(dim=0).cpu().numpy()
        return found

    def log_odds(self, texts: Sequence[tuple[int, ...]], pairs: Sequence[tuple[int, int]]) -> FloatArray | None:
        """(n,) ``log p(first) - log p(second)`` in nats of a pair of tokens behind each text, ids as they are read.

        By the pair's two rows of the last layer: what all tokens sum to is the same for both. None where the network
        is not causal, or its logits are not its last layer's output. Raises ModelError where the model gives NaN.
        """
        if self.objective != "causal":
            return None
        states: dict[tuple[int, ...], Tensor] = {}
        with without_gradients(), evaluating(self.module), quick_products():
            if self._plain_head is None:
                self._plain_head = self._has_plain_head(texts[0][:4])
            if not self._plain_head:
                return None
            head: Any = self.module.get_output_embeddings()  # type: ignore[operator]

            def forward_hidden(inputs: Mapping[str, Tensor], **more: Any) -> Tensor:
                with _holding_back(head, torch.zeros((1, 2), dtype=torch.long)) as hidden:
                    self.module(**self._to_device(inputs), **(more or self._no_cache()))
                return hidden[0]

            if self._keeps and reads_trees(self.module, max(map(len, texts), default=0)):
                states = self._prefix_cache().states_behind(texts, forward_hidden, self.batch_tokens)
            rows = [] if states else self._rows(sorted({(*ids, self._pad) for ids in texts}))
            for batch in batches(rows, self.batch_tokens, lambda row: len(row.tokens)):
                seen = forward_hidden(laid_out(self.module, batch, self._pad))
                states.update((text[:-1], seen[r, path[-1]]) for r, row in enumerate(batch) for text, path in row.texts)
            first, second = torch.tensor(pairs, device=head.weight.device).T
            behind = torch.stack([states[ids] for ids in texts]).to(head.weight.device).double()
            found = (behind * (head.weight[first].double() - head.weight[second].double())).sum(dim=1)
            if head.bias is not None:
                found = found + head.bias[first].double() - head.bias[second].double()
        if not bool(torch.isfinite(found).all()):
            raise ModelError(NO_PROBABILITY)
        return np.asarray(found.cpu().numpy())

    def _masked(
        self, texts: Sequence[Encoded], wanted_places: Sequence[Sequence[int]], within_word: bool
    ) -> list[FloatArray]:
        mask = self._mask_id()
        found = [np.full(len(t.ids), np.nan) for t in texts]
        tasks = [(t, place) for t, places in enumerate(wanted_places) for place in places]
        tasks.sort(key=lambda task: -len(texts[task[0]].ids))
        for batch in batches(tasks, self._budget(), lambda task: len(texts[task[0]].ids)):
            length = max(len(texts[t].ids) for t, _ in batch)
            ids = torch.full((len(batch), length), self._pad)
            present = torch.zeros((len(batch), length), dtype=torch.long)
            targets = []
            for r, (t, place) in enumerate(batch):
                text = texts[t]
                row = list(text.ids)
                targets.append(row[place])
                row[place] = mask
                if within_word:
                    for later in range(place + 1, len(row)):
                        if text.words[later] == text.words[place] and text.scored[later]:
                            row[later] = mask
                ids[r, : len(row)] = torch.tensor(row)
                present[r, : len(row)] = 1
            places = torch.tensor([[r, place] for r, (_, place) in enumerate(batch)])
            values = self._forward(
                {"input_ids": ids, "attention_mask": present}, places, torch.arange(len(batch)), torch.tensor(targets)
            )
            for (t, place), value in zip(batch, values.tolist(), strict=True):
                found[t][place] = value
        return found

    def _budget(self) -> int:
        if self._plain_head:
            return self.batch_tokens
        embeddings: Any = self.module.get_input_embeddings()  # type: ignore[operator]
        return max(1, min(self.batch_tokens, self._whole_bytes // (4 * int(embeddings.weight.shape[0]))))

    def _has_plain_head(self, ids: Sequence[int]) -> bool:
        """Whether the logits are the last layer's output as it stands, with no soft cap or scale behind it."""
        head: Any = self.module.get_output_embeddings()  # type: ignore[operator]
        # Of an offloaded layer the weights are elsewhere until it is asked.
        if type(head) is not nn.Linear or head.weight.is_meta:
            return False
        inputs = torch.tensor([list(ids)], device=self.device)
        everywhere = torch.tensor([[0, i] for i in range(len(ids))], device=self.device)
        with _holding_back(head, everywhere) as hidden:
            logits: Tensor = self.module(input_ids=inputs, **self._no_cache()).logits
        own = head(hidden[0][0]).to(logits.device)
        return own.shape == logits.shape and torch.allclose(own.float(), logits.float(), rtol=1e-4, atol=1e-5)

    def _forward(self, inputs: Mapping[str, Tensor], places: Tensor, place_numbers: Tensor, targets: Tensor) -> Tensor:
        """(n,) float64 log-probabilities: ``targets[k]`` by the logits at ``places[at[k]]``.

        ``places``: (n_places, 2) row and column. The network's last layer is held back and applied in tiles. Where
        something follows it, such as a soft cap, the network makes the logits itself, in smaller batches.
        """
        moved = self._to_device(inputs)
        where, place_numbers, targets = (move_tensor(value, self.device) for value in (places, place_numbers, targets))
        if not self._plain_head:
            logits = self.module(**moved, **self._no_cache()).logits
            return pick_log_probabilities(logits[where[:, 0], where[:, 1]], place_numbers, targets)
        head: Any = self.module.get_output_embeddings()  # type: ignore[operator]
        with _holding_back(head, where[:1]) as hidden:
            self.module(**moved, **self._no_cache())
        return tiled_log_probabilities(hidden[0][where[:, 0], where[:, 1]], head, place_numbers, targets)

    def _to_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs where the network is; their tokens count as passed forward."""
        self.forwarded["tokens",] += inputs["input_ids"].numel()
        return {name: move_tensor(value, self.device) for name, value in inputs.items()}

    def _no_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if self.objective == "causal" else {}


def _no_classes(rows: object) -> NoReturn:
    raise ModelError("A language model predicts no classes: ask it with the probes of the language pillar.")


def objective_of(network: nn.Module) -> Objective:
    """The objective of a transformers module, causal or masked, by its class.

    Raises ModelError.
    """
    from transformers.models.auto import modeling_auto

    name = type(network).__name__
    if name in set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        return "causal"
    if name in set(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()):
        return "masked"
    raise ModelError(f"{name} is neither a causal nor a masked language model of transformers.")


def logits_at(network: nn.Module, inputs: Mapping[str, Any], places: Tensor) -> Tensor:
    """(n, vocabulary) logits of a causal or masked network at ``places``, (n, 2) row and column; gradients flow.

    The last layer is given these places alone, so that no (batch, length, vocabulary) tensor is made where that layer
    is a module of its own.
    """
    head: Any = network.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        logits: Tensor = network(**inputs).logits
        return logits[places[:, 0], places[:, 1]]
    with _holding_back(head, places) as seen:
        logits = network(**inputs).logits
    return logits if seen else logits[places[:, 0], places[:, 1]]


def plain(network: nn.Module) -> nn.Module:
    """The network in a form that transformers can save: rebuilt if it was read from a quantised file."""
    held: Any = network
    if getattr(held, "hf_quantizer", None) is None and not hasattr(held.config, "quantization_config"):
        return network
    config = copy.deepcopy(held.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        again: Any = type(held)(config)
    again.load_state_dict(held.state_dict(), assign=True)
    again.tie_weights()
    again.generation_config = held.generation_config
    return again  # type: ignore[no-any-return]


def _backend(tokenizer: Any) -> Any:
    import tokenizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise ModelError(
            "The tokenizer is not a fast one: save its tokenizer.json with AutoTokenizer.from_pretrained(...)."
        )
    return backend


@contextmanager
def _uncut(backend: Any) -> Iterator[None]:
    """Inside, the tokenizer neither cuts nor pads, whatever its file says: a cut text would be scored as if whole."""
    cut, padded = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        if cut is not None:
            backend.enable_truncation(**cut)
        if padded is not None:
            backend.enable_padding(**padded)


def _with_something_to_score(texts: Sequence[str], encodings: list[Encoded]) -> list[Encoded]:
    for text, encoded in zip(texts, encodings, strict=True):
        if not any(encoded.scored):
            raise NotApplicableError(
                f"The text {text[:40]!r} leaves this model no token to score: it needs more words, or a tokenizer "
                "with a beginning-of-sequence token."
            )
    return encodings


def _context(network: nn.Module) -> int | None:
    """Most tokens that fit the network, or None where its configuration names no limit."""
    config: Any = network.config
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        limit = getattr(config, key, None)
        if isinstance(limit, int) and limit > 0:
            offset = config.model_type in _OFFSET_POSITIONS and config.pad_token_id is not None
            return limit - (int(config.pad_token_id) + 1 if offset else 0)
    return None


@contextmanager
def _holding_back(head: nn.Module, places: Tensor) -> Iterator[list[Tensor]]:
    """Inside, ``head`` sees its input at ``places``, (n, 2), only; the list receives all of its input."""
    seen: list[Tensor] = []

    def select(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0])
        return (args[0][places[:, 0], places[:, 1]], *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield seen
    finally:
        handle.remove()


def _keep_places(values: FloatArray, places: Sequence[int]) -> FloatArray:
    """The values at some places, NaN elsewhere."""
    out: FloatArray = np.full(len(values), np.nan)
    at = list(places)
    out[at] = values[at]
    return out
