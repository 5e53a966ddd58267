"""The table of mitigations: each returns a new model and leaves the old one untouched."""

from auditor.run.mitigation import Mitigation
from mitigations.adversarial_debiasing import AdversarialDebiasing
from mitigations.balanced_resampling import BalancedResampling
from mitigations.correlation_remover import CorrelationRemover
from mitigations.counterfactual_augmentation import CounterfactualAugmentation
from mitigations.deepfake_detection import DeepfakeDetection
from mitigations.dp_sgd import DpSgd
from mitigations.exponentiated_gradient import ExponentiatedGradient
from mitigations.fair_gan import FairGan
from mitigations.grid_search import GridSearch
from mitigations.group_calibration import GroupCalibration
from mitigations.group_dro import GroupDro
from mitigations.min_diff import MinDiff
from mitigations.preference_tuning import PreferenceTuning
from mitigations.reject_option import RejectOption
from mitigations.reweighing import Reweighing
from mitigations.threshold_optimizer import ThresholdOptimizer

MITIGATIONS: dict[str, type[Mitigation]] = {
    "adversarial_debiasing": AdversarialDebiasing,
    "reweighing": Reweighing,
    "balanced_resampling": BalancedResampling,
    "correlation_remover": CorrelationRemover,
    "counterfactual_augmentation": CounterfactualAugmentation,
    "deepfake_detection": DeepfakeDetection,
    "dp_sgd": DpSgd,
    "fair_gan": FairGan,
    "exponentiated_gradient": ExponentiatedGradient,
    "grid_search": GridSearch,
    "group_calibration": GroupCalibration,
    "group_dro": GroupDro,
    "min_diff": MinDiff,
    "preference_tuning": PreferenceTuning,
    "reject_option": RejectOption,
    "threshold_optimizer": ThresholdOptimizer,
}
