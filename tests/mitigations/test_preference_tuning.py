"""Preference tuning: each loss by hand, likelihoods against transformers' own, and what cannot be tuned refused."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from auditor.core.errors import DataError, MissingExtraError, ModelError, UsageError
from auditor.data.lexicons import built_in
from auditor.data.swaps import Swapper
from auditor.loading.job_specs import ModelSpec
from auditor.loading.language_models import load_language_folder
from auditor.models.audited_model import AuditedModel
from auditor.models.language_model import AuditedLanguageModel, logits_at
from auditor.models.saved_models import save_folder
from auditor.run.mitigation import Mitigated, Training, make_mitigation, needs_rows
from auditor.run.run_audit import no_data
from cli.commands import app
from mitigations.training.preference_pairs import PreferencePair, built_in_pairs, neutral_text, read_pairs, unseen_pairs
from mitigations.training.preference_step import (
    PreferenceStep,
    adapted,
    batch_of,
    dpo_loss,
    encoded_pairs,
    held_mass_loss,
    log_likelihoods,
    squared_margin_loss,
)
from mitigations.training.preference_tuning import PreferenceTuning, measure_margins
from tests.quantifiers import all_of, none_of
from tests.toys.language import causal_tokenizer, tiny, tiny_bert
from tests.toys.language import masked_tokenizer as masked

pytest.importorskip("peft", reason="the extra `tuning` is not installed")


def words() -> list[str]:
    """Every word of the built-in pairs and sentences, as a tokenizer that splits at spaces and stops has it."""
    texts = [t for p in (*built_in_pairs(400, np.random.default_rng(0)).pairs, *unseen_pairs().pairs) for t in p.texts]
    neutral = neutral_text()
    found = {w for text in (*texts, *neutral.anchors, *neutral.held_out) for w in text.replace(".", " .").split()}
    split = {piece for w in found for piece in w.replace(",", " , ").split()}
    return sorted(split)


def small_model(kind: str = "llama", seed: int = 0, **more: object) -> AuditedLanguageModel:
    """A random model of two layers that knows all of these words."""
    known = words()
    sizes = {"vocab_size": len(known) + 5, "initializer_range": 0.2}
    return AuditedLanguageModel(tiny(kind, seed, **(sizes | more)).eval(), causal_tokenizer(known))


@pytest.fixture(scope="module")
def model() -> AuditedLanguageModel:
    return small_model()


def tuned(model: AuditedModel, seed: int = 0, training: Training | None = None, **options: Any) -> Mitigated:
    usual: dict[str, Any] = {"n_pairs": 12, "epochs": 2, "batch_size": 4}
    return PreferenceTuning(**(usual | options)).mitigate(
        model, no_data(), np.random.default_rng(seed), training or Training()
    )


def write_lines(path: Path, entries: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(path)


def as_lines(pairs: tuple[PreferencePair, ...]) -> list[dict[str, str]]:
    return [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected, "cluster": p.cluster} for p in pairs]


# ---- losses --------------------------------------------------------------------------------------------------------


def test_dpo_is_the_published_formula() -> None:
    policy = torch.tensor([[-1.0, -2.0], [-3.0, -0.5]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[-1.5, -1.5], [-3.0, -1.0]], dtype=torch.float64)
    # By hand: the gains differ by (0.5) - (-0.5) = 1 and by 0 - 0.5 = -0.5; beta 2.
    by_hand = [math.log(1 + math.exp(-2.0)), math.log(1 + math.exp(1.0))]
    loss = dpo_loss(policy, reference, 2.0)
    assert float(loss.detach()) == pytest.approx(sum(by_hand) / 2, abs=1e-12)
    loss.backward()  # type: ignore[no-untyped-call]
    # Section 4 of the paper: each pair pulls by beta sigmoid(-beta difference), up on the chosen, down on the other.
    pull = [2.0 / (1 + math.exp(2.0)) / 2, 2.0 / (1 + math.exp(-1.0)) / 2]
    expected = [[-pull[0], pull[0]], [-pull[1], pull[1]]]
    assert policy.grad is not None and np.allclose(policy.grad.numpy(), expected, atol=1e-12)
    # Where nothing has moved the loss is log 2, whatever beta.
    assert float(dpo_loss(reference, reference, 0.1)) == pytest.approx(math.log(2.0))


def test_the_squared_margin_rests_at_equal_likelihood_and_keeps_the_two_together() -> None:
    policy = torch.tensor([[math.log(0.3), math.log(0.1)], [math.log(0.05), math.log(0.05)]], dtype=torch.float64)
    assert float(squared_margin_loss(policy)) == pytest.approx(math.log(3.0) ** 2 / 2)
    even = torch.tensor([[math.log(0.2), math.log(0.2)], [math.log(0.05), math.log(0.05)]], dtype=torch.float64)
    assert float(squared_margin_loss(even)) == 0.0
    assert float(held_mass_loss(even, policy)) == pytest.approx(0.0, abs=1e-12)
    fallen = even - math.log(2.0)
    assert float(held_mass_loss(fallen, policy)) == pytest.approx(math.log(2.0) ** 2)


# ---- likelihoods ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("gpt2", {}),
        ("bloom", {"n_head": 2, "n_layer": 2}),
        ("cohere", {"logit_scale": 0.2}),
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 64}),
    ],
)
def test_likelihoods_with_gradients_are_those_of_the_audit(kind: str, more: dict[str, object]) -> None:
    model = small_model(kind, **more)
    pairs = (*built_in_pairs(6, np.random.default_rng(0)).pairs, PreferencePair(
        prompt="The nurse said that", chosen=" she was late", rejected=" he left", cluster="nurse"
    ))  # fmt: skip
    scored = encoded_pairs(model, pairs)
    batch = batch_of(scored, 0, torch.device("cpu"))
    # The two texts of a built-in pair differ in their last token and share a row.
    assert len(batch.ids) == 6 + 2 and batch.n_texts == 14
    found = log_likelihoods(model.module, batch)
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    audited, _ = model.continuations([pair.prompt for pair in pairs for _ in (0, 1)], texts)
    np.testing.assert_allclose(found.detach().numpy(), audited, atol=1e-4)
    for (text, places), value in zip(scored, found.tolist(), strict=True):
        with torch.no_grad():
            whole = torch.log_softmax(model.module(input_ids=torch.tensor([text.ids])).logits[0].double(), dim=-1)
        assert value == pytest.approx(sum(float(whole[p - 1, text.ids[p]]) for p in places), abs=1e-4)


def test_logits_at_places_have_the_gradients_of_all_logits(model: AuditedLanguageModel) -> None:
    network = copy.deepcopy(model.module).double()
    ids, places = torch.tensor([[1, 6, 7, 8], [1, 9, 10, 11]]), torch.tensor([[0, 1], [1, 3], [1, 0]])
    gradients = []
    for few in (True, False):
        network.zero_grad()
        logits = (
            logits_at(network, {"input_ids": ids}, places)
            if few
            else network(input_ids=ids).logits[places[:, 0], places[:, 1]]
        )
        logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all_of(torch.allclose(a, b, rtol=1e-8, atol=1e-9) for a, b in zip(*gradients, strict=True))
    assert none_of(m._forward_pre_hooks for m in network.modules())


def step_of(model: AuditedLanguageModel, beta: float | None, pairs: tuple[PreferencePair, ...]) -> PreferenceStep:
    torch.manual_seed(3)
    network = adapted(copy.deepcopy(model.module).eval().requires_grad_(False), rank=2, alpha=4.0)
    return PreferenceStep(
        network,
        encoded_pairs(model, pairs),
        model.encode(neutral_text().anchors[:5]),
        learning_rate=1e-2,
        n_steps=10,
        pad=0,
        device=torch.device("cpu"),
        beta=beta,
        reference_weight=0.7,
        ranked=False,
        anchors_per_step=5,
    )


@pytest.mark.parametrize("beta", [None, 0.3])
def test_a_step_minimises_what_the_class_says(model: AuditedLanguageModel, beta: float | None) -> None:
    pairs = built_in_pairs(3, np.random.default_rng(0)).pairs
    step = step_of(model, beta, pairs)
    rows = torch.arange(3)
    first = step([rows])
    second = step([rows])

    def likelihood(network: nn.Module, text: str) -> tuple[float, Tensor]:
        (one,) = model.encode([text])
        with torch.no_grad():
            all_logits = network(input_ids=torch.tensor([one.ids])).logits[0]
        return one, torch.log_softmax(all_logits.double(), dim=-1)  # type: ignore[return-value]

    def last(network: nn.Module, text: str) -> float:
        one, logs = likelihood(network, text)
        return float(logs[-2, one.ids[-1]])  # type: ignore[attr-defined]

    # The second step's loss was taken with the weights after the first: take the same two steps again by one.
    again = step_of(model, beta, pairs)
    again([rows])
    tuned_now, given = again.network, model.module
    total = 0.0
    for pair in pairs:
        new = [last(tuned_now, text) for text in pair.texts]
        old = [last(given, text) for text in pair.texts]
        if beta is None:
            together = math.log(sum(map(math.exp, new))) - math.log(sum(map(math.exp, old)))
            total += ((new[0] - new[1]) ** 2 + 0.7 * together**2) / 3
        else:
            w, r = (0, 1) if old[0] <= old[1] else (1, 0)
            total += math.log(1 + math.exp(-beta * ((new[w] - old[w]) - (new[r] - old[r])))) / 3
    if beta is None:
        divergences: list[float] = []
        for text in neutral_text().anchors[:5]:
            _, ref = likelihood(given, text)
            _, now = likelihood(tuned_now, text)
            divergences += (ref.exp() * (ref - now)).sum(dim=-1)[:-1].tolist()
        total += 0.7 * float(np.mean(divergences))
    assert float(second) == pytest.approx(total, abs=1e-4)
    if beta is not None:
        assert float(first) == pytest.approx(math.log(2.0), abs=1e-6)


# ---- the mitigation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_margins_of_its_pairs_close_and_the_given_model_stays(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    flags = [p.requires_grad for p in model.module.parameters()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    own = built_in_pairs(12, np.random.default_rng(4)).pairs
    file = write_lines(tmp_path / "own.jsonl", as_lines(own))
    made = tuned(model, pairs=file, test_pairs=file, epochs=12, learning_rate=1e-2)
    assert isinstance(made.model, AuditedLanguageModel)
    said = replace(unseen_pairs(), pairs=own)
    was, now = (np.abs(measure_margins(m, said, neutral_text()).margins).mean() for m in (model, made.model))
    assert now < 0.3 * was, (was, now)
    assert f"{was:.3f} before, {now:.3f} after" in made.notes[1]
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert [p.requires_grad for p in model.module.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[arg-type]
    if kind != "gpt2":
        assert "LoRA of rank 8 on the last 7 linear layers" in made.notes[0]
    first = next(n for n, m in model.module.named_modules() if isinstance(m, nn.Linear) or "c_attn" in n)
    last = [n for n, m in model.module.named_modules() if isinstance(m, nn.Linear) or "c_proj" in n][-2]
    held, given = made.model.module.state_dict(), model.module.state_dict()
    assert torch.equal(held[f"{first}.weight"], given[f"{first}.weight"])
    assert not torch.equal(held[f"{last}.weight"], given[f"{last}.weight"])
    assert {k: v.shape for k, v in made.model.module.state_dict().items()} == {k: v.shape for k, v in before.items()}


def test_dpo_goes_past_equal_likelihood_where_the_squared_margin_stops(
    model: AuditedLanguageModel, tmp_path: Path
) -> None:
    own = built_in_pairs(12, np.random.default_rng(4)).pairs
    file = write_lines(tmp_path / "own.jsonl", as_lines(own))
    said = replace(unseen_pairs(), pairs=own)

    def signed(method: str, pairs: str) -> float:
        made = tuned(model, method=method, pairs=pairs, epochs=12, learning_rate=1e-2, beta=0.5)
        assert isinstance(made.model, AuditedLanguageModel)
        return float(measure_margins(made.model, said, neutral_text()).margins.mean())

    assert signed("dpo", file) > 1.0
    turned = [{**e, "chosen": e["rejected"], "rejected": e["chosen"]} for e in as_lines(own)]
    assert signed("dpo", write_lines(tmp_path / "turned.jsonl", turned)) < -1.0
    assert abs(signed("squared_margin", file)) < 0.3


def test_the_reference_terms_hold_the_rest(model: AuditedLanguageModel) -> None:
    def divergence(weight: float) -> float:
        new = tuned(model, reference_weight=weight, epochs=8, learning_rate=1e-2).model
        assert isinstance(new, AuditedLanguageModel)
        found = [m.log_likelihoods(neutral_text().held_out) for m in (model, new)]
        return float(np.abs(found[0] - found[1]).mean())

    assert divergence(3.0) < 0.6 * divergence(0.0)


@pytest.mark.parametrize("method", ["squared_margin", "dpo"])
def test_same_seed_same_model_and_an_interrupted_tuning_goes_on(
    model: AuditedLanguageModel, tmp_path: Path, method: str
) -> None:
    texts = list(neutral_text().held_out)

    def scores(made: Mitigated) -> np.ndarray[Any, Any]:
        assert isinstance(made.model, AuditedLanguageModel)
        return made.model.log_likelihoods(texts)

    whole = scores(tuned(model, seed=1, method=method))
    assert np.array_equal(whole, scores(tuned(model, seed=1, method=method)))
    assert not np.array_equal(whole, scores(tuned(model, seed=2, method=method)))

    class Stop(Exception):
        pass

    seen: list[str] = []

    def stop(words: str) -> None:
        seen.append(words)
        if len(seen) == 2:
            raise Stop

    kept = tmp_path / "kept"
    with pytest.raises(Stop):
        tuned(model, seed=1, method=method, training=Training(checkpoint=kept, progress=stop))
    # The adapter and two moments of it; the network is not in there.
    held = torch.load(kept, weights_only=True)["modules"][0]
    assert sum(t.numel() for t in held.values()) < 0.5 * model.n_parameters
    assert np.array_equal(whole, scores(tuned(model, seed=1, method=method, training=Training(checkpoint=kept))))


def test_the_notes_are_an_independent_computation(model: AuditedLanguageModel) -> None:
    made = tuned(model, epochs=1)
    assert isinstance(made.model, AuditedLanguageModel)
    rows: dict[str, list[float]] = {}
    for pair in unseen_pairs().pairs:
        margins = []
        for m in (model, made.model):
            she, he = m.log_likelihoods(pair.texts)
            margins.append(abs(she - he))
        rows.setdefault(pair.cluster, []).append(margins[1] - margins[0])
    means = np.asarray([np.mean(v) for v in rows.values()])
    assert len(means) == 24
    # Every occupation has as many templates, so the t interval is that of 24 plain means; its quantile from a table.
    reach = 2.0687 * means.std(ddof=1) / math.sqrt(24)
    assert f"[{means.mean() - reach:+.3f}, {means.mean() + reach:+.3f}] over 24 clusters" in made.notes[1]
    perplexities = []
    for m in (model, made.model):
        scores = m.log_likelihoods(neutral_text().held_out)
        n = sum(len(t) - 1 for t in (e.ids for e in m.encode(neutral_text().held_out)))
        perplexities.append(math.exp(-scores.sum() / n))
    assert f"{perplexities[0]:.2f} before, {perplexities[1]:.2f} after" in made.notes[-1]


# ---- pairs ---------------------------------------------------------------------------------------------------------


def test_built_in_pairs_differ_in_gender_alone_and_test_ones_are_unseen() -> None:
    train, test = built_in_pairs(400, np.random.default_rng(0)).pairs, unseen_pairs().pairs
    assert len({p.texts for p in train}) == 400 and len(test) == 24 * 8
    assert not {p.cluster for p in train} & {p.cluster for p in test}
    assert not {p.prompt.replace(p.cluster, "") for p in train} & {p.prompt.replace(p.cluster, "") for p in test}
    swapper = Swapper(built_in(["gender"])[0])
    for pair in (*train, *test):
        assert (pair.chosen, pair.rejected) in ((" she", " he"), (" her", " his"), (" her", " him"))
        assert swapper.mentions(pair.prompt) == []
    assert any(p.prompt.startswith("My neighbour is an") for p in train)
    few = built_in_pairs(80, np.random.default_rng(1)).pairs
    assert {sum(p.cluster == name for p in few) for name in {p.cluster for p in few}} == {2}
    neutral = neutral_text()
    assert len(set(neutral.held_out)) == 30 and not set(neutral.anchors) & set(neutral.held_out)
    assert not [s for s in (*neutral.anchors, *neutral.held_out) if swapper.mentions(s)]
    with pytest.raises(UsageError, match="more than the 400"):
        built_in_pairs(401, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "line 2 is no JSON"),
        ("[1]", "must be a JSON object"),
        ('{"prompt": "A", "chosen": " b"}', 'needs "rejected"'),
        ('{"prompt": "A", "chosen": " b", "rejected": " b"}', "the same text"),
        ('{"prompt": "A", "chosen": " b", "rejected": " c", "group": "d"}', "unknown key 'group'"),
        ('{"prompt": "It is", "chosen": "she", "rejected": " he"}', "runs two words together"),
        ('{"prompt": "A", "chosen": " b", "rejected": " c", "cluster": 4}', "cluster must be a text"),
        ("", "at least two"),
    ],
)
def test_a_wrong_line_of_pairs_is_named(tmp_path: Path, line: str, said: str) -> None:
    good = '{"prompt": "The nurse said that", "chosen": " she", "rejected": " he"}\n'
    (tmp_path / "pairs.jsonl").write_text(good + line + "\n")
    with pytest.raises(DataError, match=said):
        read_pairs(tmp_path / "pairs.jsonl")


def test_own_pairs_are_read_as_they_stand(tmp_path: Path) -> None:
    entry = {"prompt": "他说", "chosen": "她", "rejected": "他"}
    file = write_lines(tmp_path / "p.jsonl", [entry, {**entry, "cluster": "x"}])
    found = read_pairs(file)
    assert found.ranked and found.pairs[0].texts == ("他说她", "他说他")
    assert [p.cluster for p in found.pairs] == ["他说", "x"]
    with pytest.raises(UsageError, match="cannot be read"):
        read_pairs(tmp_path / "absent.jsonl")


# ---- refused -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_tuned_is_refused(
    model: AuditedLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="this is a masked one"):
        tuned(AuditedLanguageModel(tiny_bert(), masked()))
    with pytest.raises(ModelError, match="this is a classifier"):
        tuned(AuditedModel.from_callable(lambda X: X, classes=[0, 1]))
    stranger = AuditedLanguageModel(tiny("llama"), causal_tokenizer())
    with pytest.raises(ModelError, match="as the same tokens"):
        tuned(stranger)
    cramped = small_model(max_position_embeddings=8)
    with pytest.raises(DataError, match="longer than the model's context of 8"):
        tuned(cramped)
    with pytest.raises(ModelError, match="neutral sentences .* context of 16"):
        tuned(small_model(max_position_embeddings=16))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[tuning\]"):
        tuned(model)


def test_a_network_without_linear_layers_is_refused(model: AuditedLanguageModel) -> None:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x

    bare = copy.deepcopy(model)
    for module in bare.module.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name != "lm_head":
                setattr(module, name, Squared())
    with pytest.raises(ModelError, match="no linear layer"):
        tuned(bare)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "ppo"}, {"n_pairs": 1}, {"epochs": 0}, {"rank": 0}, {"beta": 0.0}, {"learning_rate": math.inf},
        {"reference_weight": -1.0}, {"depth": 0.0}, {"depth": 1.5},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        PreferenceTuning(**options)


# ---- folders and the command line ----------------------------------------------------------------------------------


def test_a_saved_folder_loads_as_it_was(model: AuditedLanguageModel, tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_folder(model, source)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    loaded = load_language_folder(str(source), ModelSpec(path=str(source)))
    texts = list(neutral_text().held_out)
    np.testing.assert_array_equal(model.log_likelihoods(texts), loaded.log_likelihoods(texts))
    made = tuned(loaded).model
    assert isinstance(made, AuditedLanguageModel)
    save_folder(made, tmp_path / "new", like=source)
    names = {p.name for p in (tmp_path / "new").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert none_of(n.startswith("adapter") for n in names)
    assert (tmp_path / "new" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert len({oct(p.stat().st_mode) for p in (tmp_path / "new").iterdir()}) == 1
    again = load_language_folder(str(tmp_path / "new"), ModelSpec(path=str(tmp_path / "new")))
    np.testing.assert_allclose(made.log_likelihoods(texts), again.log_likelihoods(texts), atol=1e-6)


def test_a_network_read_from_a_quantised_file_is_saved_plain(model: AuditedLanguageModel, tmp_path: Path) -> None:
    held = copy.deepcopy(model)
    held.module.config.quantization_config = {"quant_method": "gguf"}  # type: ignore[union-attr]
    save_folder(held, tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    again = load_language_folder(str(tmp_path / "plain"), ModelSpec(path=str(tmp_path / "plain")))
    texts = list(neutral_text().held_out)
    np.testing.assert_array_equal(model.log_likelihoods(texts), again.log_likelihoods(texts))


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.slow
def test_a_language_model_is_mitigated_from_the_command_line(model: AuditedLanguageModel, tmp_path: Path) -> None:
    save_folder(model, tmp_path / "old")
    own = write_lines(tmp_path / "own.jsonl", as_lines(built_in_pairs(8, np.random.default_rng(0)).pairs))
    code, output = call(
        "mitigate", "preference-tuning", str(tmp_path / "old"), "--out", str(tmp_path / "fair"),
        "--with", f"pairs={own}", "--with", "epochs=1", "--probes", "stereotype", "--report", str(tmp_path / "report"),
    )  # fmt: skip
    assert code in (0, 1, 3) and "Mean |log-odds| of she and he" in output, output
    assert "8 pairs of own.jsonl" in output and "Perplexity of 30 neutral sentences" in output, output
    files = [".auditor-written.json", "fair", "fair.energy.json", "old", "own.jsonl", "report"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    load_language_folder(str(tmp_path / "fair"), ModelSpec(path=str(tmp_path / "fair")))
    comparison = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert comparison["made_by"][0] == "preference_tuning"
    of_all = {row["metric"]: row for row in comparison["rows"] + comparison["others"] if not row["of"]}
    assert of_all["stereotype_score"]["paired"]
    # Which nobody asked for: what a language model is worth is measured in any case, text by text.
    assert [(row["metric"], row["paired"]) for row in comparison["usefulness"]["rows"]] == [
        ("word_order_accuracy", True)
    ]


def test_wrong_usage_is_said_before_any_work(model: AuditedLanguageModel, tmp_path: Path) -> None:
    save_folder(model, tmp_path / "old")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    start = ["mitigate", "preference-tuning", str(tmp_path / "old"), "--out"]
    for more, said in (
        ([str(tmp_path / "fair.pt")], "must be a folder"),
        ([str(tmp_path / "old")], "is the model itself"),
        ([str(tmp_path)], "not an empty folder"),
        ([str(tmp_path / "fair"), "--data", str(tmp_path / "rows.csv")], "leave out --train and --data"),
        ([str(tmp_path / "fair"), "--with", "steps=3"], "no option 'steps'"),
    ):
        code, output = call(*start, *more)
        assert code == 2 and said in output, output
    assert not (tmp_path / "fair").exists()


def test_it_says_that_it_needs_no_rows() -> None:
    assert not needs_rows(PreferenceTuning)
    assert isinstance(make_mitigation(PreferenceTuning, {"method": "dpo"}), PreferenceTuning)
