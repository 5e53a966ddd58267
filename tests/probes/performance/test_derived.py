"""What became of each item since the model that another was made of: against counting by hand, planted changes, and
whoever would like to hide one."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

import auditor.run.scan
from auditor.core.errors import MissingExtraError, ModelError, NotApplicableError, OtherKindError, UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.generation import next_token_log_probabilities
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.quantized_model import quantized
from auditor.models.regression_model import AuditedRegressor
from auditor.models.torch_model import TorchModel
from auditor.run.run_audit import no_data, run_audit
from auditor.run.scan import probe_specs
from auditor.run.while_training.training_audit import TrainingAudit
from auditor.statistics.changes import RateChange
from auditor.statistics.rates import Proportion
from cli.mitigate import with_reference
from cli.scan_request import configure
from probes import PROBES
from probes.language.stereotype import built_in_pairs
from probes.performance import derived_language
from probes.performance.derived_model import Derived
from probes.performance.performance import Performance
from probes.privacy.memorization.extraction import Extraction
from tests.probes.language.pair_toys import texts_of, toy
from tests.probes.privacy.memorization.toys import parrot, sentences
from tests.quantifiers import all_of
from tests.run.while_training.worlds import network, selecting
from tests.run.while_training.worlds import rows as training_rows
from tests.toys.language import WORDS, causal_tokenizer, masked_tokenizer, tiny, tiny_bert
from tests.toys.models import criterion, model, numbers, rows

TORCHAO = importlib.util.find_spec("torchao") is not None


def measured(after: AuditedModel, data: AuditData | None = None, **options: Any) -> list[Measurement]:
    return Derived(**options).measure(after, no_data() if data is None else data, np.random.default_rng(0))


def one(found: list[Measurement], metric: str, method: str | None = None, **group: str) -> Measurement:
    (own,) = (m for m in found if m.metric == metric and m.group == group and method in (None, m.method))
    return own


# ---- classifiers -----------------------------------------------------------------------------------------------------


def drifted() -> tuple[TorchModel, TorchModel, AuditData]:
    """A tuned model that refuses some of group a, and approves a few of whom the other refused."""
    before = model(lambda skill, group, seen: skill)
    after = model(
        lambda skill, group, seen: torch.where(
            group > 0.5, torch.where(skill > 4.3, -skill, skill), torch.where(skill < -4.6, -skill, skill)
        )
    )
    return before, after, rows(600)


def test_flips_of_rows_are_those_that_counting_by_hand_finds() -> None:
    before, after, data = drifted()
    found = measured(after, data, reference=before)
    old, new, y = before.decisions(data).tolist(), after.decisions(data).tolist(), data.y_true
    assert y is not None and data.sensitive_features is not None
    groups = data.sensitive_features["group"].tolist()
    for name in (None, "a", "b"):
        at = [i for i in range(len(data)) if name in (None, groups[i])]
        group = {} if name is None else {"group": name}
        flips = [i for i in at if old[i] != new[i]]
        assert len(flips) > 0
        churn = one(found, "churn", **group).estimate
        assert churn == Proportion(successes=len(flips), n=len(at))
        lost = [i for i in flips if old[i] == y[i]]
        assert one(found, "negative_flip_rate", **group).estimate == Proportion(successes=len(lost), n=len(at))
        up = sum(new[i] == 1 for i in flips)
        way = one(found, "churn_direction", **group)
        assert way.estimate == Proportion(successes=up, n=len(flips))
        assert f"(exact McNemar p = {binomtest(up, len(flips)).pvalue:.2g})" in way.detail
    worst = one(found, "largest_group_churn")
    by_group = [one(found, "churn", group=name).estimate.value for name in ("a", "b")]
    assert worst.estimate.value == pytest.approx(max(by_group)) and by_group[0] != by_group[1]
    assert "most among a:" in worst.detail


def test_averages_that_stay_hide_no_flips() -> None:
    """As many of either way: accuracy is what it was, and 6 in 100 have another answer."""
    n = 1_000
    X = pd.DataFrame({"x": np.arange(n, dtype=float)})
    labels = np.arange(n) % 2
    data = AuditData.from_arrays(X, labels, classes=["0", "1"], positive="1")

    def answers(wrong: np.ndarray) -> AuditedModel:
        said = np.where(wrong, 1 - labels, labels)
        return AuditedModel.from_callable(
            lambda rows: np.eye(2)[said[np.asarray(rows)[:, 0].astype(int)]], classes=["0", "1"], features=["x"]
        )

    before, after = answers(np.arange(n) < 30), answers(np.arange(n) >= n - 30)
    found = measured(after, data, reference=before)
    assert (before.decisions(data) == labels).mean() == (after.decisions(data) == labels).mean() == 0.97
    assert one(found, "churn").estimate.value == 0.06 and one(found, "negative_flip_rate").estimate.value == 0.03
    assert "30 were wrong and are right" in one(found, "negative_flip_rate").detail


def test_no_flip_is_an_interval_and_not_a_zero() -> None:
    data = rows(400)
    found = measured(model(lambda s, g, _: 2.0 * s), data, reference=model(lambda s, g, _: s))
    churn = one(found, "churn")
    assert churn.estimate.value == 0.0
    assert churn.estimate.bounds(0.025)[1] == pytest.approx(1.0 - 0.025 ** (1 / 400))
    assert churn.detail.startswith("no flip in 400 rows, at most 0.00918 of all such at 95 %")
    assert one(found, "negative_flip_rate").detail.startswith("no negative flip in 400 labelled rows")
    assert [m for m in found if m.metric == "churn_direction"] == []


def test_a_model_that_went_wrong_fails_and_one_that_did_not_passes() -> None:
    data, before = rows(4_000), model(lambda s, g, _: s)
    bad = model(lambda s, g, _: torch.where((g > 0.5) & (s > 4.0), -s, s))
    for after, outcome in ((bad, Outcome.FAIL), (model(lambda s, g, _: 2.0 * s), Outcome.PASS)):
        report = run_audit(after, data, [Performance(), Derived(reference=before)], criteria=load_criteria())
        said = {f.metric: f.outcome for f in report.findings if f.probe == "derived" and f.criterion is not None}
        assert said == {"negative_flip_rate": outcome, "largest_group_negative_flip_rate": outcome}


def test_a_constant_model_made_of_a_constant_one_passes_nothing() -> None:
    data = rows(4_000)
    report = run_audit(
        model(lambda s, g, _: 0.0 * s + 1.0),
        data,
        [Performance(), Derived(reference=model(lambda s, g, _: 0.0 * s + 2))],
    )
    said = [f.outcome for f in report.findings if f.probe == "derived" and f.criterion is not None]
    assert len(said) == 2 and all_of(outcome is Outcome.INCONCLUSIVE for outcome in said)


def test_a_reference_that_is_the_model_itself_is_said_and_passes_nothing() -> None:
    data, twins = rows(4_000), [model(lambda s, g, _: s) for _ in range(2)]
    for twin in twins:
        twin.provenance = Provenance(format="torch bundle", loaded_by="test", sha256="ab" * 32)
    report = run_audit(twins[0], data, [Performance(), Derived(reference=twins[1])])
    said = [f for f in report.findings if f.probe == "derived" and f.criterion is not None]
    assert len(said) == 2 and all_of(f.outcome is Outcome.INCONCLUSIVE for f in said)
    assert all_of("very file of this model" in f.reason for f in said)


def test_what_cannot_be_compared_is_refused_in_a_sentence() -> None:
    data, own = rows(50), model(lambda s, g, _: s)
    with pytest.raises(NotApplicableError, match="--reference MODEL, or --quantize int8"):
        measured(own, data)
    other = AuditedModel.from_callable(lambda X: np.full((len(X), 3), 1 / 3), classes=["a", "b", "c"])
    with pytest.raises(UsageError, match="the classes a, b, c, this model 0, 1"):
        measured(own, data, reference=other)
    with pytest.raises(OtherKindError, match="a classifier or a language model"):
        measured(AuditedRegressor.from_callable(lambda X: np.zeros(len(X))), numbers(20), reference=own)
    with pytest.raises(UsageError, match="The reference is a language model, this model a classifier"):
        measured(own, data, reference=llama())
    with pytest.raises(NotApplicableError, match="add --data FILE"):
        measured(own, reference=own)
    with pytest.raises(ValueError, match="leave the reference out"):
        Derived(reference=own, quantize="int8")
    with pytest.raises(ValueError, match="int8 or int4, not 'int3'"):
        Derived(quantize="int3")  # type: ignore[arg-type]


def test_a_training_is_held_against_its_first_step(recwarn: pytest.WarningsRecorder) -> None:
    """The same probe, with a copy of the network as it began for a reference."""
    data = training_rows(1_000)
    begun = network()
    first = TorchModel(copy.deepcopy(begun), classes=("0", "1"), outputs="logits")
    audit = TrainingAudit(
        probes=[Derived(reference=first)], data=data, n_peeks=2, max_overhead=None, outputs="logits", criteria=[]
    )
    churns = []
    for net in (begun, selecting([1.0, 0.0, 0.0])):
        peek = audit.step(net)
        assert peek is not None
        churns += [m.estimate for r in peek.results for m in r.measurements if m.metric == "churn" and not m.group]
    assert churns[0] == Proportion(successes=0, n=1_000) and churns[1].value > 0.2


# ---- language models -------------------------------------------------------------------------------------------------


def llama(seed: int = 0, nudge: float = 0.0) -> AuditedLanguageModel:
    module = tiny("llama", seed).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += nudge * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return AuditedLanguageModel(module, causal_tokenizer())


def of_texts(texts: list[str]) -> AuditData:
    return AuditData(X=np.asarray(texts, object))


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    return texts_of(built_in_pairs().examples)


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every twentieth of the built-in pairs, where they are asked and not looked at."""
    whole = built_in_pairs()
    monkeypatch.setattr(derived_language, "built_in_pairs", lambda: replace(whole, examples=whole.examples[::20]))


@pytest.fixture(scope="module")
def unbiased(pairs: list[tuple[str, str]]) -> AuditedLanguageModel:
    return toy(pairs, 0.0)


@pytest.fixture(scope="module")
def tuned(pairs: list[tuple[str, str]], unbiased: AuditedLanguageModel) -> tuple[Any, list[Measurement]]:
    """A model that says with every pair's stereotype what it is to say, made of one that does not, and its drift."""
    after = copy.copy(unbiased)
    after.module = copy.deepcopy(unbiased.module)
    with torch.no_grad():
        after.module.table.weight += toy(pairs, 2.0).module.table.weight  # type: ignore[union-attr, operator]
    return after, measured(after, reference=unbiased)


def test_flips_of_pairs_are_those_that_counting_by_hand_finds(
    pairs: list[tuple[str, str]], unbiased: AuditedLanguageModel, tuned: tuple[Any, list[Measurement]]
) -> None:
    after, found = tuned
    old, new = (
        np.sign(np.round(np.subtract(*(np.asarray(m.log_likelihoods([p[k] for p in pairs])) for k in (0, 1))), 4))
        for m in (unbiased, after)
    )
    flips = np.flatnonzero(old != new)
    churn = one(found, "churn", "built_in_pairs")
    assert churn.estimate.value == pytest.approx(len(flips) / 1280) and len(flips) > 100
    assert churn.detail.startswith(f"{len(flips):,} of 1,280 pairs flipped; most among ")
    way = one(found, "churn_direction", "built_in_pairs")
    assert way.estimate.value == pytest.approx((new[flips] > old[flips]).mean()) and way.estimate.value > 0.9
    shift = one(found, "preference_shift", "built_in_pairs")
    assert shift.estimate.value == pytest.approx(0.5 + (new - old).mean() / 4)
    categories = [p.category for p in built_in_pairs().examples]
    own = [i for i, name in enumerate(categories) if name == "gender"]
    by_hand = (old[own] != new[own]).mean()
    assert one(found, "churn", "built_in_pairs", category="gender").estimate.value == pytest.approx(by_hand)
    floor = one(found, "churn_floor", "built_in_pairs")
    assert floor.n_samples == 320 and floor.estimate.value < churn.estimate.value
    assert "in bfloat16 alone, with the same weights" in floor.detail


def test_a_model_without_any_answer_is_no_model_that_has_kept_its_own(
    pairs: list[tuple[str, str]], unbiased: AuditedLanguageModel
) -> None:
    """Tuned to nothing: whatever it was asked has another answer, and that it has no preference is not judged."""
    blank = copy.copy(unbiased)
    blank.module = copy.deepcopy(unbiased.module)
    with torch.no_grad():
        blank.module.table.weight.zero_()  # type: ignore[union-attr, operator]
    found = measured(blank, reference=unbiased)
    assert one(found, "churn", "built_in_pairs").estimate.value > 0.7
    shift = one(found, "preference_shift", "built_in_pairs")
    assert "equally likely" in shift.too_few
    assert one(found, "next_token_divergence").estimate.value > 0.05


def test_the_same_weights_move_nothing_and_the_interval_says_how_little_that_shows(
    unbiased: AuditedLanguageModel,
) -> None:
    again = copy.copy(unbiased)
    again.module = copy.deepcopy(unbiased.module)
    found = measured(again, reference=unbiased)
    churn = one(found, "churn", "built_in_pairs")
    low, high = churn.estimate.bounds(0.025)
    assert churn.estimate.value == low == 0.0 and 0.02 < high < 0.06
    assert churn.detail.startswith(f"no flip in 1,280 pairs, at most {high:.3g} of all such at 95 %")
    apart, floor, over = (
        one(found, f"next_token_divergence{which}").estimate for which in ("", "_floor", "_over_floor")
    )
    assert apart.value == 0.0 < floor.value < 0.02 and over.value == pytest.approx(-floor.value)
    assert apart.bounds(0.025)[1] > 0.0
    assert one(found, "next_token_accuracy_change").estimate.value == 0.0


@pytest.mark.usefixtures("few_pairs")
@pytest.mark.parametrize("knowing", [False, True])
def test_to_be_no_worse_than_a_reference_that_knows_nothing_is_no_pass(knowing: bool) -> None:
    texts = [" ".join(f"w{i + k}" for k in range(12)) for i in range(40)]
    before = toy([(text, text) for text in texts], 0.0)
    if knowing:
        weights = before.module.get_input_embeddings().weight  # type: ignore[operator]
        for i in range(50):
            first, second = before.tokenizer(f"w{i} w{i + 1}", add_special_tokens=False).input_ids
            weights[first, second] = 5.0
    after = copy.copy(before)
    after.module = copy.deepcopy(before.module)
    found = measured(after, of_texts(texts), reference=before)
    result = ProbeResult(probe="derived", pillar="performance", citation="", measurements=tuple(found))
    held = [criterion("next_token_accuracy_change", "at_least", -0.1)]
    [judged] = [f for f in judge([result], held)[0] if f.criterion is not None]
    assert judged.outcome is (Outcome.PASS if knowing else Outcome.INCONCLUSIVE)
    assert ("The reference itself shows no skill" in judged.reason) is not knowing


def test_a_reference_of_broken_weights_is_refused_in_a_sentence_and_leaves_the_model_what_it_is() -> None:
    broken = llama()
    with torch.no_grad():
        next(iter(broken.module.parameters()))[0, 0] = torch.nan
    with pytest.raises(ModelError, match="The reference holds 1 weights that are NaN or infinite"):
        measured(llama(1), reference=broken)
    performance = Performance(reference=broken).measure(llama(1), no_data(), np.random.default_rng(0))
    assert {m.metric for m in performance} == {"word_order_accuracy", "sense_accuracy", "perplexity"}


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_next_tokens_are_those_of_the_network_itself(kind: str) -> None:
    if kind == "causal":
        language, text = llama(), " ".join(WORDS[:5])
        (encoded,) = language.encode([text])
        with torch.no_grad():
            logits = language.module(input_ids=torch.tensor([encoded.ids])).logits[0, :-1]
        wanted, tokens = torch.log_softmax(logits, -1), list(encoded.ids[1:])
    else:
        language = AuditedLanguageModel(tiny_bert().eval(), masked_tokenizer())
        (encoded,) = language.encode([" ".join(WORDS[:3])])
        told, tokens = [], []
        for i, scored in enumerate(encoded.scored):
            if scored:
                ids = torch.tensor([encoded.ids])
                ids[0, i] = language.tokenizer.mask_token_id
                with torch.no_grad():
                    told.append(torch.log_softmax(language.module(input_ids=ids).logits[0, i], -1))
                tokens.append(encoded.ids[i])
        wanted = torch.stack(told)
    found, stand = next_token_log_probabilities(language, encoded)
    assert torch.allclose(found, wanted, atol=1e-5) and stand.tolist() == tokens


@pytest.mark.usefixtures("few_pairs")
def test_the_distance_of_next_tokens_is_half_the_sum_of_differences() -> None:
    before, after = llama(), llama(nudge=0.05)
    texts = [" ".join(WORDS[i : i + 4]) for i in range(4)]
    found = measured(after, of_texts(texts), reference=before)
    by_hand, right = [], []
    for text in texts:
        ids = torch.tensor([[1, *before.tokenizer(text, add_special_tokens=False).input_ids]])
        with torch.no_grad():
            p, q = (torch.softmax(m.module(input_ids=ids).logits[0, :-1], -1) for m in (before, after))
        by_hand.append(float((p - q).abs().sum(-1).mean() / 2))
        right.append(float(((q.argmax(-1) == ids[0, 1:]).double() - (p.argmax(-1) == ids[0, 1:]).double()).mean()))
    apart = one(found, "next_token_divergence")
    assert apart.estimate.value == pytest.approx(np.mean(by_hand), abs=1e-5) and apart.estimate.value > 0.01
    assert apart.detail.startswith("4 texts of the data")
    assert one(found, "next_token_accuracy_change").estimate.value == pytest.approx(np.mean(right))
    assert one(found, "next_token_divergence_over_floor").estimate.value > 0.0


@pytest.mark.usefixtures("few_pairs")
def test_texts_that_tuning_made_it_recite_are_counted(tmp_path: Path) -> None:
    texts, file = sentences(12, 0), tmp_path / "texts.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    before, after = parrot([], 12.0), parrot(texts, 12.0)
    gained = one(measured(after, reference=before, texts=str(file)), "extraction_rate_change")
    old, new = (
        one(
            Extraction(texts=str(file)).measure(m, no_data(), np.random.default_rng(0)), "extraction_rate", "greedy"
        ).estimate
        for m in (before, after)
    )
    assert isinstance(gained.estimate, RateChange)
    assert (gained.estimate.rate(after=False), gained.estimate.rate(after=True)) == (old, new)
    assert gained.estimate.before == gained.estimate.lost == 0 < gained.estimate.gained
    assert " texts of texts.txt" in gained.detail and " were completed word for word, " in gained.detail


@pytest.mark.usefixtures("few_pairs")
def test_other_tokens_are_refused_and_added_ones_are_not() -> None:
    own = llama()
    other = AuditedLanguageModel(tiny("llama").eval(), causal_tokenizer(WORDS[::-1]))
    with pytest.raises(UsageError, match="cuts texts into other tokens than this model: compare"):
        measured(own, of_texts([" ".join(WORDS[:5])] * 2), reference=other)
    masked = AuditedLanguageModel(tiny_bert().eval(), masked_tokenizer())
    with pytest.raises(UsageError, match="The reference is a masked language model, this one a causal one"):
        measured(own, reference=masked)
    tokenizer = causal_tokenizer([*WORDS, "added"])
    grown = AuditedLanguageModel(tiny("llama", vocab_size=len(tokenizer)).eval(), tokenizer)
    found = measured(grown, of_texts([" ".join(WORDS[:5])] * 2), reference=own)
    assert 0.0 < one(found, "next_token_divergence").estimate.value < 1.0


# ---- quantising ------------------------------------------------------------------------------------------------------


def test_quantising_what_has_no_layers_is_not_applicable() -> None:
    data = rows(50)
    function = AuditedModel.from_callable(lambda X: np.tile([0.7, 0.3], (len(X), 1)), classes=["0", "1"])
    with pytest.raises(NotApplicableError, match="Needs a network of torch to quantise"):
        measured(function, data, quantize="int8")


@pytest.mark.skipif(TORCHAO, reason="torchao is installed, and nothing is missing")
def test_without_torchao_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'responsible-auditor\[quantize\]'"):
        measured(TorchModel(network(), classes=("0", "1"), outputs="logits"), training_rows(50), quantize="int8")


@pytest.mark.skipif(not TORCHAO, reason="torchao, of the extra quantize, is not installed")
def test_a_quantised_copy_is_compared_and_the_model_stays_as_it_is() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    own = TorchModel(module, classes=("0", "1"), outputs="logits")
    before = copy.deepcopy(module.state_dict())
    data = training_rows(2_000)
    off = {}
    for bits in ("int8", "int4"):
        other, how = quantized(own, bits)  # type: ignore[arg-type]
        off[bits] = float(np.abs(other.outputs(data) - own.outputs(data)).mean())
        assert f"in {bits} by torchao" in how
        found = measured(own, data, quantize=bits)
        flips = int((other.decisions(data) != own.decisions(data)).sum())
        assert one(found, "churn").estimate == Proportion(successes=flips, n=2_000)
        assert f"{how}, against this model as it is" in one(found, "churn").detail
    assert 0.0 < off["int8"] < off["int4"] / 4
    assert all_of(torch.equal(before[name], value) for name, value in module.state_dict().items())


# ---- as it is asked for ----------------------------------------------------------------------------------------------


def asked(**options: Any) -> dict[str, dict[str, Any]]:
    """The options of each probe that a scan asks."""
    return {
        spec.name: dict(spec.options) for spec in probe_specs(configure({"model": "a.pt"} | options, None, []), PROBES)
    }


def test_a_scan_asks_it_with_the_reference_and_the_files_of_benchmarks(tmp_path: Path) -> None:
    base, file = tmp_path / "base.pt", tmp_path / "pairs.csv"
    base.touch()
    file.touch()
    found = asked(reference=str(base), benchmark=(f"crows_pairs={file}",))
    assert found["derived"] == {"reference": str(base), "pair_benchmarks": {"crows_pairs": str(file)}}
    # Skill is asked for too: without it nobody knows whether there was anything to keep.
    assert list(asked(reference=str(base), probes=["derived"])) == ["performance", "derived"]
    assert asked()["derived"] == {}


def test_quantising_that_cannot_be_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base.pt"
    base.touch()
    with pytest.raises(UsageError, match="add it to --probes"):
        asked(quantize="int8", probes=["stereotype"])
    with pytest.raises(UsageError, match="leave --reference out"):
        asked(quantize="int8", reference=str(base))
    monkeypatch.setattr(auditor.run.scan, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs torchao: pip install 'responsible-auditor\[quantize\]'"):
        asked(quantize="int4")


def test_a_mitigation_is_not_held_against_what_it_is_there_to_change(tmp_path: Path) -> None:
    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    for path in (old, new):
        path.touch()
    for probes, options in ((None, {}), (["derived"], {"reference": str(old)})):
        _, job = with_reference(configure({"model": str(old), "probes": probes}, None, []), new)
        assert {spec.name: dict(spec.options) for spec in job.probes}["derived"] == options
