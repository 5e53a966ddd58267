"""The table of mitigations: each returns a new model and leaves the old one unchanged."""

from auditor.run.mitigation import Mitigation
from mitigations.deepfake_detection import DeepfakeDetection
from mitigations.rows.correlation_remover import CorrelationRemover
from mitigations.rows.counterfactual_augmentation import CounterfactualAugmentation
from mitigations.rows.fair_gan import FairGan
from mitigations.rows.reweighing_and_resampling import BalancedResampling, Reweighing
from mitigations.scores.group_calibration import GroupCalibration
from mitigations.scores.reject_option import RejectOption
from mitigations.scores.threshold_optimizer import ThresholdOptimizer
from mitigations.training.adversarial_debiasing import AdversarialDebiasing
from mitigations.training.dp_sgd import DpSgd
from mitigations.training.exponentiated_gradient import ExponentiatedGradient
from mitigations.training.grid_search import GridSearch
from mitigations.training.group_dro import GroupDro
from mitigations.training.min_diff import MinDiff
from mitigations.training.preference_tuning import PreferenceTuning

_MITIGATIONS: tuple[type[Mitigation], ...] = (
    AdversarialDebiasing,
    Reweighing,
    BalancedResampling,
    CorrelationRemover,
    CounterfactualAugmentation,
    DeepfakeDetection,
    DpSgd,
    FairGan,
    ExponentiatedGradient,
    GridSearch,
    GroupCalibration,
    GroupDro,
    MinDiff,
    PreferenceTuning,
    RejectOption,
    ThresholdOptimizer,
)
MITIGATIONS = {mitigation.name: mitigation for mitigation in _MITIGATIONS}
