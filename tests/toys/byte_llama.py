"""A random Llama that reads any text: byte-level tokens learned from the tool's own sentences, and a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from auditor.models.endpoint.served_model import _PASSAGES
from probes.language.stereotype import built_in_pairs
from tests.toys.language import tiny

CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + '] ' + m.content + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def save_byte_llama(folder: Path, seed: int = 0, vocabulary: int = 700, layers: int = 2) -> Path:
    """The folder with an untrained Llama of a layer or two, which nothing but chance made prefer a text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken("<s>"), AddedToken("</s>")],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for pair in built_in_pairs().examples for text in (pair.more, pair.less)]
    backend.train_from_iterator([*_PASSAGES, *texts], trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=CHAT
    )
    network: Any = tiny(
        "llama", seed, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=1,
        max_position_embeddings=8192, num_hidden_layers=layers,
    )  # fmt: skip
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
