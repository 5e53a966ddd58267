"""Exponentiated gradient: a mixture of networks that jointly satisfy a constraint, drawn by the row's hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.randomness import forked
from auditor.core.rows import FloatArray, IntArray
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_choice, check_not_negative
from mitigations.selection_guide import MeasuredExperience, is_estimator
from mitigations.training.fairlearn_reductions import (
    FittedEstimator,
    LastLayer,
    LastLayerEstimator,
    Learner,
    NetworkEstimator,
    Parity,
    Reducible,
    ReducibleEstimator,
    is_simple,
    moment,
    only_for_estimators,
    only_for_networks,
    reducible,
    reducible_estimator,
    reducing,
)
from mitigations.training.retraining import refuse_one_class

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import TorchModel

Rule = Literal["randomised", "majority"]


class ExponentiatedGradient(BaseMitigation):
    """A mixture of networks trained for different Lagrange multipliers, weighted to satisfy the constraint.

    The multipliers grow by exponentiated gradient where a constraint is broken, and for each a network is learned on
    rows relabelled and weighted by what either decision costs (fairlearn's ``ExponentiatedGradient`` decides
    multipliers, labels, weights and mixture). The constraint, within ``difference_bound``, is promised on the training
    rows of the *randomised* rule: to draw one of the networks by its weight for each decision.

    The new model is one bundle of all networks (architecture ``mlp_vote``), whose probability is the randomised rule's
    chance of the favourable decision, and it decides by that rule: the draw is a hash of the encoded row, so that the
    same row always gets the same answer. The notes state the error and the violation (the largest deviation of a
    group's rate from that of all) on the training rows, of this rule and of the majority's. The probability is
    piecewise constant, so that its gradients are 0, and there is no recipe: no other mitigation can train it on.

    constraint: as fairlearn names it. difference_bound: at least 0, allowed in the constraint. learner: what is learned
    for each multiplier; ``last_layer``, the last layer of the old network by weighted logistic regression on the layer
    below, in a fraction of a second; ``network``, all of it anew by its recipe. rule: ``randomised``, or ``majority``,
    of which nothing is promised and for which nothing is drawn. eps: in (0, 1), sets the largest multiplier, 1 / eps.
    max_iter: at least 1; one network is learned at each iteration, or more. epochs: of each network, None means the
    recipe's. Interrupted, ``network`` goes on at the network that it was at: each has a numbered checkpoint.

    An estimator of scikit-learn, or boosted trees, is fitted anew by ``sample_weight`` for each multiplier, and the new
    model is a folder of those in the mixture. hyperparameters: those that are to be otherwise than they were.

    Several sensitive features count as their combinations. Raises ModelError for a model that is no MLP of two classes
    with its recipe, and where the new model would decide the same for all training rows; DataError where a group has
    one label.

    Source: Agarwal, Beygelzimer, Dudik, Langford and Wallach, ICML 2018.
    """

    name = "exponentiated_gradient"
    pillar = "fairness"
    goal = "Mix networks so that together they keep to a parity constraint"
    citation = "Agarwal et al., ICML 2018"
    methods = get_args(Parity)
    stage = "in-processing"
    needs = "a bundle of an MLP with its recipe, or an estimator; training rows with labels and groups"
    experience = MeasuredExperience()
    # Of estimators the mixture is a folder.
    keeps_kind = False

    def __init__(
        self,
        *,
        constraint: Parity = "equalized_odds",
        difference_bound: float = 0.01,
        learner: Learner = "last_layer",
        rule: Rule = "randomised",
        eps: float = 0.01,
        max_iter: int = 50,
        epochs: int | None = None,
        hyperparameters: dict[str, Any] | None = None,
    ) -> None:
        check_choice("constraint", constraint, Parity)
        check_choice("learner", learner, Learner)
        check_choice("rule", rule, Rule)
        if epochs is not None and learner == "last_layer":
            raise ValueError("epochs is for learner=network, which trains")
        check_not_negative("difference_bound", difference_bound)
        if not 0.0 < eps < 1.0:
            raise ValueError(f"eps must lie in (0, 1), not {eps!r}")
        if max_iter < 1 or (epochs is not None and epochs < 1):
            raise ValueError("max_iter and epochs must be at least 1")
        self.constraint: Parity = constraint
        self.difference_bound = difference_bound
        self.learner: Learner = learner
        self.rule: Rule = rule
        self.eps = eps
        self.max_iter = max_iter
        self.epochs = epochs
        self.hyperparameters = hyperparameters

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """The mixture of networks, or of estimators."""
        only_for_estimators(model, self.hyperparameters)
        if is_estimator(model):
            return self._of_estimators(model, data, rng)
        from auditor.models.networks.architectures import LARGEST_SEED

        prints: dict[str, object] = {"mitigation": self.name, "options": sorted(vars(self).items())}
        task = reducible(model, data, rng, training, epochs=self.epochs, fingerprint=prints)
        old = task.trainer.old
        if not is_simple(old):
            raise ModelError(
                "exponentiated_gradient mixes MLPs with two logits only: use grid_search, which keeps a single network."
            )
        anew = self.learner == "network"
        learner = NetworkEstimator(task.trainer) if anew else LastLayer(task.trainer).estimator()
        peer, chances, said = self._reduced(learner, task)
        seed = int(rng.integers(LARGEST_SEED)) if self.rule == "randomised" else None
        new, n_members = self._mixture(task, peer, seed)
        refuse_one_class(
            new, old, data.take(task.trainer.rows.rows), instead="give a larger difference_bound or a larger eps"
        )
        drawn = int(((chances > 0.0) & (chances < 1.0)).sum())
        how = (
            f"Randomised: the decisions of {drawn:,} of {len(chances):,} rows ({drawn / len(chances):.1%}) are drawn, "
            "by a hash of the row, so that the same row always gets the same answer. rule=majority does without."
            if self.rule == "randomised"
            else "Only the randomised rule keeps to the constraint by construction; nothing is promised of the "
            "majority."
        )
        other: Rule = "majority" if self.rule == "randomised" else "randomised"
        return Mitigated(
            model=new,
            notes=(
                f"Exponentiated gradient for {self.constraint} of {' x '.join(task.features)}: a mixture of "
                f"{n_members} networks ({'trained anew' if anew else 'the old one with other last layers'}) of "
                f"{task.trainer.trained} learned, served by the {self.rule} rule. On the "
                f"training rows, of which {self.difference_bound:g} is allowed: {said[self.rule]}; {said[other]}.",
                how,
                "The probabilities are votes: piecewise constant, without gradients.",
            ),
        )

    def _of_estimators(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Mitigated:
        """The estimator fitted anew for every set of multipliers, and those of the mixture in one folder."""
        from auditor.models.model_wrappers import Mixture, MixtureModel

        only_for_networks(epochs=self.epochs)
        task = reducible_estimator(model, data, rng, self.hyperparameters)
        peer, chances, said = self._reduced(FittedEstimator(task.trainer), task)
        members, weights, always = [], [], 0.0
        for place, weight in peer.weights_.items():
            made = peer.predictors_[place]
            if weight > 0.0 and isinstance(made, FittedEstimator):
                assert made.model is not None
                members.append(made.model)
                weights.append(float(weight))
            elif weight > 0.0:
                # Where all rows cost less the same way, fairlearn puts a constant in the estimator's place.
                always += float(weight) * float(_constant(made))
        if not members:
            raise ModelError("The mixture decides the same for everybody: give a larger difference_bound.")
        mixture = Mixture(
            weights=tuple(min(w, 1.0) for w in weights),
            always=min(always, 1.0),
            positive=1 if task.trainer.positive == 1 else 0,
            seed=int(rng.integers(2**62)) if self.rule == "randomised" else None,
        )
        new = MixtureModel(members, mixture)
        refuse_one_class(new, model, task.trainer.rows.data, instead="give a larger difference_bound or a larger eps")
        other: Rule = "majority" if self.rule == "randomised" else "randomised"
        return Mitigated(
            model=new,
            notes=(
                f"Exponentiated gradient for {self.constraint} of {' x '.join(task.features)}: a mixture of "
                f"{len(members)} of {task.trainer.trained} fits of the estimator, served by the {self.rule} rule. On "
                f"the training rows, of which {self.difference_bound:g} is allowed: {said[self.rule]}; {said[other]}.",
                mixture.describe(),
                "The probabilities are votes: piecewise constant.",
            ),
        )

    def _reduced(self, learner: Any, task: Reducible | ReducibleEstimator) -> tuple[Any, FloatArray, dict[str, str]]:
        """fairlearn's fitted reduction, its chances (n,) of the favourable decision, and what is said of both rules."""
        from fairlearn.reductions import ExponentiatedGradient as Fairlearn

        constraints = moment(self.constraint, self.difference_bound)
        peer = Fairlearn(learner, constraints, eps=self.eps, max_iter=self.max_iter)
        with reducing():
            peer.fit(task.X, task.y, sensitive_features=task.groups)
            chances = np.asarray(peer._pmf_predict(task.X))[:, 1]
            said = {
                "randomised": self._rule_text("randomised", chances, task),
                "majority": self._rule_text("majority", (chances >= 0.5).astype(np.float64), task),
            }
        return peer, chances, said

    def _rule_text(self, rule: str, chances: FloatArray, task: Reducible | ReducibleEstimator) -> str:
        """Error and violation of chances (n,) of the favourable decision on the training rows."""
        from fairlearn.reductions import ErrorRate

        found = []
        for measure in (ErrorRate(), moment(self.constraint, self.difference_bound)):
            measure.load_data(task.X, task.y, sensitive_features=task.groups)
            found.append(float(measure.gamma(lambda X: chances).max()))
        return f"{rule} rule: error {found[0]:.4f}, violation {found[1]:.4f}"

    def _mixture(self, task: Reducible, peer: Any, seed: int | None) -> tuple[TorchModel, int]:
        """The mixture as one network, and how many networks are in it."""
        import torch

        from auditor.models.networks.architectures import MLPVote
        from auditor.models.torch_model import TorchModel

        old = task.trainer.old
        members, weights, always = [], [], 0.0
        for place, weight in peer.weights_.items():
            made = peer.predictors_[place]
            if weight <= 0.0:
                continue
            if isinstance(made, NetworkEstimator | LastLayerEstimator):
                members.append(made.member())
                weights.append(float(weight))
            else:
                # Where all rows cost less the same way, fairlearn puts a constant in the network's place.
                always += float(weight) * float(_constant(made))
        arguments = {k: v for k, v in dict((old.architecture or {}).get("args", {})).items() if k != "n_outputs"}
        arguments |= {"n_members": len(members), "positive": task.trainer.positive, "threshold": old.threshold}
        arguments |= {} if seed is None else {"decision_seed": seed}
        # Its random start is overwritten, and shall not move anybody's generator.
        with forked():
            module = MLPVote(**arguments)
        for own, member in zip(module.members, members, strict=True):
            own.load_state_dict(member.state_dict())
        module.weights.copy_(torch.tensor([*weights, always]))
        new = TorchModel(
            module.eval(),
            classes=old.classes,
            preprocessing=old.preprocessing,
            outputs="probabilities",
            device=task.trainer.training.device,
            architecture={"name": "mlp_vote", "args": arguments},
        )
        return new, len(members)


def _constant(classifier: Any) -> IntArray:
    """What a constant classifier always answers."""
    found: IntArray = np.asarray(classifier.predict(np.zeros((1, 1))))[0]
    return found
