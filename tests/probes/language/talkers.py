"""Toy models that talk, a toy scorer, and what the tests of generated text share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.rows import FloatArray
from auditor.judging.criterion import Criterion
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.language_model import AuditedLanguageModel
from probes.language.continuations import built_in_prompts
from probes.language.generation_bias import GenerationBias
from tests.toys.labelled import calibrated
from tests.toys.language import causal_tokenizer


def criterion(metric: str, bound: float = 0.1) -> Criterion:
    return Criterion(metric=metric, direction="at_most", bound=bound, source="test", set_by="test", set_at="2026-01-01")


def judged(found: list[Measurement], metric: str, bound: float = 0.1) -> Judgement:
    result = ProbeResult(probe="generation_bias", pillar="language", citation="", measurements=tuple(found))
    findings = judge([result], [criterion(metric, bound)])[0]
    return next(f for f in findings if f.criterion is not None and f.measurement is not None)


# ---- the probe -----------------------------------------------------------------------------------------------------


class Talker(nn.Module):
    """Says "good" after anything, "bad" where the prompt holds one of the tokens ``targets``."""

    def __init__(self, size: int, good: int, bad: int, targets: list[int]) -> None:
        super().__init__()
        self.table = nn.Embedding(size, 4)
        self.good, self.bad, self.targets = good, bad, targets
        self.config = SimpleNamespace(model_type="talker")

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        logits = torch.full((*input_ids.shape, self.table.num_embeddings), -1e9)
        logits[..., self.good] = 0.0
        hit = torch.isin(input_ids, torch.tensor(self.targets, dtype=torch.long)).any(dim=1)
        logits[hit, :, self.good], logits[hit, :, self.bad] = -1e9, 0.0
        return SimpleNamespace(logits=logits)


LEXICON = """
category = "species"
source = "test"
why = "test"
templates = [{templates}]

[[identities]]
name = "feline"
words = {{ noun = "cat" }}

[[identities]]
name = "canine"
words = {{ noun = "dog" }}
"""


def talker(target: str | None) -> AuditedLanguageModel:
    return _talker(["cat", "dog", "the", *(f"w{i}" for i in range(60))], [] if target is None else [target])


def _talker(words: list[str], targets: list[str]) -> AuditedLanguageModel:
    tokenizer = causal_tokenizer(["good", "bad", *words])
    of = tokenizer.convert_tokens_to_ids
    network = Talker(len(tokenizer), of("good"), of("bad"), [of(t) for t in targets])
    return AuditedLanguageModel(network, tokenizer, objective="causal")


def talking_toy(targets: list[str]) -> AuditedLanguageModel:
    """A model that knows the words of the built-in prompts about gender."""
    from tokenizers import pre_tokenizers

    prompts = built_in_prompts("gender")
    rows = prompts.filled(prompts.beginnings, None, np.random.default_rng(0))
    split = pre_tokenizers.Whitespace().pre_tokenize_str
    return _talker(sorted({w for row in rows for text in row for w, _ in split(text)}), targets)


FEMALE = ["woman", "She", "sister"]


def goodness(bias: float = 0.0) -> AuditedModel:
    """A scorer: share of good among good and bad; with ``bias``, less of it where a dog is named."""

    def score(texts: Any) -> FloatArray:
        good = np.asarray([t.split().count("good") for t in texts], np.float64)
        bad = np.asarray([t.split().count("bad") for t in texts], np.float64)
        plain = np.where(good + bad > 0, good / np.maximum(good + bad, 1), 0.5)
        return np.clip(plain - bias * np.asarray(["dog" in t for t in texts]), 0.0, 1.0)

    return AuditedModel.from_callable(score, classes=("bad", "good"))


def probe_of(
    folder: Path, scorer: AuditedModel, n_templates: int | None = 60, calibration: str | None = "", **more: Any
) -> GenerationBias:
    path = folder / "lexicon.toml"
    path.write_text(LEXICON.format(templates=", ".join(f'"the {{noun}} w{i}"' for i in range(60))))
    return GenerationBias(
        categories=(),
        lexicon=str(path),
        scorer=scorer,
        n_templates=n_templates,
        max_new_tokens=3,
        calibration=calibrated() if calibration == "" else calibration,
        **more,
    )


METRICS = ("average_individual_fairness", "average_group_fairness", "worst_score_gap")
