"""The table of probes: each answers one question about a model."""

from auditor.run.probe import Probe
from probes.attribution.feature_attribution import FeatureAttribution
from probes.attribution.token_attribution import TokenAttribution
from probes.deepfake.detector_performance import DetectorPerformance
from probes.deepfake.marking import Marking
from probes.deepfake.robustness_ladder import DetectorRobustness
from probes.deepfake.source_leakage import SourceLeakage
from probes.deepfake.trivial_cues import TrivialCues
from probes.fairness.adverse_impact import AdverseImpact
from probes.fairness.change_since_reference import Change
from probes.fairness.counterfactual_fairness import CounterfactualFairness
from probes.fairness.embeddings import EmbeddingAssociation
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.group_representation import Representation
from probes.fairness.label_bias import LabelBias
from probes.fairness.proxy_association import ProxyAssociation
from probes.fairness.regression_fairness import RegressionFairness
from probes.fairness.score_fairness import ScoreFairness
from probes.fairness.subgroups import SubgroupDiscovery
from probes.fairness.token_fairness import CounterfactualTokenFairness
from probes.language.bbq import BBQ
from probes.language.bold_and_honest import Bold, Honest
from probes.language.crows_pairs_and_stereoset import CrowsPairs, StereoSet
from probes.language.generated_text import GeneratedText
from probes.language.generation_bias import GenerationBias
from probes.language.order_sensitivity import OrderSensitivity
from probes.language.refusal_parity import RefusalParity
from probes.language.stereotype import Stereotype
from probes.language.veto import Misfire
from probes.language.winobias_winogender import WinoBias, Winogender
from probes.performance.data_documentation import DataDocumentation
from probes.performance.data_leakage import DataLeakage
from probes.performance.derived_model import Derived
from probes.performance.judge import Judge
from probes.performance.performance import Performance
from probes.performance.recorded_evaluation import RecordedEvaluation
from probes.privacy.attribute_inference import AttributeInference
from probes.privacy.dp_claim import DPClaim
from probes.privacy.membership.membership_inference import MembershipInference
from probes.privacy.memorization.canary_exposure import CanaryExposure
from probes.privacy.memorization.contamination import Contamination
from probes.privacy.memorization.extraction import Extraction
from probes.privacy.memorization.lm_membership import LMMembership
from probes.privacy.memorization.pii_leakage import PIILeakage
from probes.privacy.model_inversion import ModelInversion
from probes.privacy.personal_data import PersonalData
from probes.reasons.ale import AccumulatedLocalEffects
from probes.robustness.label_conflicts import LabelConflicts
from probes.robustness.out_of_distribution import OutOfDistribution
from probes.robustness.poisoning import Poisoning
from probes.robustness.robustness import Robustness
from probes.robustness.weight_changes import WeightChanges

_PROBES: tuple[type[Probe], ...] = (
    Performance,
    Derived,
    RecordedEvaluation,
    Judge,
    DataLeakage,
    DataDocumentation,
    GroupFairness,
    AdverseImpact,
    ScoreFairness,
    RegressionFairness,
    SubgroupDiscovery,
    ProxyAssociation,
    Representation,
    LabelBias,
    CounterfactualFairness,
    CounterfactualTokenFairness,
    Change,
    FeatureAttribution,
    TokenAttribution,
    AccumulatedLocalEffects,
    MembershipInference,
    LMMembership,
    Extraction,
    CanaryExposure,
    PIILeakage,
    Contamination,
    AttributeInference,
    PersonalData,
    ModelInversion,
    DPClaim,
    Robustness,
    OutOfDistribution,
    Poisoning,
    LabelConflicts,
    WeightChanges,
    DetectorPerformance,
    TrivialCues,
    DetectorRobustness,
    SourceLeakage,
    Marking,
    Stereotype,
    CrowsPairs,
    StereoSet,
    WinoBias,
    Winogender,
    BBQ,
    OrderSensitivity,
    Misfire,
    RefusalParity,
    GenerationBias,
    GeneratedText,
    Bold,
    Honest,
    EmbeddingAssociation,
)
PROBES = {probe.name: probe for probe in _PROBES}
