"""Generated text: planted bias is found, its absence passes, the scorer's own bias is flagged."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import probes.language.text_scorers
from auditor.core.errors import ConfigError, NotApplicableError
from auditor.judging.measurement import Outcome
from auditor.run.checks.contract import check_probe
from auditor.run.probe import make_probe
from auditor.run.run_audit import no_data
from auditor.statistics.estimate import Undefined
from probes.language.continuations import CATEGORIES, built_in_prompts
from probes.language.generation_bias import METHOD, GenerationBias, category_measurements, halving
from probes.language.text_scorers import load_scorer
from tests.probes.language.talkers import FEMALE, METRICS, criterion, goodness, judged, probe_of, talker, talking_toy
from tests.quantifiers import all_of, none_of
from tests.toys.labelled import calibrated


@pytest.mark.parametrize("metric", METRICS)
def test_planted_bias_fails_and_its_absence_passes(tmp_path: Path, metric: str) -> None:
    probe = probe_of(tmp_path, goodness())
    biased = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert judged(biased, metric).outcome is Outcome.FAIL
    ideal = probe.measure(talker(None), no_data(), np.random.default_rng(0))
    assert judged(ideal, metric).outcome is Outcome.PASS
    few = probe_of(tmp_path, goodness(), n_templates=10).measure(talker(None), no_data(), np.random.default_rng(0))
    finding = judged(few, metric)
    assert finding.outcome is Outcome.INCONCLUSIVE and (finding.n_required or 0) > 10


def test_it_keeps_the_contract() -> None:
    check_probe(
        GenerationBias(
            categories="gender", n_samples=2, max_new_tokens=2, scorer=goodness(), calibration=calibrated()
        ),
        ideal_model=talking_toy([]), ideal_data=no_data(),
        violating_model=talking_toy(FEMALE), violating_data=no_data(),
        criteria=[
            criterion("average_group_fairness"), criterion("worst_score_gap"), criterion("corrected_rate_gap", 0.2),
        ],
        key="generation_bias",
    )  # fmt: skip


def test_same_seed_same_measurements_and_the_model_as_it_was(tmp_path: Path) -> None:
    probe, model = probe_of(tmp_path, goodness(), n_templates=5), talker("dog")
    before, state = copy.deepcopy(model.module.state_dict()), torch.get_rng_state()
    first = probe.measure(model, no_data(), np.random.default_rng(4))
    again = probe.measure(model, no_data(), np.random.default_rng(4))
    assert [(m.metric, m.estimate) for m in first] == [(m.metric, m.estimate) for m in again]
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert {m.method for m in first} == {METHOD}
    gaps = {m.at["identity"]: m.estimate.value for m in first if m.metric == "identity_score_gap"}
    assert gaps == {"feline": 0.5, "canine": -0.5}


def test_the_scorers_own_bias_is_printed_and_stops_the_judgement(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, goodness(bias=0.3))
    found = probe.measure(talker(None), no_data(), np.random.default_rng(0))
    gap = next(m for m in found if m.metric == "scorer_identity_gap")
    assert gap.estimate.value == pytest.approx(0.3)
    for metric in METRICS:
        finding = judged(found, metric)
        assert finding.outcome is Outcome.INCONCLUSIVE and "scorer's own bias" in finding.reason
    loud = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert judged(loud, "worst_score_gap").outcome is Outcome.FAIL, "what is larger than the scorer's gap is judged"


def test_one_beginning_is_undefined() -> None:
    rng = np.random.default_rng(0)
    found = category_measurements("c", ("a", "b"), rng.random((1, 2, 4)), rng.random((3, 2)), "note", rng)
    undefined = [m.metric for m in found if isinstance(m.estimate, Undefined)]
    assert undefined == list(METRICS)


@pytest.mark.parametrize("category", CATEGORIES)
def test_built_in_prompts_fit_every_identity(category: str) -> None:
    prompts = built_in_prompts(category)
    for sentences, size in ((prompts.beginnings, 40), (prompts.carriers, 30)):
        rows = prompts.filled(sentences, None, np.random.default_rng(0))
        assert len(rows) == size and {len(row) for row in rows} == {len(prompts.names)}
        assert all_of(len(set(row)) == len(row) for row in rows), "each identity has a text of its own"
        assert none_of("{" in text or "  " in text for row in rows for text in row)


def test_options_that_are_wrong() -> None:
    with pytest.raises(ConfigError, match="did you mean 'religion'"):
        make_probe(GenerationBias, {"categories": ["religon"]})
    for option in ({"n_samples": 1}, {"top_p": 2.0}, {"temperature": "hot"}, {"categories": []}):
        with pytest.raises(ConfigError):
            make_probe(GenerationBias, option)


def test_without_vader_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes.language.text_scorers, "find_spec", lambda name: None)
    with pytest.raises(NotApplicableError, match=r"responsible-auditor\[language\]"):
        load_scorer(None)


def test_scorers() -> None:
    score, whose = load_scorer(goodness(), "bad")
    np.testing.assert_allclose(score(["good good", "bad"]), [0.0, 1.0])
    assert whose == "P(bad) by the classifier given"
    with pytest.raises(Exception, match="did you mean 'good'"):
        load_scorer(goodness(), "goood")


def test_a_bundle_is_a_scorer(tmp_path: Path) -> None:
    from auditor.data.preprocessing import TextPreprocessing
    from auditor.models.networks.architectures import BiLSTMText
    from auditor.models.saved_models import save
    from auditor.models.torch_model import TorchModel

    arguments = {"n_words": 5, "n_outputs": 2, "embedding_dim": 4, "hidden_size": 4, "dense": 4}
    model = TorchModel(
        BiLSTMText(**arguments), classes=("no", "yes"), architecture={"name": "bilstm_text", "args": arguments},
        preprocessing=TextPreprocessing(vocabulary={"good": 2, "bad": 3}, unknown=1, length=5),
    )  # fmt: skip
    save(model, tmp_path / "scorer.pt")
    score, whose = load_scorer(str(tmp_path / "scorer.pt"))
    texts = np.asarray(["good day", "bad"], object)
    np.testing.assert_allclose(score(list(texts)), model.predict_proba(texts)[:, 1], atol=1e-6)
    assert whose.startswith("P(yes) by scorer.pt, sha256 ")


def test_importing_probes_imports_no_torch() -> None:
    code = "import probes.language.continuations, probes.fairness.embeddings, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_how_many_continuations_would_halve_an_interval() -> None:
    rng = np.random.default_rng(18)
    alike = rng.random((4000, 2, 2))
    needed = int(halving(alike).split("about ")[1].split()[0])
    assert 7 <= needed <= 9 and f"{8000 * needed:,} in all" in halving(alike), "four times as many, or nearly"
    differing = alike * 0.01 + rng.random((4000, 2, 1))
    assert "about 16000 beginnings" in halving(differing), "more continuations would not help"
    assert halving(np.full((5, 2, 2), 0.5)) == ""


def test_it_says_what_there_is_to_do() -> None:
    assert GenerationBias(calibration=calibrated()).workload == "1,520 continuations of at most 10 tokens"
    assert GenerationBias().workload == "380 continuations of at most 10 tokens"
    few = GenerationBias(categories="gender", n_templates=3, n_samples=5, max_new_tokens=4)
    assert few.workload == "30 continuations of at most 4 tokens"
