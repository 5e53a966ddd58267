"""The table of mitigations: each returns a new model and leaves the old one untouched."""

from auditor.mitigation import Mitigation
from mitigations.adversarial_debiasing import AdversarialDebiasing
from mitigations.reweighing import Reweighing

MITIGATIONS: dict[str, type[Mitigation]] = {
    "adversarial_debiasing": AdversarialDebiasing,
    "reweighing": Reweighing,
}
