"""Toy models for pairs of texts, and what the tests of stereotype scores share."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from auditor.core.rows import FloatArray, IntArray
from auditor.data.benchmarks.benchmark import SentencePair
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.language_model import AuditedLanguageModel
from probes.language.preference_shares import numbered
from probes.language.sense_check import read_sense
from tests.statistics.worlds import WORLDS
from tests.toys.language import causal_tokenizer

CRITERION = Criterion(
    metric="stereotype_score", direction="within", bound=(0.45, 0.55), source="test", set_by="test", set_at="2026-01-01"
)
RNG = np.random.default_rng(0)


class Associations(nn.Module):
    """A causal model of a bag of words: the logit of a token is what all tokens before it add to it, (V, V)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table)
        self.config = SimpleNamespace(model_type="associations")

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(input_ids).cumsum(1))


def toy(pairs: Sequence[tuple[str, str]], strength: float) -> AuditedLanguageModel:
    """A model in which what is said in the first of each two texts goes with whom it is said of, by ``strength``.

    At 0 what goes with whom is drawn at random, so that the first and the second are preferred about equally often.
    """
    rng = np.random.default_rng(0)
    words = sorted({w for pair in pairs for text in pair for w in split(text)})
    tokenizer = causal_tokenizer(words)
    size = len(tokenizer)
    counts: Counter[tuple[int, int]] = Counter()
    of = {w: tokenizer.convert_tokens_to_ids(w) for w in words}
    for first, second in pairs:
        a, b = set(split(first)), set(split(second))
        for word in a & b:
            counts.update({(of[m], of[word]): 1 for m in a - b})
            counts.subtract({(of[m], of[word]): 1 for m in b - a})
    table = torch.zeros(size, size)
    # Sorted, because sets come in another order in every process.
    for (mention, word), count in sorted(counts.items()):
        fixed = strength * math.copysign(1.0, count) if count else 0.0
        table[mention, word] = fixed if strength else float(rng.normal())
    return AuditedLanguageModel(Associations(table), tokenizer, objective="causal")


def sense_texts() -> list[str]:
    """Every pair of the table of sense in a frame, for the vocabulary of a toy."""
    return [family.frames[0].format(*pair) for family in read_sense().families for pair in family.pairs]


def teach_sense(model: AuditedLanguageModel) -> None:
    """Lets a toy that knows those words know what goes with what in the table of sense."""
    weights = model.module.get_input_embeddings().weight  # type: ignore[operator]
    for family in read_sense().families:
        for first, second in family.pairs:
            ahead, behind = (model.tokenizer(text, add_special_tokens=False).input_ids for text in (first, second))
            weights[ahead[-1], behind] = 5.0


def undecided_toy(texts: Sequence[str]) -> AuditedLanguageModel:
    """A model of the words of some texts to which every word is as likely as any other: texts of one length tie."""
    tokenizer = causal_tokenizer(sorted({w for text in texts for w in split(text)}))
    table = torch.zeros(len(tokenizer), len(tokenizer))
    return AuditedLanguageModel(Associations(table), tokenizer, objective="causal")


def split(text: str) -> list[str]:
    from tokenizers import pre_tokenizers

    return [w for w, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)]


def texts_of(pairs: Sequence[SentencePair]) -> list[tuple[str, str]]:
    return [(p.more, p.less) for p in pairs]


def outcomes(report: object) -> dict[str, str]:
    return {f.id: str(f.outcome) for f in report.findings if f.group in (None, {})}  # type: ignore[attr-defined]


def outcome(measurement: Measurement, m: int = 1) -> Outcome:
    """The outcome of one measurement among ``m`` alike."""
    findings, _ = judge([result([measurement])] * m, [CRITERION])
    return findings[0].outcome


def result(measurements: Sequence[Measurement]) -> ProbeResult:
    return ProbeResult(probe="stereotype", pillar="language", citation="", measurements=tuple(measurements))


def preferences_of(
    rng: np.random.Generator, labels: Sequence[np.ndarray], spread: float, share: float, worlds: int = WORLDS
) -> FloatArray:
    """(n_worlds, n) preferences with a normal effect of ``spread`` for each level of each labelling, (n,).

    ``share`` of them are 1 over all worlds.
    """
    latent = rng.normal(float(ndtri(share)) * math.sqrt(1.0 + spread**2 * len(labels)), 1.0, (worlds, len(labels[0])))
    for codes in labels:
        latent += spread * rng.normal(size=(worlds, int(codes.max()) + 1))[:, codes]
    return (latent > 0).astype(np.float64)


def number_labels_once(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Labels are the same in every world of a simulation: they are numbered in the first one."""
    known: dict[tuple[object, ...], IntArray] = {}

    def remembered(labels: Iterable[object]) -> IntArray:
        key = tuple(labels)
        if key not in known:
            known[key] = numbered(key)
        return known[key]

    for module in modules:
        monkeypatch.setattr(module, "numbered", remembered)


def crows_file(folder: Path, pairs: Sequence[SentencePair], *, writer: bool = True) -> str:
    """A CrowS-Pairs file of the pairs, with or without their writers."""
    with (folder / "crows.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["", "sent_more", "sent_less", "stereo_antistereo", "bias_type", *(["anon_writer"] * writer)])
        for i, p in enumerate(pairs):
            rows.writerow([i, p.more, p.less, "stereo", p.category, *([f"a{i % 160}"] * writer)])
    return str(folder / "crows.csv")
