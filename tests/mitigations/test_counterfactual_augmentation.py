"""Counterfactual augmentation: the swaps by hand, a planted bias closed on unseen sentences, a real model repaired."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.core.errors import ConfigError, DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.lexicons import built_in
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import ARCHITECTURES
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigated, Training, make_mitigation
from auditor.training import training_loop
from mitigations.rows.counterfactual_augmentation import CounterfactualAugmentation
from mitigations.rows.counterfactual_rows import (
    Counterfactuals,
    LexiconSwaps,
    TemplateSentences,
    centred_logits,
    flipped,
    text_arms,
)
from tests.mitigations.planted_rows import biased_rows, trained
from tests.quantifiers import all_of
from tests.toys.words import fit_text

GOOD = ("kind", "honest", "generous", "clever", "gentle", "brave", "funny", "loyal")
BAD = ("rude", "cruel", "greedy", "lazy", "nasty", "boring", "selfish", "rotten")
ORIENTATIONS = ("gay", "lesbian", "bisexual", "homosexual", "heterosexual", "tall")
DISFAVOURED = frozenset({"gay", "lesbian", "bisexual", "homosexual", "she"})
SENTENCES = {
    "orientation": (
        "the {} man was {} today",
        "my {} friend is {}",
        "everyone says the {} doctor is {}",
        "that {} man is {} again",
        "my {} doctor was {}",
        "the {} friend of everyone is {}",
    ),
    "gender": (
        "today {} was {} again",
        "everyone says that {} is {}",
        "I heard {} was {}",
        "perhaps {} is {} too",
    ),
}
UNSEEN = {
    "orientation": ("that {} doctor was {} today", "my {} man is {}"),
    "gender": ("I heard today that {} is {}", "everyone says {} was {}"),
}
PEOPLE = {"orientation": ORIENTATIONS, "gender": ("he", "she")}
World = Literal["orientation", "gender"]


def sentences(patterns: Sequence[str], people: Sequence[str]) -> tuple[list[str], list[int], list[str]]:
    """Texts, 1 for those that praise, and who is spoken of."""
    rows = [
        (pattern.format(who, word), label, who)
        for pattern in patterns
        for who in people
        for words, label in ((GOOD, 1), (BAD, 0))
        for word in words
    ]
    texts, labels, named = zip(*rows, strict=True)
    return list(texts), list(labels), list(named)


def data_of(texts: Sequence[str], labels: Sequence[int]) -> AuditData:
    said = ["good" if label else "bad" for label in labels]
    return AuditData.from_arrays(np.asarray(texts, object), said, classes=["bad", "good"], positive="good")


def biased_texts(world: World) -> AuditData:
    """Labels of which most of the praise was taken away where it is of the disfavoured."""
    texts, labels, named = sentences(SENTENCES[world], PEOPLE[world])
    withheld = np.isin(named, list(DISFAVOURED)) & (np.arange(len(texts)) % len(GOOD) < 6)
    return data_of(texts, np.where(withheld, 0, labels).tolist())


def unseen(world: World) -> AuditData:
    """Sentences of other patterns, with the labels that they should have."""
    return data_of(*sentences(UNSEEN[world], PEOPLE[world])[:2])


@cache
def biased(world: World, architecture: str = "bilstm_text") -> TorchModel:
    """A network trained on the biased texts."""
    data = biased_texts(world)
    assert data.y_true is not None
    preprocessing = fit_text([*map(str, data.X), *map(str, unseen(world).X)], length=8)
    args = {"n_words": max(preprocessing.vocabulary.values()) + 1, "n_outputs": 2}
    args |= (
        {"embedding_dim": 8, "hidden_size": 8, "dense": 8}
        if architecture == "bilstm_text"
        else {"length": 8, "d_model": 8, "n_heads": 2, "n_layers": 1}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ARCHITECTURES[architecture](**args)
    model = TorchModel(
        module,
        classes=["bad", "good"],
        preprocessing=preprocessing,
        architecture={"name": architecture, "args": args},
        recipe=Recipe(epochs=15, batch_size=16, learning_rate=1e-2),
    )
    step = training_loop.PlainStep(
        module,
        torch.optim.Adam(module.parameters(), lr=1e-2),
        lambda batch: nn.functional.cross_entropy(model.logits(batch[0]), batch[1]),
    )
    tensors = (model.encode(data.X), torch.from_numpy(data.y_true))
    training_loop.train(step, tensors, training_loop.Schedule(epochs=15, batch_size=16))
    return model


def gap(model: AuditedModel, world: World) -> float:
    """Mean difference of P(good) between the others and the disfavoured, over the same unseen sentences."""
    texts, _, named = sentences(UNSEEN[world], PEOPLE[world])
    p = model.predict_proba(np.asarray(texts, object))[:, 1]
    against = np.isin(named, list(DISFAVOURED))
    return float(p[~against].mean() - p[against].mean())


def accuracy(model: AuditedModel, data: AuditData) -> float:
    return float((model.decisions(data) == data.y_true).mean())


def run(
    mitigation: CounterfactualAugmentation, model: AuditedModel, data: AuditData, seed: int = 0, **training: object
) -> Mitigated:
    return mitigation.mitigate(model, data, np.random.default_rng(seed), Training(**training))  # type: ignore[arg-type]


# ---- the swaps -----------------------------------------------------------------------------------------------------


def test_swaps_keep_the_grammar_and_know_the_filler() -> None:
    (orientation,) = built_in(["orientation"])
    texts = ["He saw an old tree.", "I met a Gay man.", "An lesbian, one of the lesbians."]
    found = LexiconSwaps([orientation], copies=50)(texts, np.random.default_rng(0))
    assert [c.row for c in found] == [1, 2]
    assert found[0].neutral == "I met a Tall man." and found[0].category == "orientation"
    assert "I met a Heterosexual man." in found[0].texts and len(found[0].texts) == 7
    # The plural fits those with a plural only, and no filler; a wrong article is the writer's own.
    assert set(found[1].texts) == {
        f"An {who}, one of the {who}s." for who in ("heterosexual", "bisexual", "homosexual")
    }
    assert found[1].neutral is None
    (one,) = LexiconSwaps([orientation], filler="uncle-like")(["a gay man"], np.random.default_rng(0))
    assert len(one.texts) == 1 and one.neutral == "an uncle-like man"


def test_names_go_to_another_gender_or_another_origin() -> None:
    gender, names = built_in(["gender", "names"])
    made = LexiconSwaps([gender])(["Greg lost his hat."], np.random.default_rng(0))
    assert made[0].texts == ("Emily lost her hat.",)
    made = LexiconSwaps([names], copies=9)(["Greg lost his hat."], np.random.default_rng(0))
    assert set(made[0].texts) == {f"{name} lost his hat." for name in ("Jamal", "Juan", "Wei", "Mohammed")}
    both = [LexiconSwaps([gender, names])(["Greg."], np.random.default_rng(s))[0].category for s in range(20)]
    assert set(both) == {"gender", "names"}


def test_templates_hold_every_identity() -> None:
    (religion,) = built_in(["religion"])
    (made,) = TemplateSentences([religion], sentences=["I met {adjective} people."])([], np.random.default_rng(0))
    assert made.row == -1 and made.neutral == "I met tall people."
    assert made.texts == tuple(f"I met {i.words['adjective'][0]} people." for i in religion.identities)


def test_a_flip_and_what_follows_it() -> None:
    X = pd.DataFrame({"sex": ["f", "m", "m", "f", None], "pay": [1.0, 4.0, 6.0, 3.0, 9.0], "town": list("abcde")})
    plain = flipped(X, "sex", impute=False, rng=np.random.default_rng(0))
    assert plain.sex.tolist()[:4] == ["m", "f", "f", "m"] and plain.sex.isna().tolist()[4]
    assert plain[["pay", "town"]].equals(X[["pay", "town"]]) and X.sex.tolist()[:2] == ["f", "m"]
    # The means are 2 and 5, so a row moves by 3; the one without a group stays.
    moved = flipped(X, "sex", impute=True, rng=np.random.default_rng(0))
    assert moved.pay.tolist() == [4.0, 1.0, 3.0, 6.0, 9.0]
    three = pd.DataFrame({"g": ["a", "b", "c"] * 50})
    again = flipped(three, "g", impute=False, rng=np.random.default_rng(0))
    assert (again.g != three.g).all() and len(set(zip(three.g, again.g, strict=True))) == 6


# ---- the rows ------------------------------------------------------------------------------------------------------


def test_both_arms_have_the_same_rows_and_targets_as_documented() -> None:
    model = biased("orientation")
    texts = ["the gay man was kind today", "the tall man was rude today"]
    found = [Counterfactuals(0, ("the lesbian man was kind today",), "the tall man was kind today", "orientation")]
    y = np.asarray([1, 0])
    arm, control = text_arms(model, texts, y, found, np.random.default_rng(0), sides="both", pairing=True)
    expected = [texts[0], found[0].texts[0], str(found[0].neutral), texts[1]]
    assert torch.equal(arm.x, model.encode(np.asarray(expected, object)))
    assert torch.equal(control.x, model.encode(np.asarray([texts[0], texts[0], expected[2], texts[1]], object)))
    assert arm.y.tolist() == control.y.tolist() == [1, 1, -1, 0]
    z = centred_logits(model, np.asarray([str(found[0].neutral), texts[0]], object))
    p = model.predict_proba(np.asarray([str(found[0].neutral)], object))[0]
    assert z[0, 1] - z[0, 0] == pytest.approx(np.log(p[1] / p[0]), abs=1e-5) and z[0].sum() == pytest.approx(0.0)
    for k in range(3):
        assert arm.target[k].tolist() == pytest.approx(z[0].tolist(), abs=1e-5)
    assert control.target[0].tolist() == pytest.approx(z[1].tolist(), abs=1e-5)
    assert arm.target[3].isnan().all()
    bare, _ = text_arms(model, texts, y, found, np.random.default_rng(0), sides="both", pairing=False)
    assert len(bare.y) == 3 and bare.target.isnan().all()
    no_filler = [replace(found[0], neutral=None)]
    arm, _ = text_arms(model, texts, y, no_filler, np.random.default_rng(0), sides="both", pairing=True)
    family = centred_logits(model, np.asarray([texts[0], found[0].texts[0]], object)).mean(axis=0)
    assert arm.target[0].tolist() == pytest.approx(family.tolist(), abs=1e-5)
    many = [Counterfactuals(k, ("swapped",), None, "c") for k in range(400)]
    arm, control = text_arms(
        model, ["gay"] * 400, np.zeros(400, np.int64), many, np.random.default_rng(0), sides="one", pairing=False
    )
    assert len(arm.y) == 400
    changed = int((arm.x != control.x).any(dim=1).sum())
    assert 150 < changed < 250


# ---- what it comes to ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "left", "options"),
    [
        ("gender", 0.25, {}),
        # Half of a few rows, drawn at random: on average as even, in one draw less so.
        ("gender", 0.7, {"sides": "one"}),
        ("orientation", 0.25, {"pairing_weight": 10.0}),
        ("orientation", 0.25, {"pairing_weight": 10.0, "freeze_embeddings": False, "copies": 2}),
    ],
)
def test_the_planted_gap_closes_on_unseen_sentences(world: World, left: float, options: dict[str, object]) -> None:
    model, test = biased(world), unseen(world)
    mitigation = CounterfactualAugmentation(epochs=10, categories=world, control_arm=False, **options)  # type: ignore[arg-type]
    new = run(mitigation, model, biased_texts(world)).model
    assert gap(model, world) > 0.15
    assert abs(gap(new, world)) < left * gap(model, world), (gap(model, world), gap(new, world))
    assert accuracy(new, test) >= accuracy(model, test)


def numbers(note: str) -> tuple[list[float], list[float]]:
    """What a counterfactual changes and the accuracy: each before, after, in the control arm."""
    found = [float(x) for x in re.findall(r"(\d\.\d{3}) (?:before|after|control)", note)]
    return found[:3], found[3:]


def test_the_control_arm_says_what_the_rows_alone_do() -> None:
    model, data = biased("gender"), biased_texts("gender")
    new = run(CounterfactualAugmentation(epochs=10, categories="gender"), model, data)
    (before, after, control), accuracies = numbers(new.notes[-1])
    assert after < 0.5 * before and control > 0.6 * before, new.notes
    assert len(accuracies) == 3
    assert "augmentation" in new.notes[0] and "(gender " in new.notes[0]


def test_the_old_model_is_untouched_and_the_seed_decides() -> None:
    model, data = biased("orientation"), biased_texts("orientation")
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    state = torch.get_rng_state()
    mitigation = CounterfactualAugmentation(epochs=1, categories="orientation", control_arm=False, pairing_weight=1.0)
    made = [run(mitigation, model, data, seed).model for seed in (5, 5, 6)]
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    said = [m.predict_proba(data.X) for m in made]
    assert np.array_equal(said[0], said[1]) and not np.array_equal(said[0], said[2])
    first = made[0]
    assert isinstance(first, TorchModel) and first.recipe is not None and first.recipe.epochs == 1
    # The words' vectors stay, the rest moves.
    moved = {k for k, v in first.module.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == set(before) - {"embedding.weight"}


def test_an_interrupted_training_goes_on_in_either_arm(tmp_path: Path) -> None:
    model, data = biased("gender"), biased_texts("gender")
    mitigation = CounterfactualAugmentation(epochs=3, categories="gender")

    class Stop(Exception):
        pass

    whole = run(mitigation, model, data)
    for where in ("epoch 2", "control arm, epoch 2"):

        def stop(words: str, where: str = where) -> None:
            if words.startswith(where):
                raise Stop

        with pytest.raises(Stop):
            run(mitigation, model, data, checkpoint=tmp_path / "c", progress=stop)
    told: list[str] = []
    resumed = run(mitigation, model, data, checkpoint=tmp_path / "c", progress=told.append)
    assert np.array_equal(whole.model.predict_proba(data.X), resumed.model.predict_proba(data.X))
    assert whole.notes == resumed.notes and [t.split(" of")[0] for t in told] == [
        "control arm, epoch 2",
        "control arm, epoch 3",
    ]
    with pytest.raises(UsageError, match="another run"):
        run(mitigation, model, data, seed=1, checkpoint=tmp_path / "c")


def test_a_transformer_and_a_generator_of_ones_own() -> None:
    model, data = biased("orientation", "transformer_encoder"), biased_texts("orientation")

    def generator(texts: Sequence[str], rng: np.random.Generator) -> list[Counterfactuals]:
        return [
            Counterfactuals(k, (text.replace("gay", "heterosexual"),), text.replace("gay", "tall"), "own")
            for k, text in enumerate(texts)
            if "gay" in text
        ]

    new = run(CounterfactualAugmentation(generator=generator, epochs=2, pairing_weight=1.0), model, data)
    assert "(own " in new.notes[0] and not np.array_equal(new.model.predict_proba(data.X), model.predict_proba(data.X))


def test_a_network_without_a_recipe_is_fine_tuned_by_a_stated_one() -> None:
    model, data = biased("orientation"), biased_texts("orientation")
    bare = TorchModel(
        model.module, classes=model.classes, preprocessing=model.preprocessing, architecture=model.architecture
    )
    new = run(CounterfactualAugmentation(control_arm=False), bare, data).model
    assert isinstance(new, TorchModel)
    assert new.recipe == Recipe(optimizer="adamw", epochs=4, batch_size=32, learning_rate=5e-5)


def test_templates_without_a_hit_are_enough_with_pairing() -> None:
    model, data = biased("orientation"), data_of(["it was kind", "it was rude"] * 20, [1, 0] * 20)
    mitigation = CounterfactualAugmentation(
        generator="templates", categories="orientation", pairing_weight=1.0, epochs=1, control_arm=False
    )
    notes = run(mitigation, model, data).notes
    assert "0 of 34 training texts" in notes[0] and "sentences were added" in notes[0]
    assert "none has a counterfactual" in notes[1]


# ---- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"sides": "one", "impute": True}, {"pairing_weight": 1.0}])
def test_a_table_is_flipped_and_trained_anew(options: dict[str, object]) -> None:
    data, test = biased_rows(2000, 1), biased_rows(2000, 2)
    model = trained(data)
    other = flipped(test.X, "group", impute=False, rng=np.random.default_rng(0))  # type: ignore[arg-type]
    new = run(CounterfactualAugmentation(control_arm=False, **options), model, data).model  # type: ignore[arg-type]
    moved = [float(np.abs(m.predict_proba(test.X) - m.predict_proba(other)).mean()) for m in (model, new)]
    assert moved[0] > 0.1 and moved[1] < 0.3 * moved[0], moved
    assert accuracy(new, test) > accuracy(model, test) - 0.05


# ---- what cannot be done -------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_refused_before_any_training() -> None:
    model, data = biased("orientation"), biased_texts("orientation")

    def never(words: str) -> None:
        raise AssertionError(words)

    def refused(mitigation: CounterfactualAugmentation, model: AuditedModel, data: AuditData) -> None:
        run(mitigation, model, data, progress=never)

    plain = CounterfactualAugmentation()
    with pytest.raises(DataError, match=r"None of the \d+ training texts names an identity .*looked for: religion"):
        refused(CounterfactualAugmentation(categories="religion"), model, data)
    parts = {"classes": model.classes, "architecture": model.architecture}
    with pytest.raises(ModelError, match="no vocabulary"):
        refused(plain, TorchModel(model.module, recipe=model.recipe, **parts), data)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="only predicts"):
        refused(plain, AuditedModel.from_callable(lambda X: [0.5] * len(X), classes=["bad", "good"]), data)
    with pytest.raises(UsageError, match="--target"):
        refused(plain, model, replace(data, y_true=None))
    table = biased_rows(300, 1)
    network = trained(table, epochs=1)
    with pytest.raises(UsageError, match="--sensitive"):
        refused(plain, network, replace(table, sensitive_features=None))
    with pytest.raises(UsageError, match="'age' is no feature"):
        refused(plain, network, replace(table, sensitive_features=pd.DataFrame({"age": ["a", "b", "c"] * 100})))
    assert isinstance(table.X, pd.DataFrame)
    with pytest.raises(UsageError, match="one value only"):
        refused(plain, network, replace(table, X=table.X.assign(group="a")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "template"}, "generator must be one of"),
        ({"generator": "templates"}, "pairing_weight"),
        ({"sides": "two"}, "sides must be one of"),
        ({"pairing_weight": -1.0}, "pairing_weight"),
        ({"copies": 0}, "at least 1"),
        ({"learning_rate": 0.0}, "positive"),
        ({"filler": " "}, "filler"),
        ({"categories": "religon"}, "religion"),
        ({"lexicon": "nowhere.toml"}, "nowhere.toml"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_mitigation(CounterfactualAugmentation, options)


# ---- fine-tuning ---------------------------------------------------------------------------------------------------


def test_the_rate_of_fine_tuning_falls_in_a_straight_line() -> None:
    from auditor.training.training_loop import PlainStep
    from mitigations.training.training_steps import FineTuningStep

    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    plain = PlainStep(module, torch.optim.SGD(module.parameters(), lr=0.8), lambda batch: module(batch[0]).mean())
    step = FineTuningStep(plain, 4)
    where = [0.0]
    for _ in range(5):
        step([torch.ones(3, 1)])
        where.append(float(module.weight.detach()))
    # The gradient is 1, so that each step is its rate; there is none after the last.
    assert [a - b for a, b in zip(where, where[1:], strict=False)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_so_many_sentences_of_each_lexicon_are_drawn() -> None:
    lexicons = built_in(["religion", "names"])
    every = TemplateSentences(lexicons)([], np.random.default_rng(0))
    drawn = [TemplateSentences(lexicons, most=7)([], np.random.default_rng(s)) for s in (1, 1, 2)]
    assert [sum(c.category == name for c in drawn[0]) for name in ("religion", "names")] == [7, 7]
    assert drawn[0] == drawn[1] and {c.neutral for c in drawn[0]} <= {c.neutral for c in every}
    assert {c.texts for c in drawn[0]} != {c.texts for c in drawn[2]}
    with pytest.raises(ValueError, match="most"):
        TemplateSentences(lexicons, most=0)
