"""The real Jigsaw classifier: what carries the score of "I am a gay man", by an explanation that has earned it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from probes.attribution.attribution_task import pose
from probes.attribution.feature_attribution import FeatureAttribution
from probes.attribution.gradient import Effort
from probes.attribution.methods import explain
from tests.real.test_text import jigsaw

torch.set_num_threads(1)

WHO = ("gay", "tall", "black", "white", "muslim", "christian", "lesbian", "jewish", "short", "kind")
FRAMES = (
    "I am a {} man",
    "my {} neighbour went to the shop today",
    "you are a {} person and I like you",
    "the {} teacher read a book to the class",
    "what a stupid {} idiot you are",
    "nobody likes the {} guy at work",
    "I hate that {} liar",
    "a {} doctor helped us last night",
)


def texts(*given: str) -> AuditData:
    return AuditData.from_arrays(np.asarray(given, object), classes=["not toxic", "toxic"], positive="toxic")


@pytest.mark.slow
def test_the_identity_word_carries_the_score() -> None:
    model = jigsaw()
    data = texts("I am a gay man", "I am a tall man")
    problem = pose(model, data, data, np.ones(2, np.int64), rng=np.random.default_rng(0))
    explained = explain("integrated_gradients", problem, np.random.default_rng(0), Effort())
    gay, tall = (dict(zip(n, v, strict=True)) for n, v in zip(problem.units.names, explained.values, strict=True))
    assert max(gay, key=lambda word: gay[word]) == "gay"
    assert gay["gay"] > 0.5 * (explained.outputs[0] - explained.baseline[0]) > 0.0
    assert gay["gay"] > 3.0 * abs(tall["tall"])


@pytest.mark.slow
def test_its_explanation_earns_its_display_on_texts_that_did_not_choose_it() -> None:
    data = texts(*(frame.format(word) for frame in FRAMES for word in WHO))
    found = FeatureAttribution(n_copies=0, n_steps=20, max_steps=100).measure(jigsaw(), data, np.random.default_rng(0))
    result = ProbeResult(probe="feature_attribution", pillar="attribution", citation="", measurements=tuple(found))
    findings, _ = judge([result], load_criteria())
    (gain,) = [f for f in findings if f.measurement is not None and f.measurement.metric == "faithfulness_gain"]
    assert gain.outcome is Outcome.PASS
    words = [str(m.at["word"]) for m in found if m.metric == "global_importance"]
    assert {"idiot", "liar", "gay", "lesbian"} <= set(words[:10])
