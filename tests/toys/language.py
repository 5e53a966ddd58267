"""Small random language models, their tokenizers, and texts for them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

WORDS = "the a dog cat bird sees likes hears small big red old young man woman and but not today here".split()
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]


def causal_tokenizer(words: list[str] = WORDS, *, bos: bool = True, adds: bool = False) -> Any:
    """One token a word; a beginning-of-sequence token, which it ``adds`` by itself or does not."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate([*SPECIAL, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if adds:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>"} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", **names)


def masked_tokenizer(*, mask: bool = True) -> Any:
    """Words in two pieces each, [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = sorted({w[:2] for w in WORDS} | {f"##{w[2:]}" for w in WORDS if len(w) > 2})
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *pieces])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"mask_token": "[MASK]"} if mask else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", **names
    )


def tiny(kind: str, seed: int = 0, **more: object) -> nn.Module:
    """A random causal model of a family, one or two layers deep."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    sizes: dict[str, object] = {
        "vocab_size": len(WORDS) + len(SPECIAL), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 128, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.8,
    }  # fmt: skip
    if kind == "gpt2":
        sizes = {
            "vocab_size": sizes["vocab_size"], "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 128,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.8,
        }  # fmt: skip
    model: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | more)))
    return model


def tiny_bert(seed: int = 0, **more: object) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    sizes: dict[str, object] = {
        "vocab_size": len(masked_tokenizer()), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 40, "initializer_range": 0.8,
    }  # fmt: skip
    model: nn.Module = BertForMaskedLM(BertConfig(**(sizes | more)))
    return model.eval()


CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ 'today ' + m.content + ' . ' }}"
    "{% elif m.role == 'user' %}{{ '[ ' + m.content + ' ]' }}{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}"
    "{% endfor %}"
)


def save_chatty(folder: Path, template: str | list[dict[str, str]] | None = CHAT, words: Sequence[str] = ()) -> Any:
    """A random Llama with a chat template, which writes the token that its tokenizer puts before a text too."""
    marks = [mark for mark in "[ ] . : ?".split() if mark not in words]
    tokenizer = causal_tokenizer(list(dict.fromkeys([*WORDS, *marks, *words])), adds=True)
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    network: Any = tiny("llama", vocab_size=len(tokenizer), max_position_embeddings=256)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if template is not None:
        where = folder / "tokenizer_config.json"
        where.write_text(json.dumps(json.loads(where.read_text()) | {"chat_template": template}))
    return tokenizer


def sentences(n: int, seed: int = 0, longest: int = 14) -> list[str]:
    """Random texts of which many begin alike, and some are equal."""
    rng = random.Random(seed)
    starts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(max(n // 4, 1))]
    return [
        f"{rng.choice(starts)} {' '.join(rng.choices(WORDS, k=rng.randint(1, longest - 6)))}".strip() for _ in range(n)
    ]


def by_loss(network: nn.Module, tokenizer: Any, text: str) -> float:
    """Log-likelihood of one text by transformers' own loss, token 1 in front."""
    ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False).input_ids]])
    with torch.no_grad():
        return -float(network(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
