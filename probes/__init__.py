"""The table of probes: each asks one question of a model."""

from auditor.probe import Probe
from probes.adverse_impact import AdverseImpact
from probes.attribution.probe import FeatureAttribution
from probes.counterfactual import CounterfactualFairness
from probes.embeddings import EmbeddingAssociation
from probes.fairness import GroupFairness
from probes.generation import Bold, GenerationBias, Honest
from probes.membership import MembershipInference
from probes.proxy_association import ProxyAssociation
from probes.robustness import Robustness
from probes.score_fairness import ScoreFairness
from probes.stereotype import BBQ, CrowsPairs, StereoSet, Stereotype, WinoBias, Winogender
from probes.subgroups import SubgroupDiscovery
from probes.token_fairness import CounterfactualTokenFairness

PROBES: dict[str, type[Probe]] = {
    "group_fairness": GroupFairness,
    "adverse_impact": AdverseImpact,
    "score_fairness": ScoreFairness,
    "subgroup_discovery": SubgroupDiscovery,
    "proxy_association": ProxyAssociation,
    "counterfactual_fairness": CounterfactualFairness,
    "counterfactual_token_fairness": CounterfactualTokenFairness,
    "feature_attribution": FeatureAttribution,
    "membership_inference": MembershipInference,
    "robustness": Robustness,
    "stereotype": Stereotype,
    "crows_pairs": CrowsPairs,
    "stereoset": StereoSet,
    "winobias": WinoBias,
    "winogender": Winogender,
    "bbq": BBQ,
    "generation_bias": GenerationBias,
    "bold": Bold,
    "honest": Honest,
    "embedding_association": EmbeddingAssociation,
}
