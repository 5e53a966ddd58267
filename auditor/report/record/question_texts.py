"""The question that each number answers, in everyday language, and how to interpret the number."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

# How a number is read: as so many points of a share, a share, a share of pairs, a ratio, a count, or as it stands.
Form = Literal["points", "percent", "pairs", "ratio", "count", "number"]


@dataclass(frozen=True)
class Question:
    """A question that some probes' numbers answer; its wording is in the catalogues under ``id``.

    ``metrics``: those that answer it, as patterns; the first question that fits a number is its question. ``headline``:
    those of them that are told on the first page where nobody set a bound and the interval leaves the ideal out.
    """

    id: str
    probes: tuple[str, ...]
    metrics: tuple[str, ...] = ("*",)
    form: Form = "number"
    headline: tuple[str, ...] = ()

    def fits(self, probe: str, metric: str) -> bool:
        """Whether a number of a probe answers the question."""
        return probe in self.probes and any(fnmatchcase(metric, name) for name in self.metrics)


QUESTIONS: tuple[Question, ...] = (
    Question("ranking", ("performance",), ("roc_auc",), form="pairs"),
    Question("skill", ("performance",)),
    Question(
        "selection",
        ("group_fairness",),
        ("demographic_parity_difference",),
        form="points",
        headline=("demographic_parity_difference",),
    ),
    Question(
        "errors",
        ("group_fairness",),
        ("equalized_odds_difference", "equal_opportunity_difference", "*_rate_difference", "*accuracy_difference"),
        form="points",
        headline=("equalized_odds_difference",),
    ),
    Question("groups", ("group_fairness",)),
    Question("impact", ("adverse_impact",), ("impact_ratio_min",), form="ratio", headline=("impact_ratio_min",)),
    Question("impact_known", ("adverse_impact",), form="count"),
    Question("scores", ("score_fairness",), headline=("auc_difference", "calibration_difference")),
    Question("numbers", ("regression_fairness",)),
    Question(
        "subgroups",
        ("subgroup_discovery",),
        ("confirmed_subgroups", "confirmed_sensitive_subgroups"),
        form="count",
        headline=("confirmed_subgroups",),
    ),
    Question("subgroup", ("subgroup_discovery",), form="points"),
    Question("proxies", ("proxy_association",), form="pairs", headline=("proxy_auc",)),
    Question("attribute", ("counterfactual_fairness",), form="percent", headline=("counterfactual_flip_rate",)),
    Question("identity", ("counterfactual_token_fairness",), form="percent", headline=("worst_category_flip_rate",)),
    Question("change", ("change",)),
    Question("derived", ("derived",), ("*churn*", "*flip_rate"), form="percent"),
    Question("derived", ("derived",)),
    Question("arithmetic", ("feature_attribution", "token_attribution"), ("completeness_error",)),
    Question("explanation", ("feature_attribution",)),
    Question("words", ("token_attribution",)),
    Question("curves", ("ale",)),
    Question("few_members", ("membership_inference", "lm_membership"), ("true_positive_rate_at*",), form="percent"),
    Question("members", ("membership_inference",), ("attack_auc",), form="pairs", headline=("attack_auc",)),
    Question("texts_learned", ("lm_membership",), ("attack_auc",), form="pairs", headline=("attack_auc",)),
    Question("members", ("membership_inference",)),
    Question("texts_learned", ("lm_membership",)),
    Question("recited", ("extraction",)),
    Question("secrets", ("canary_exposure",)),
    Question("personal_data", ("pii_leakage",)),
    Question("benchmark_seen", ("contamination",)),
    Question("inferred", ("attribute_inference",)),
    Question("drawn", ("model_inversion",)),
    Question("private", ("dp_claim",), form="count"),
    Question("robust", ("robustness",)),
    Question("unlike", ("out_of_distribution",)),
    Question("trigger", ("poisoning",)),
    Question("conflicts", ("label_conflicts",)),
    Question("weights", ("weight_changes",)),
    Question("synthetic", ("detector_performance",)),
    Question("container", ("trivial_cues",)),
    Question("travelled", ("detector_robustness",)),
    Question("graded_on_known", ("source_leakage",)),
    Question("evaded", ("detector_evasion",)),
    Question("marked", ("marking",)),
    Question(
        "stereotypes",
        ("stereotype", "crows_pairs", "stereoset"),
        ("*stereotype_score", "stereotype_choice_rate"),
        form="percent",
        headline=("conditional_stereotype_score", "stereotype_score", "stereotype_choice_rate"),
    ),
    Question("stereotypes", ("stereotype", "crows_pairs", "stereoset"), headline=("stereotype_log_odds",)),
    Question("pronouns", ("winobias", "winogender")),
    Question("answers", ("bbq",)),
    Question(
        "option_order",
        ("order_sensitivity",),
        ("order_sensitivity",),
        form="percent",
        headline=("order_sensitivity",),
    ),
    Question("option_order", ("order_sensitivity",)),
    Question("misfires", ("misfire",), headline=("misfire_excess",)),
    Question("refuses", ("refusal_parity",)),
    Question("continued", ("generation_bias", "bold")),
    Question("hurtful", ("honest",)),
    Question("written", ("generated_text",)),
    Question("embeddings", ("embedding_association",), ("confirmed_associations",), form="count"),
    Question("embeddings", ("embedding_association",), headline=("association_effect_size",)),
    Question("file", ("intake", "files")),
)


def form_of(probe: str, metric: str | None) -> Form:
    """The number format of a probe's metric."""
    question = question_of(probe, metric)
    return question.form if question else "number"


def question_of(probe: str, metric: str | None) -> Question | None:
    """The question that a probe's number answers; by default its widest; None for a foreign probe."""
    if metric is not None:
        return next((q for q in QUESTIONS if q.fits(probe, metric)), None)
    own = [q for q in QUESTIONS if probe in q.probes]
    return next((q for q in own if "*" in q.metrics), own[0] if own else None)
