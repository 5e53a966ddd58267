"""The table of probes: each asks one question of a model."""

from auditor.probe import Probe
from probes.attribution import FeatureAttribution
from probes.fairness import GroupFairness
from probes.membership import MembershipInference
from probes.robustness import Robustness

PROBES: dict[str, type[Probe]] = {
    "group_fairness": GroupFairness,
    "feature_attribution": FeatureAttribution,
    "membership_inference": MembershipInference,
    "robustness": Robustness,
}
