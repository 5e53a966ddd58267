"""A toy model behind a stub server and in the hand: a reference whose next-token probabilities are the server's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.models.endpoint.served_model import _PASSAGES
from auditor.models.endpoint.server_findings import Handshake, ignored, lacking, proven
from auditor.models.endpoint.session import NAMES
from auditor.models.language_model import AuditedLanguageModel
from tests.models.endpoint.stub import TABLES, VOCABULARY, Stub, Toy
from tests.toys.language import tiny

END = VOCABULARY
_OTHERS = ["</s>", "<unk>", *sorted({word for passage in _PASSAGES for word in passage.split()})]


class ReadableToy(Toy):
    """A toy whose distributions follow from the ids of all words before, prompt or not.

    ``noise``: of its log-probabilities, as rounding its weights would make it.
    """

    def __init__(self, seed: int, noise: float = 0.0) -> None:
        super().__init__(seed)
        self.ids = {word: i for i, word in enumerate([*(w.strip() for w in self.words), *_OTHERS])}
        if noise:
            moved = self.logs + np.random.default_rng(seed + 1).normal(0.0, noise, self.logs.shape)
            order = np.argsort(-moved, axis=1)
            self.orders = np.take_along_axis(self.orders, order, axis=1)
            moved = np.take_along_axis(moved, order, axis=1)
            self.logs = moved - np.log(np.exp(moved).sum(axis=1, keepdims=True))

    def token(self, word: str) -> int:  # type: ignore[override]
        return int(self.ids.get(word, self.ids["<unk>"]))


class ToyNetwork(nn.Module):
    """The toy as a network: logits of a (1, length) text."""

    def __init__(self, toy: ReadableToy) -> None:
        super().__init__()
        self.toy = toy
        self.embeddings = nn.Embedding(len(toy.ids), 1)
        self.config = SimpleNamespace(model_type="toy", eos_token_id=END)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        logits = torch.full((1, input_ids.shape[1], len(self.toy.ids)), -torch.inf, dtype=torch.float64)
        state = self.toy.salt
        for at, token in enumerate(input_ids[0].tolist()):
            state = self.toy.step(state, token)
            table = state % TABLES
            logits[0, at, self.toy.orders[table]] = torch.from_numpy(self.toy.logs[table])
        return SimpleNamespace(logits=logits)


def tokenizer_of(toy: ReadableToy) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(toy.ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def reference_of(toy: ReadableToy) -> AuditedLanguageModel:
    return AuditedLanguageModel(ToyNetwork(toy), tokenizer_of(toy), objective="causal")


class SteadyToy(ReadableToy):
    """A toy that has one distribution after any text, so that a small Llama has it too."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.orders = np.tile(self.orders[0], (TABLES, 1))
        self.logs = np.tile(self.logs[0], (TABLES, 1))

    def save(self, folder: Path) -> None:
        """A Llama that looks at nothing: every token leads to the same states, and these to the toy's logits."""
        network: Any = tiny("llama", vocab_size=len(self.ids), eos_token_id=END, max_position_embeddings=256)
        with torch.no_grad():
            network.model.embed_tokens.weight.fill_(1.0)
            for layer in network.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            network.lm_head.weight.zero_()
            network.lm_head.weight[:, 0] = -60.0
            network.lm_head.weight[self.orders[0], 0] = torch.from_numpy(self.logs[0]).float()
        network.save_pretrained(folder)
        tokenizer_of(self).save_pretrained(folder)


@dataclass
class Serves(Stub):
    """A server of a readable toy of its own seed, or of another one."""

    toy_served: ReadableToy | None = None
    # Words that stand before every prompt, as a template would put them there.
    added: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.toy = self.toy_served or ReadableToy(self.seed)
        self.other = ReadableToy(self.seed + 10_000)

    def _made(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.added and route == "completions":
            body = body | {"prompt": f"{self.added} {body['prompt']}"}
        return super()._made(route, body)


def shown(**otherwise: str) -> Handshake:
    """A handshake in which all is proven but what is said to be ``ignored`` or ``lacking``."""
    made = {"ignored": ignored, "lacking": lacking}
    found = tuple(made[otherwise[n]](n, "so") if n in otherwise else proven(n, "so") for n in NAMES)
    return Handshake("http://127.0.0.1/v1", "toy", found, 0)
