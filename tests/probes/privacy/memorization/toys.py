"""Language models that remember: one that was told what, by its table, and one that is trained on a text."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.models.language_model import AuditedLanguageModel

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789 .:,@-ABCDEFGHIJKLMNOPQRSTUVWXYZ\n"
SPECIAL = ["<pad>", "<s>", "<unk>"]
_ORDER = 6
NAMES = ("boris", "clara", "elena", "frank", "grace", "helen", "irene", "jacob")


def char_tokenizer() -> Any:
    """One token a character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {c: i for i, c in enumerate([*SPECIAL, *ALPHABET])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


class Parrot(nn.Module):
    """A causal model of characters that goes on as the texts it was told do after the same six, by ``strength``."""

    def __init__(self, texts: Sequence[str], tokenizer: Any, strength: float) -> None:
        super().__init__()
        self.table = nn.Embedding(len(tokenizer), 4)
        self.config = SimpleNamespace(model_type="parrot")
        self.strength = nn.Parameter(torch.tensor(strength))
        seen: dict[int, int] = {}
        for text in texts:
            ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False).input_ids]])
            seen |= dict(zip(self._codes(ids)[0, :-1].tolist(), ids[0, 1:].tolist(), strict=True))
        self.register_buffer("keys", torch.tensor(sorted(seen) or [-1]))
        self.register_buffer("following", torch.tensor([seen[k] for k in sorted(seen)] or [0]))

    def _codes(self, ids: Tensor) -> Tensor:
        """A number for the last six tokens at every place."""
        before = nn.functional.pad(ids, (_ORDER - 1, 0), value=1).unfold(1, _ORDER, 1)
        return (before * self.table.num_embeddings ** torch.arange(_ORDER)).sum(dim=2)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        size, codes = self.table.num_embeddings, self._codes(input_ids)
        keys: Tensor = self.keys  # type: ignore[assignment]
        at = torch.searchsorted(keys, codes).clamp_max(len(keys) - 1)
        logits = torch.zeros((*input_ids.shape, size))
        known = (keys[at] == codes).float() * self.strength
        return SimpleNamespace(logits=logits.scatter(2, self.following[at][..., None], known[..., None]))  # type: ignore[index]


def parrot(texts: Sequence[str], strength: float = 8.0) -> AuditedLanguageModel:
    tokenizer = char_tokenizer()
    return AuditedLanguageModel(Parrot(texts, tokenizer, strength), tokenizer, objective="causal", batch_tokens=8192)


def secrets(n: int = 8, seed: int = 0) -> list[str]:
    """Canaries with six random digits."""
    rng = np.random.default_rng(seed)
    return [f"the code of {name} is {''.join(map(str, rng.integers(0, 10, 6)))}" for name in NAMES[:n]]


WORDS = (
    "river stone light paper garden window market winter summer bridge letter music forest silver copper engine "
    "harbour candle mirror village doctor teacher farmer sailor walked found carried painted followed answered opened "
    "slowly quietly often never again before after under over near the a one some every"
).split()


def sentences(n: int, seed: int) -> list[str]:
    """Random sentences of six words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(n)]


def char_gpt(lines: Sequence[str], *, steps: int = 600, seed: int = 0, width: int = 48) -> AuditedLanguageModel:
    """A GPT-2 of two layers over characters, trained on the lines."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = char_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_layer=2, n_head=4, n_embd=width, n_positions=128, resid_pdrop=0.0,
                embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1,
            )
        )  # fmt: skip
        encoded = [torch.tensor([1, *tokenizer(line, add_special_tokens=False).input_ids]) for line in lines]
        ids = nn.utils.rnn.pad_sequence(encoded, batch_first=True)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        network.train()
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if len(order) < 16:
                order = torch.cat([order, torch.randperm(len(ids), generator=generator)])
            batch, order = ids[order[:16]], order[16:]
            logits = network(input_ids=batch, use_cache=False).logits
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten(), ignore_index=0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return AuditedLanguageModel(network.eval(), tokenizer, batch_tokens=4096)
