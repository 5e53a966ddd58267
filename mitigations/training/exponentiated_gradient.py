"""Exponentiated gradient: a mixture of networks that together keep to a constraint, as a weighted vote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt

from auditor.errors import ModelError
from auditor.finding.measurement import Pillar
from auditor.rows import FloatArray
from auditor.run.mitigation import Mitigated, Stage, Training
from mitigations.training.one_class import refuse_one_class
from mitigations.training.reduction import NetworkEstimator, Parity, Reducible, moment, reducible, reducing

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel
    from auditor.model.torch_model import TorchModel


class ExponentiatedGradient:
    """The vote of networks, each trained for other Lagrange multipliers, weighted so that the constraint holds.

    The multipliers grow by exponentiated gradient where a constraint is broken, and for each the network is trained
    anew on rows relabelled and weighted by what either decision costs (fairlearn's ``ExponentiatedGradient`` decides
    multipliers, labels, weights and mixture). The constraint, within ``difference_bound``, is promised on the training
    rows of the *randomised* rule: to draw one of the networks by its weight for each decision.

    The new model is one bundle of all networks (architecture ``mlp_vote``). Its probability is the weighted vote, which
    is the randomised rule's chance of the favourable decision, but it **decides by majority**, with nothing drawn at
    random, and of the majority nothing is promised: the notes state both rules' error and violation (the largest
    deviation of a group's rate from that of all) on the training rows, and the audit tells of other rows. It is
    piecewise constant, so that its gradients are 0, and it has no recipe: no other mitigation can train it on.

    constraint: as fairlearn names it. difference_bound: at least 0, allowed in the constraint. eps: in (0, 1), sets
    the largest multiplier, 1 / eps. max_iter: at least 1; a network is trained at each iteration, or more. epochs: of
    each network, None means the recipe's. Interrupted, it goes on at the network that it was at: each has a checkpoint
    of its own, numbered.

    Several sensitive features count as their combinations. Raises ModelError for a model that is no MLP of two classes
    with its recipe; DataError where a group has one label.

    Source: Agarwal, Beygelzimer, Dudik, Langford and Wallach, ICML 2018.
    """

    name: ClassVar[str] = "exponentiated_gradient"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Mix networks so that together they keep to a parity constraint"
    citation: ClassVar[str] = "Agarwal et al., ICML 2018"
    methods: ClassVar[tuple[str, ...]] = get_args(Parity)
    stage: ClassVar[Stage] = "in-processing"
    needs: ClassVar[str] = "a bundle of an MLP with its recipe; training rows with labels and sensitive features"

    def __init__(
        self,
        *,
        constraint: Parity = "equalized_odds",
        difference_bound: float = 0.01,
        eps: float = 0.01,
        max_iter: int = 50,
        epochs: int | None = None,
    ) -> None:
        if constraint not in get_args(Parity):
            raise ValueError(f"constraint must be one of {', '.join(get_args(Parity))}, not {constraint!r}")
        if not (difference_bound >= 0.0 and np.isfinite(difference_bound)):
            raise ValueError(f"difference_bound must be a number of at least 0, not {difference_bound!r}")
        if not 0.0 < eps < 1.0:
            raise ValueError(f"eps must lie in (0, 1), not {eps!r}")
        if max_iter < 1 or (epochs is not None and epochs < 1):
            raise ValueError("max_iter and epochs must be at least 1")
        self.constraint: Parity = constraint
        self.difference_bound = difference_bound
        self.eps = eps
        self.max_iter = max_iter
        self.epochs = epochs

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """The vote of the networks in the mixture."""
        from fairlearn.reductions import ExponentiatedGradient as Fairlearn

        prints: dict[str, object] = {"mitigation": self.name, "options": sorted(vars(self).items())}
        task = reducible(model, data, rng, training, epochs=self.epochs, fingerprint=prints)
        old = task.trainer.old
        named = old.architecture or {}
        if named.get("name") != "mlp" or named.get("args", {}).get("n_outputs") != 2 or old.output_kind != "logits":
            raise ModelError(
                "exponentiated_gradient mixes MLPs with two logits only: use grid_search, which keeps a single network."
            )
        constraints = moment(self.constraint, self.difference_bound)
        peer = Fairlearn(NetworkEstimator(task.trainer), constraints, eps=self.eps, max_iter=self.max_iter)
        with reducing():
            peer.fit(task.X, task.y, sensitive_features=task.groups)
            chances = np.asarray(peer._pmf_predict(task.X))[:, 1]
            said = [
                self._described("majority", (chances >= 0.5).astype(np.float64), task),
                self._described("randomised", chances, task),
            ]
        new, n_members = self._vote(task, peer)
        refuse_one_class(new, old, data.take(task.trainer.rows.rows), instead="give a larger difference_bound or eps")
        return Mitigated(
            model=new,
            notes=(
                f"Exponentiated gradient for {self.constraint} of {' x '.join(task.features)}: {n_members} networks of "
                f"{task.trainer.trained} trained vote, and the majority decides. On the training rows, of which "
                f"{self.difference_bound:g} is allowed: {'; '.join(said)}. Only the randomised rule keeps to it by "
                "construction.",
                "The probabilities are votes: piecewise constant, without gradients.",
            ),
        )

    def _described(self, rule: str, chances: FloatArray, task: Reducible) -> str:
        """Error and violation of chances (n,) of the favourable decision on the training rows."""
        from fairlearn.reductions import ErrorRate

        found = []
        for measure in (ErrorRate(), moment(self.constraint, self.difference_bound)):
            measure.load_data(task.X, task.y, sensitive_features=task.groups)
            found.append(float(measure.gamma(lambda X: chances).max()))
        return f"{rule} rule: error {found[0]:.4f}, violation {found[1]:.4f}"

    def _vote(self, task: Reducible, peer: Any) -> tuple[TorchModel, int]:
        """The mixture as one network, and how many networks are in it."""
        import torch

        from auditor.model.torch_model import TorchModel
        from auditor.networks.architectures import MLPVote

        old = task.trainer.old
        members, weights, always = [], [], 0.0
        for place, weight in peer.weights_.items():
            made = peer.predictors_[place]
            if weight <= 0.0:
                continue
            if isinstance(made, NetworkEstimator):
                assert made.model is not None
                members.append(made.model.module)
                weights.append(float(weight))
            else:
                # Where all rows cost less the same way, fairlearn puts a constant in the network's place.
                always += float(weight) * float(_constant(made))
        arguments = {k: v for k, v in dict((old.architecture or {}).get("args", {})).items() if k != "n_outputs"}
        arguments |= {"n_members": len(members), "positive": task.trainer.positive, "threshold": old.threshold}
        # Its random start is overwritten, and shall not move anybody's generator.
        with torch.random.fork_rng():
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


def _constant(made: Any) -> npt.NDArray[np.int64]:
    """What a constant classifier always answers."""
    found: npt.NDArray[np.int64] = np.asarray(made.predict(np.zeros((1, 1))))[0]
    return found
