"""An explanation of what was learned changes with shuffled labels, one of the input alone does not."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.core.errors import ConfigError
from auditor.core.rows import FloatArray
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from auditor.run.probe import make_probe
from auditor.statistics.estimate import Undefined
from auditor.training.retrain_recipe import blueprint_of
from probes.attribution.attribution_task import Problem
from probes.attribution.faithfulness import mean_of
from probes.attribution.feature_attribution import FeatureAttribution
from probes.attribution.gradient import Effort
from probes.attribution.method_selection import TAIL, Checks
from probes.attribution.methods import METHODS, explain
from probes.attribution.randomization_tests import (
    MOST_OVERLAP,
    Taught,
    fits_beyond_chance,
    teach_shuffled,
    top_overlap,
    why_no_labels,
)
from tests.probes.attribution.test_rule import NAMES, D, method, of, parts, rng, rows, trained, verdict_on
from tests.quantifiers import all_of
from tests.statistics.worlds import most_misses

torch.set_num_threads(1)

RECIPE = Recipe(learning_rate=1e-2, epochs=12, batch_size=64)


@cache
def bundled() -> tuple[TorchModel, AuditData]:
    """The network of the rule's tests as a bundle has it, with its recipe, and rows with members."""
    model = TorchModel(
        trained().module,
        classes=["0", "1"],
        features=NAMES,
        architecture={"name": "mlp", "args": {"n_features": D, "hidden": [32], "n_outputs": 2}},
        recipe=RECIPE,
    )
    held, members = rows(400), rows(800, seed=100)
    data = AuditData.from_arrays(
        pd.concat([pd.DataFrame(held.X), pd.DataFrame(members.X)], ignore_index=True),
        np.concatenate([np.asarray(held.y_true), np.asarray(members.y_true)]),
        classes=["0", "1"],
        positive="1",
        is_member=np.arange(1_200) >= 400,
    )
    return model, data


def taught() -> Taught:
    model, data = bundled()
    found = teach_shuffled(model, data.members, rng())
    assert isinstance(found, Taught)
    return found


def test_networks_learn_their_own_shuffled_labels_and_nothing_of_the_true_ones() -> None:
    model, data = bundled()
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    found = taught()
    assert len(found.networks) == found.n_trained == 5 and "mlp" in found.how
    assert all_of(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
    # What a network of this size fits of labels at random is more than their majority, and far from all.
    assert found.majority + 0.02 < found.fitted < 0.8
    assert data.members is not None and data.members.y_true is not None
    x = torch.from_numpy(np.array(data.members.X, np.float32))
    right = [float((n(x).argmax(dim=1).numpy() == data.members.y_true).mean()) for n in found.networks]
    assert abs(np.mean(right) - 0.5) < 0.1
    again = taught()
    for a, b in zip(found.networks, again.networks, strict=True):
        assert all_of(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    first, second = (n.state_dict()["layers.0.weight"] for n in found.networks[:2])
    assert not torch.equal(first, second)


def test_a_recipe_comes_to_what_its_model_came_to() -> None:
    model, data = bundled()
    assert data.members is not None and data.members.y_true is not None
    blueprint = blueprint_of(model, data.members.X)
    x, y = blueprint.encode(data.members.X), torch.from_numpy(np.asarray(data.members.y_true))
    network = blueprint.train(x, y, seed=3)
    assert isinstance(network, MLP) and not network.training
    held = blueprint.encode(data.evaluation.X)
    assert float((network(held).argmax(dim=1).numpy() == data.evaluation.y_true).mean()) > 0.93


def test_what_was_learned_is_kept_and_what_the_input_alone_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    where = parts(trained(), 64)
    checks = Checks(n_copies=0, n_explained=0, teach=taught)
    kept = verdict_on(["integrated_gradients"], where, checks=checks)
    assert kept.standing == "shown" and kept.relabelled is not None and not isinstance(kept.relabelled, str)
    assert kept.relabelled.overlap.bounds(0.0025)[1] < 0.7

    def edges(problem: Problem, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        return np.abs(np.asarray(problem.sample.X, float)) * np.concatenate([[2.0, 1.5, 1.0], np.zeros(D - 3)])

    monkeypatch.setitem(METHODS, "edges", method("edges", edges))
    verdict = verdict_on(["edges"], where, checks=checks)
    assert verdict.gain.bounds(0.0025)[0] > 0.0 and verdict.standing == "refused"
    (reason,) = verdict.reasons
    assert "when the network learns shuffled labels" in reason and "0.7 is allowed" in reason


def test_networks_that_learned_nothing_settle_nothing() -> None:
    """A recipe that hardly moves its networks: their explanations differ from the model's, whatever the method says."""
    model, data = bundled()
    idle = TorchModel(
        model.module,
        classes=["0", "1"],
        features=NAMES,
        architecture=model.architecture,
        recipe=Recipe(learning_rate=1e-7, epochs=1, batch_size=64),
    )
    found = teach_shuffled(idle, data.members, rng())
    assert isinstance(found, str) and found.startswith("the check cannot tell: none of 5 networks")
    measured = FeatureAttribution(n_copies=0, label_randomisation=True).measure(idle, data, rng())
    estimate = of(measured, "label_randomisation_overlap").estimate
    assert isinstance(estimate, Undefined) and "cannot tell" in estimate.reason
    headline = of(measured, "faithfulness_gain").detail
    assert headline.startswith("earned its display WITH RESERVATIONS: ")
    assert "the label randomisation check was not run or settles nothing (the check cannot tell" in headline


def test_fitting_beyond_chance_is_an_exact_binomial_test() -> None:
    """Summed by hand for 10 labels of which 6 are of one class: P(10 right) = 0.6^10, P(at least 9) adds 10 terms."""
    ten, nine = 0.6**10, 0.6**10 + 10 * 0.6**9 * 0.4
    assert fits_beyond_chance(10, 10, 0.6, ten * 1.001) and not fits_beyond_chance(10, 10, 0.6, ten * 0.999)
    assert fits_beyond_chance(9, 10, 0.6, nine * 1.001) and not fits_beyond_chance(9, 10, 0.6, nine * 0.999)


def test_of_networks_that_learned_nothing_hardly_any_is_taken_for_one_that_did() -> None:
    """Constant and random answers to 800 shuffled labels, at 0.2 %: 11 of 2,000 are the limit of a 0.1 % test."""
    generator, n = rng(5), 800
    labels = np.repeat([0, 1], [480, 320])
    wrongly = 0
    for share in (0.0, 0.4):
        for _ in range(1_000):
            answers = generator.random(n) < share
            wrongly += fits_beyond_chance(int((answers == generator.permutation(labels)).sum()), n, 0.6, 0.002)
    assert wrongly <= 11


@pytest.mark.slow
def test_an_explanation_of_what_was_learned_is_hardly_ever_refused_for_its_labels() -> None:
    """The check's own error over 10 trained networks with 3 shufflings each, and 20 times 64 samples for each: at most
    5 %. A world needs trainings, so networks are few, and the samples that decide are many; the first are by the rule.
    """
    _, data = bundled()
    refused, worlds = 0, []
    for seed in range(10):
        model = TorchModel(
            trained(seed).module,
            classes=["0", "1"],
            features=NAMES,
            architecture={"name": "mlp", "args": {"n_features": D, "hidden": [32], "n_outputs": 2}},
            recipe=RECIPE,
        )
        given = teach_shuffled(model, data.members, rng(seed), n_networks=3)
        assert isinstance(given, Taught)
        many = parts(model, 20 * 64, seed).second

        def explained(module: nn.Module, many: Problem = many) -> FloatArray:
            return explain(
                "integrated_gradients", many.with_module(module), rng(), Effort(n_steps=8, max_steps=8)
            ).values

        original = explained(model.module)
        overlaps = np.mean([top_overlap(original, explained(n), many.units.present) for n in given.networks], axis=0)
        worlds += [mean_of(overlap, -1.0, 1.0) for overlap in overlaps.reshape(20, 64)]
        if seed < 3:
            checks = Checks(n_copies=0, n_explained=0, teach=lambda given=given: given)  # type: ignore[misc]
            verdict = verdict_on(["integrated_gradients"], parts(model, 64, seed), seed, checks)
            assert verdict.relabelled is not None and not isinstance(verdict.relabelled, str)
            refused += any("shuffled labels" in r for r in verdict.reasons)
    assert refused == 0 and len(worlds) == 200
    assert sum(isinstance(w, Undefined) or w.bounds(TAIL)[1] > MOST_OVERLAP for w in worlds) <= most_misses(worlds=200)


def test_it_is_measured_where_it_is_asked_for_and_stands_in_the_table() -> None:
    model, data = bundled()
    found = FeatureAttribution(n_copies=0, label_randomisation=True).measure(model, data, rng())
    measured = of(found, "label_randomisation_overlap")
    assert measured.estimate.bounds(0.0025)[1] < 0.7 and "of one class" in measured.detail
    figure = of(found, "faithfulness_gain").figure
    assert figure is not None and figure.table is not None
    at = figure.table.grades.index("label_randomisation_overlap")
    assert figure.table.methods[0].grades[at].value == pytest.approx(measured.estimate.value)
    assert all_of(m.grades[at].value is None for m in figure.table.methods[1:])
    plain = FeatureAttribution(n_copies=0).measure(model, data, rng())
    assert not [m for m in plain if m.metric == "label_randomisation_overlap"]


def test_what_is_missing_is_named() -> None:
    model, data = bundled()
    assert why_no_labels(model, data.members) == ""
    assert "--train" in why_no_labels(model, None)
    assert data.members is not None
    assert "--target" in why_no_labels(model, AuditData.from_arrays(data.members.X, classes=["0", "1"]))
    assert "recipe" in why_no_labels(trained(), data.members)
    found = FeatureAttribution(n_copies=0, label_randomisation=True).measure(trained(), data, rng())
    estimate = of(found, "label_randomisation_overlap").estimate
    assert isinstance(estimate, Undefined) and "training recipe" in estimate.reason
    assert of(found, "faithfulness_gain").detail.startswith("earned its display")
    with pytest.raises(ConfigError, match="label_randomisation must be true or false"):
        make_probe(FeatureAttribution, {"label_randomisation": "yes"})


def test_a_recipe_that_diverges_is_a_reason() -> None:
    model, data = bundled()
    wild = TorchModel(
        model.module,
        classes=["0", "1"],
        architecture=model.architecture,
        recipe=Recipe(learning_rate=1e30, epochs=3, batch_size=64, optimizer="sgd"),
    )
    found = teach_shuffled(wild, data.members, rng())
    assert isinstance(found, str) and "cannot be trained" in found
