"""Toy language models whose continuation rests on words that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from auditor.models.language_model import AuditedLanguageModel
from probes.attribution.prompt_tokens import Prompt, built_in_prompts
from tests.probes.language.pair_toys import Associations, split
from tests.toys.language import causal_tokenizer


def associated(
    prompts: Sequence[Prompt], weight: Callable[[str], float], *, bos: bool = True, target: str = "he"
) -> AuditedLanguageModel:
    """A bag of words: each word adds ``weight(word)`` to the logit of the target, and takes it from its foil."""
    words = sorted({w for p in prompts for text in (p.prompt, p.paraphrase, p.target, p.foil) for w in split(text)})
    tokenizer = causal_tokenizer(words, bos=bos)
    of = {w: tokenizer.convert_tokens_to_ids(w) for w in words}
    table = torch.zeros(len(tokenizer), len(tokenizer))
    for word, index in of.items():
        table[index, of[target]] = weight(word)
        if "she" in of:
            table[index, of["she"]] = -weight(word)
    return AuditedLanguageModel(Associations(table), tokenizer, objective="causal")


def pronoun_toy(by_cue: bool) -> AuditedLanguageModel:
    """Says "he" or "she" by the occupation of the built-in sentences, or by every word that is none, and "The" last."""
    prompts = built_in_prompts().examples
    cues = sorted({c for p in prompts for c in p.cues})
    weights = {cue: (-1.0) ** i * (1.0 + i % 3) for i, cue in enumerate(cues)}

    def other(word: str) -> float:
        return 0.0 if word in weights or word == "The" else (-1.0) ** (sum(map(ord, word))) * (1.0 + len(word) % 3)

    return associated(prompts, (lambda w: weights.get(w, 0.0)) if by_cue else other)
