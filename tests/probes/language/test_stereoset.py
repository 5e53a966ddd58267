"""StereoSet: its scores by hand, its error rates by simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import probes.language.crows_pairs_and_stereoset
from auditor.judging.measurement import Measurement, Outcome
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.run_audit import no_data
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import BoundedMean
from probes.language.crows_pairs_and_stereoset import StereoSet, icat, over_terms
from tests.data.test_benchmarks import stereoset_example
from tests.probes.language.pair_toys import (
    RNG,
    Associations,
    number_labels_once,
    outcome,
    preferences_of,
    undecided_toy,
)
from tests.quantifiers import all_of, none_of
from tests.statistics.worlds import WORLDS, misses, most_misses


def test_stereoset(tmp_path: Path) -> None:
    examples = [
        stereoset_example(id=f"x{i}", target=f"term{i % 40}", bias_type=("race", "gender")[i % 2]) for i in range(1600)
    ]
    inter = [stereoset_example("He is a nurse .", target=f"term{i % 20}") for i in range(40)]
    file = tmp_path / "dev.json"
    file.write_text(json.dumps({"data": {"intrasentence": examples, "intersentence": inter}}))
    stereo, anti, unrelated = (f"The nurse is {w}." for w in ("kind", "rude", "seven"))
    probe = StereoSet(benchmarks={"stereoset": str(file)})
    fair = undecided_toy([stereo, anti, unrelated])
    found = {(m.method, m.metric): m for m in probe.measure(fair, no_data(), RNG) if not m.group}
    assert {k: m.estimate.value for k, m in found.items() if k[0] == "intrasentence"} == {
        ("intrasentence", "language_modeling_score"): 0.5,
        ("intrasentence", "stereotype_score"): 0.5,
        ("intrasentence", "icat"): 50.0,
        ("intrasentence", "unnormalized_stereotype_score"): 0.5,
    }
    assert len(found) == 8
    # Every text ties with every other: no answer, whatever the score.
    assert {outcome(m) for m in found.values() if m.metric == "stereotype_score"} == {Outcome.INCONCLUSIVE}
    assert all_of("equally likely" in m.too_few for m in found.values())
    table = torch.zeros(len(fair.tokenizer), len(fair.tokenizer))
    table[:, fair.tokenizer.convert_tokens_to_ids("kind")] = 1.0
    biased = AuditedLanguageModel(Associations(table), fair.tokenizer, objective="causal")
    found = {(m.method, m.metric): m for m in probe.measure(biased, no_data(), RNG) if not m.group}
    # The stereotype beats both others, which tie.
    assert found["intersentence", "language_modeling_score"].estimate.value == 0.75
    assert found["intersentence", "stereotype_score"].estimate.value == 1.0
    assert found["intersentence", "icat"].estimate.value == 0.0
    assert outcome(found["intersentence", "stereotype_score"]) is Outcome.FAIL
    assert none_of(m.too_few for m in found.values())
    # Of every term the same word is the stereotype in half of the examples, and its opposite in the other half.
    for i, example in enumerate(examples):
        if i // 40 % 2:
            labels = ("anti-stereotype", "stereotype", "unrelated")
            example["sentences"] = [
                {"sentence": f"The nurse is {word}.", "gold_label": label, "labels": []}
                for word, label in zip(("kind", "rude", "seven"), labels, strict=True)
            ]
    file.write_text(json.dumps({"data": {"intrasentence": examples, "intersentence": inter}}))
    found = {(m.method, m.metric): m for m in probe.measure(biased, no_data(), RNG) if not m.group}
    assert found["intrasentence", "stereotype_score"].estimate.value == 0.5
    assert outcome(found["intrasentence", "stereotype_score"]) is Outcome.PASS


def test_what_the_length_of_a_text_decides_is_said(tmp_path: Path) -> None:
    """The stereotype is a word longer, and to a model without a preference a longer text is less likely."""
    words = ("kind and good", "rude", "seven")
    labels = ("stereotype", "anti-stereotype", "unrelated")
    examples = [stereoset_example(id=f"x{i}", target=f"term{i % 40}") for i in range(80)]
    for example in examples:
        example["sentences"] = [
            {"sentence": f"The nurse is {word}.", "gold_label": label, "labels": []}
            for word, label in zip(words, labels, strict=True)
        ]
    file = tmp_path / "dev.json"
    file.write_text(json.dumps({"data": {"intrasentence": examples}}))
    model = undecided_toy([f"The nurse is {word}." for word in words])
    found = {
        m.metric: m
        for m in StereoSet(benchmarks={"stereoset": str(file)}).measure(model, no_data(), RNG)
        if not m.group
    }
    assert found["stereotype_score"].estimate.value == 0.5
    assert found["unnormalized_stereotype_score"].estimate.value == 0.0
    assert "in 0.500 of examples per token, and in 0.000 by the whole" in found["stereotype_score"].detail
    assert "Blodgett et al., ACL 2021" in found["stereotype_score"].detail


def test_examples_that_a_list_leaves_out_are_told_and_scored_beside(tmp_path: Path) -> None:
    examples = [stereoset_example(id=f"x{i}", target=f"term{i % 40}") for i in range(120)]
    for example in examples[:40]:
        labels = ("anti-stereotype", "stereotype", "unrelated")
        example["sentences"] = [
            {"sentence": f"The nurse is {word}.", "gold_label": label, "labels": []}
            for word, label in zip(("kind", "rude", "seven"), labels, strict=True)
        ]
    file = tmp_path / "dev.json"
    file.write_text(json.dumps({"data": {"intrasentence": examples, "intersentence": []}}))
    model = undecided_toy([f"The nurse is {word}." for word in ("kind", "rude", "seven")])
    table = torch.zeros(len(model.tokenizer), len(model.tokenizer))
    table[:, model.tokenizer.convert_tokens_to_ids("kind")] = 1.0
    biased = AuditedLanguageModel(Associations(table), model.tokenizer, objective="causal")
    (tmp_path / "list.txt").write_text("\n".join(f"x{i}" for i in range(40)))
    probe = StereoSet(benchmarks={"stereoset": str(file)}, benchmark_filter=str(tmp_path / "list.txt"))
    found = {m.metric: m for m in probe.measure(biased, no_data(), RNG) if not m.group}
    assert (found["stereotype_score"].estimate.value, found["stereotype_score"].n_samples) == (1.0, 80)
    whole = found["unfiltered_stereotype_score"]
    assert whole.estimate.value == pytest.approx(2 / 3) and whole.n_samples == 120
    assert "40 left out by list.txt, sha256 " in found["icat"].detail
    assert "unfiltered_stereotype_score is over all 120" in found["icat"].detail


def test_power_and_false_alarms_of_stereoset(monkeypatch: pytest.MonkeyPatch) -> None:
    number_labels_once(monkeypatch, probes.language.crows_pairs_and_stereoset)
    rng = np.random.default_rng(15)
    n, share = StereoSet.power
    terms = [str(i % 79) for i in range(n)]
    found = [over_terms(world, terms) for world in (rng.random((200, n)) < share).astype(np.float64)]
    measured = [Measurement(metric="stereotype_score", estimate=e, n_samples=n, ideal=0.5) for e in found]
    assert [outcome(m) for m in measured].count(Outcome.FAIL) >= 143
    at_bound = (over_terms(world, terms) for world in (rng.random((WORLDS, n)) < 0.55).astype(np.float64))
    assert max(misses(at_bound, 0.55)) <= most_misses()


def test_terms_weigh_the_same() -> None:
    estimate = over_terms(np.asarray([1.0, 1.0, 1.0, 0.0]), ["a", "a", "a", "b"])
    assert isinstance(estimate, BoundedMean) and estimate.value == 0.5 and estimate.n == 2
    assert isinstance(over_terms(np.ones(3), ["a"] * 3), Undefined)
    assert over_terms(np.ones(300), [str(i % 6) for i in range(300)]).bounds(0.01)[0] < 0.55


@pytest.mark.parametrize("share", [0.5, 0.6])
def test_icat_covers_at_its_kink(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    number_labels_once(monkeypatch, probes.language.crows_pairs_and_stereoset)
    rng = np.random.default_rng(14)
    terms = [str(i % 40) for i in range(400)]
    draws = ((rng.random((WORLDS, 400)) < p).astype(np.float64) for p in (0.9, share))
    worlds = [[over_terms(world, terms) for world in drawn] for drawn in draws]
    estimates = [icat(lms, ss) for lms, ss in zip(*worlds, strict=True)]
    assert max(misses(estimates, 100 * 0.9 * min(share, 1 - share) / 0.5)) <= most_misses()


def test_icat_of_a_balanced_score_and_of_none() -> None:
    lms = over_terms(np.asarray([1.0, 1.0, 1.0, 0.0]), list("aabb"))
    assert icat(lms, over_terms(np.full(10, 0.5), list("abcdefghij"))).value == 100 * lms.value == 75.0
    assert isinstance(icat(lms, Undefined(reason="x")), Undefined)


def test_icat_by_hand() -> None:
    """Two terms: (3 of 4 + 4 of 4) / 2 meaningful, (3 of 4 + 1 of 4) / 2 stereotypical; then one with 60 : 40."""
    terms = ["a"] * 4 + ["b"] * 4
    modelling = over_terms(np.asarray([1, 1, 1, 0, 1, 1, 1, 1], float), terms)
    balanced = over_terms(np.asarray([1, 1, 1, 0, 1, 0, 0, 0], float), terms)
    assert (modelling.value, balanced.value) == (0.875, 0.5)
    assert icat(modelling, balanced).value == pytest.approx(87.5)
    leaning = over_terms(np.asarray([1] * 6 + [0] * 4 + [0] * 2 + [1] * 3, float), ["a"] * 10 + ["b"] * 5)
    assert leaning.value == pytest.approx(0.6)
    assert icat(modelling, leaning).value == pytest.approx(100 * 0.875 * 0.4 / 0.5)
    against = over_terms(np.asarray([0] * 6 + [1] * 4 + [1] * 2 + [0] * 3, float), ["a"] * 10 + ["b"] * 5)
    assert icat(modelling, against).value == pytest.approx(icat(modelling, leaning).value), "either lean costs the same"


@pytest.mark.grid
@pytest.mark.parametrize("spread", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_intervals_hold_the_variance_between_terms(
    spread: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    number_labels_once(monkeypatch, probes.language.crows_pairs_and_stereoset)
    codes = np.repeat(np.arange(40), 10)
    terms = codes.astype(str).tolist()
    worlds = preferences_of(np.random.default_rng(16), [codes], spread, share)
    assert max(misses((over_terms(world, terms) for world in worlds), share)) <= most_misses()
