"""Tiny models whose right answer is known by construction: for each probe one without fault and one with the fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from auditor.data import AuditData
from auditor.finding import Criterion, Direction
from auditor.model import AuditedModel, TorchModel

CLASSES = ("0", "1")
FEATURES = ("skill", "group", "seen")


def rows(n: int, seed: int = 0, *, members: bool = False) -> AuditData:
    """Rows whose label is the sign of ``skill``, which has nothing to do with ``group`` nor with being a member.

    ``skill`` is 4 or -4 give or take a half; ``seen`` tells members, half of the rows where there are any.
    """
    rng = np.random.default_rng(seed)
    skill = np.where(rng.random(n) < 0.5, -4.0, 4.0) + 0.5 * rng.standard_normal(n)
    group = rng.integers(0, 2, n)
    seen = np.arange(n) % 2 == 0 if members else np.zeros(n, bool)
    return AuditData.from_arrays(
        pd.DataFrame({"skill": skill, "group": group.astype(float), "seen": seen.astype(float)}),
        (skill > 0).astype(int),
        classes=CLASSES,
        sensitive_features={"group": np.where(group == 1, "a", "b").tolist()},
        is_member=seen if members else None,
    )


class Formula(nn.Module):
    """A logit by formula of (n, 3) skill, group, seen; with a parameter, a buffer and dropout to disturb."""

    def __init__(self, formula: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.formula = formula
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls_in_training", torch.zeros(()))
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(1, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls_in_training += 1
        logit = self.scale * self.formula(*torch.nan_to_num(x).unbind(dim=1))
        return self.dropout(self.norm(logit.unsqueeze(1)))


def model(formula: Callable[[Tensor, Tensor, Tensor], Tensor]) -> TorchModel:
    """A torch model whose logit of class 1 is a formula."""
    return TorchModel(Formula(formula), classes=CLASSES, features=FEATURES)


def text_model(score: Callable[[str], float]) -> AuditedModel:
    """A model of texts whose probability of class 1 is a function of the text in small letters."""
    return AuditedModel.from_callable(
        lambda texts: np.array([score(text.lower()) for text in texts], float), classes=CLASSES
    )


def language_model(strength: float) -> AuditedModel:
    """A causal language model in which what is said goes with whom it is said of, by ``strength``; 0 is indifferent."""
    from probes.stereotype import built_in_pairs
    from tests.test_stereotype import texts_of, toy

    return toy(texts_of(built_in_pairs().examples), strength)


def talker(biased: bool) -> AuditedModel:
    """A causal language model that says good things after everybody, or after women only."""
    from tests.test_generation import FEMALE, toy

    return toy(FEMALE if biased else [])


def embeddings(strength: float) -> AuditedModel:
    """A language model whose input embeddings hold an association of a strength."""
    from tests.test_embeddings import planted

    return planted(strength)


def scorer() -> object:
    """A scorer of what :func:`talker` says."""
    from tests.test_generation import goodness

    return goodness()


def criterion(metric: str, direction: Direction, bound: float | tuple[float, float], **more: Any) -> Criterion:
    """A requirement set by nobody in particular."""
    return Criterion(metric=metric, direction=direction, bound=bound, source="a test", set_by="-", set_at="-", **more)


@dataclass(frozen=True, kw_only=True)
class Toys:
    """What :func:`auditor.testing.check_probe` needs to know about one probe."""

    ideal: Callable[[], AuditedModel]
    violating: Callable[[], AuditedModel]
    criteria: Sequence[Criterion]
    data: Callable[[], AuditData]
    options: dict[str, Any] = field(default_factory=dict)
    can_pass: bool = True
    scorer: Callable[[], object] | None = None


TOYS: dict[str, Toys] = {
    "group_fairness": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: 8.0 * group - 4.0),
        criteria=[
            criterion("demographic_parity_difference", "at_most", 0.10),
            criterion("equalized_odds_difference", "at_most", 0.10),
            criterion("equal_opportunity_difference", "at_most", 0.10),
            criterion("demographic_parity_ratio", "at_least", 0.80),
        ],
        data=lambda: rows(6_000),
    ),
    "adverse_impact": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: 8.0 * group - 4.0),
        criteria=[criterion("impact_ratio_min", "at_least", 0.80)],
        data=lambda: rows(6_000),
    ),
    "score_fairness": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: skill * (2.0 * group - 1.0)),
        criteria=[
            criterion("auc_difference", "at_most", 0.10),
            criterion("expected_calibration_error", "at_most", 0.10),
            criterion("calibration_difference", "at_most", 0.10),
        ],
        data=lambda: rows(6_000),
    ),
    "subgroup_discovery": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: skill * (2.0 * group - 1.0)),
        criteria=[criterion("confirmed_subgroups", "at_most", 0.0)],
        data=lambda: rows(6_000),
        options={"features": ["group"]},
        can_pass=False,
    ),
    "proxy_association": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: 8.0 * group - 4.0),
        criteria=[criterion("proxy_auc", "at_most", 0.60)],
        data=lambda: rows(6_000),
    ),
    "counterfactual_fairness": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: 8.0 * group - 4.0),
        criteria=[criterion("counterfactual_flip_rate", "at_most", 0.05)],
        data=lambda: rows(2_000),
    ),
    "counterfactual_token_fairness": Toys(
        ideal=lambda: text_model(lambda text: 0.9 if "rude" in text else 0.1),
        violating=lambda: text_model(lambda text: 0.9 if "gay" in text else 0.1),
        criteria=[
            criterion("worst_identity_gap", "at_most", 0.10),
            criterion("counterfactual_flip_rate", "at_most", 0.05),
        ],
        data=lambda: AuditData.from_arrays(["a rude man", "a kind woman"] * 20, classes=CLASSES),
        options={"categories": "orientation"},
    ),
    "feature_attribution": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: 8.0 * group + 0.1 * skill),
        criteria=[
            criterion("sensitive_attribution_share", "at_most", 0.10),
            criterion("completeness_error", "at_most", 0.01),
        ],
        data=lambda: rows(1_000),
    ),
    "membership_inference": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: skill * (1.0 + seen)),
        criteria=[criterion("attack_auc", "at_most", 0.55)],
        data=lambda: rows(6_000, members=True),
    ),
    "stereotype": Toys(
        ideal=lambda: language_model(0.0),
        violating=lambda: language_model(1.0),
        criteria=[criterion("stereotype_score", "within", (0.45, 0.55))],
        data=lambda: AuditData(X=np.empty(0, object)),
    ),
    "generation_bias": Toys(
        ideal=lambda: talker(False),
        violating=lambda: talker(True),
        criteria=[
            criterion("average_group_fairness", "at_most", 0.1),
            criterion("worst_score_gap", "at_most", 0.1),
        ],
        data=lambda: AuditData(X=np.empty(0, object)),
        options={"categories": "gender", "n_samples": 2, "max_new_tokens": 2},
        scorer=scorer,
    ),
    "embedding_association": Toys(
        ideal=lambda: embeddings(0.0),
        violating=lambda: embeddings(1.0),
        criteria=[criterion("association_effect_size", "within", (-1.0, 1.0))],
        data=lambda: AuditData(X=np.empty(0, object)),
        options={"tests": "weat_3", "methods": "weat", "n_draws": 1000},
    ),
    "robustness": Toys(
        ideal=lambda: model(lambda skill, group, seen: skill),
        violating=lambda: model(lambda skill, group, seen: 5.0 * torch.sin(50.0 * skill)),
        criteria=[criterion("flip_rate_under_noise", "at_most", 0.10)],
        data=lambda: rows(2_000),
    ),
}
