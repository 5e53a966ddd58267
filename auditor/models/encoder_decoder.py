"""Encoder-decoder models under audit: texts generated token by token from an input text.

A text alone is scored as what the decoder writes where the encoder has read nothing; a text that follows a context as
what it writes where the encoder has read the context. Source of the second: lm-evaluation-harness, for models of
``AutoModelForSeq2SeqLM``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import ConfigError, ModelError, NotApplicableError
from auditor.core.rows import FloatArray, IntArray
from auditor.models.audited_model import Provenance
from auditor.models.language_model import NO_PROBABILITY, AuditedLanguageModel
from auditor.models.prefix_trees import batches
from auditor.models.torch_context import without_gradients
from auditor.models.torch_model import evaluating

# By transformers' name of the family; a test holds each to transformers' own loss.
FAMILIES = frozenset({"mt5", "t5", "umt5"})


class AuditedEncoderDecoder(AuditedLanguageModel):
    """An encoder-decoder of transformers, such as T5, with its tokenizer.

    Its texts begin with the decoder's own first token and what the tokenizer puts before a text. Raises ModelError
    where its configuration names no such token.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        *,
        device: str | torch.device = "cpu",
        batch_tokens: int | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(
            network,
            tokenizer,
            objective="seq2seq",
            device=device,
            batch_tokens=batch_tokens,
            provenance=provenance,
        )

    def _prefix(self, prefix: Sequence[int] | None) -> tuple[int, ...]:
        config: Any = self.module.config
        first = getattr(config, "decoder_start_token_id", None)
        if not isinstance(first, int):
            raise ModelError("The config.json names no decoder_start_token_id, with which a decoder begins.")
        return (first, *self._tokenizer_prefix())

    def source(self, text: str) -> list[int]:
        """The encoder's input for a text: its tokens, with the tokenizer's additions."""
        ids = [int(i) for i in self.tokenizer(text).input_ids]
        if not ids:
            raise NotApplicableError("The tokenizer leaves the encoder nothing to read of an empty text.")
        return ids

    @property
    def notes(self) -> str:
        """The method of scoring texts, in one sentence, for a finding's detail."""
        return "Log-likelihood of what the decoder writes after the encoder has read the context, or nothing."

    def with_prefix(self, prefix: str | int | Sequence[int]) -> NoReturn:
        """Raise ConfigError: the decoder's initial tokens cannot be set."""
        raise ConfigError("An encoder-decoder begins with a token of its own: prefix_token is for causal models.")

    def as_sent(self) -> AuditedLanguageModel:
        """The model itself: the decoder's initial tokens cannot be set."""
        return self

    def continuations(self, contexts: Sequence[str], texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
        """Log-likelihoods (n,) of texts generated after the encoder read their contexts, and their tokens (n,)."""
        encoded = self.encode(texts)
        places = [[i for i, scored in enumerate(e.scored) if scored] for e in encoded]
        sources = [self.source(context) for context in contexts]
        with without_gradients(), evaluating(self.module):
            found = self._decoder_log_probabilities(sources, [e.ids for e in encoded], places)
        totals = np.asarray([p[at].sum() for p, at in zip(found, places, strict=True)])
        if np.isnan(totals).any():
            raise ModelError(NO_PROBABILITY)
        return totals, np.asarray([len(at) for at in places], np.int64)

    def _has_plain_head(self, ids: Sequence[int]) -> bool:
        return False

    def _causal(self, texts: Sequence[tuple[int, ...]], wanted_places: Sequence[Sequence[int]]) -> list[FloatArray]:
        nothing = self.source("")
        return self._decoder_log_probabilities([nothing] * len(texts), texts, wanted_places)

    def _decoder_log_probabilities(
        self, sources: Sequence[list[int]], texts: Sequence[tuple[int, ...]], wanted_places: Sequence[Sequence[int]]
    ) -> list[FloatArray]:
        """For each text (length,) log-probabilities where they are asked for, NaN elsewhere."""
        found = [np.full(len(ids), np.nan) for ids in texts]
        order = sorted(range(len(texts)), key=lambda k: -len(sources[k]) - len(texts[k]))
        for batch in batches(order, self._budget(), lambda k: len(sources[k]) + len(texts[k])):
            inputs = self.filled([sources[k] for k in batch])
            written = self.filled([list(texts[k][:-1]) for k in batch])[0]
            logits: Tensor = self.module(
                input_ids=inputs[0], attention_mask=inputs[1], decoder_input_ids=written, use_cache=False
            ).logits
            for row, k in enumerate(batch):
                at = torch.tensor(list(wanted_places[k]), device=self.device)
                targets = torch.tensor([texts[k][i] for i in wanted_places[k]], device=self.device)
                wide = logits[row, at - 1].float()
                values = wide.gather(1, targets[:, None]).squeeze(1) - torch.logsumexp(wide, dim=-1)
                found[k][list(wanted_places[k])] = values.double().cpu().numpy()
        return found

    def filled(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """(n, length) ids, padded on the right, and which of them count, on the model's device."""
        length = max(map(len, rows))
        ids = torch.tensor([row + [self._pad] * (length - len(row)) for row in rows], device=self.device)
        there = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self.device)
        return ids, there
