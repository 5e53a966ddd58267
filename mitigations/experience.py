"""How each mitigation of tables did on five real data sets, beside doing nothing and beside fairlearn and AIF360.

As measured by ``benchmarks/mitigations.py``; ``benchmarks/RESULTS.md`` has the numbers. CPS is the Current Population
Survey of 2004.
"""

from __future__ import annotations

from auditor.run.mitigation import Experience

EXPERIENCE: dict[str, Experience] = {
    "min_diff": Experience(
        when="equalized odds, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "COMPAS",
            "law school",
            "CPS",
            "HMDA",
        ),
    ),
    "group_dro": Experience(
        when="equalized odds, 27 November 2026, 4 seeds",
        better=(
            "COMPAS",
            "law school",
            "CPS",
        ),
        equal=(
            "Adult",
            "HMDA",
        ),
    ),
    "adversarial_debiasing": Experience(
        when="equalized odds, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "COMPAS",
            "law school",
            "CPS",
        ),
        equal=("HMDA",),
        peers=(
            "Beside fairlearn's AdversarialFairnessClassifier: better on Adult; equal on COMPAS, law school, CPS, HMDA",
        ),
    ),
    "exponentiated_gradient": Experience(
        when="equalized odds, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "COMPAS",
            "law school",
            "CPS",
        ),
        equal=("HMDA",),
        peers=("Beside fairlearn's ExponentiatedGradient: equal on Adult, COMPAS, law school, CPS, HMDA",),
    ),
    "grid_search": Experience(
        when="equalized odds, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "COMPAS",
            "law school",
        ),
        equal=(
            "CPS",
            "HMDA",
        ),
        peers=("Beside fairlearn's GridSearch: equal on Adult, COMPAS, law school, CPS, HMDA",),
    ),
    "threshold_optimizer": Experience(
        when="equalized odds, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "law school",
            "CPS",
        ),
        equal=("HMDA",),
        cost=("COMPAS",),
        peers=(
            "Beside fairlearn's ThresholdOptimizer: better on COMPAS, law school; equal on Adult, CPS, HMDA",
            "Beside AIF360's EqOddsPostprocessing: better on Adult, COMPAS, law school, CPS; equal on HMDA",
        ),
    ),
    "reject_option": Experience(
        when="demographic parity, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "COMPAS",
            "law school",
            "CPS",
            "HMDA",
        ),
        peers=("Beside AIF360's RejectOptionClassification: better on Adult, law school, HMDA; equal on COMPAS, CPS",),
    ),
    "reweighing": Experience(
        when="demographic parity, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "COMPAS",
            "law school",
            "CPS",
            "HMDA",
        ),
        peers=("Beside AIF360's Reweighing: equal on Adult, COMPAS, law school, CPS, HMDA",),
    ),
    "balanced_resampling": Experience(
        when="demographic parity, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "COMPAS",
            "law school",
            "CPS",
            "HMDA",
        ),
        peers=("Beside AIF360's Reweighing: equal on Adult, COMPAS, law school, CPS, HMDA",),
    ),
    "correlation_remover": Experience(
        when="demographic parity, 27 November 2026, 4 seeds",
        better=(
            "Adult",
            "COMPAS",
            "law school",
            "HMDA",
        ),
        cost=("CPS",),
        peers=(
            "Beside fairlearn's CorrelationRemover: better on COMPAS, CPS; equal on law school; worse on Adult, HMDA",
        ),
    ),
    "counterfactual_augmentation": Experience(
        when="demographic parity, 27 November 2026, 4 seeds",
        better=("law school",),
        equal=(
            "Adult",
            "COMPAS",
            "HMDA",
        ),
        cost=("CPS",),
    ),
    "fair_gan": Experience(
        when="demographic parity, 27 November 2026, 1 seed",
        equal=(
            "COMPAS",
            "law school",
            "HMDA",
        ),
        cost=(
            "Adult",
            "CPS",
        ),
    ),
}
