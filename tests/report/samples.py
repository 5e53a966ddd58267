"""Reports made through the real judge, for the tests of the renderings."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.figure_types import EARNED, RESERVED, Figure, Grade, GradedMethod, GradeTable, Series, Standing
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.report.drawing.figures import figures_of
from auditor.report.record.audit_report import (
    AuditReport,
    DataRecord,
    Environment,
    Finding,
    ModelRecord,
    Refusal,
    Summary,
    exit_code,
    family_record,
)
from auditor.report.record.configuration import About, ConfigurationFile, ConfigurationRecord
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.means import StudentT
from auditor.statistics.rank_estimates import AreaUnderCurve, true_positive_rate_at
from auditor.statistics.rates import Proportion, RateTable
from auditor.statistics.significance_tests import Multiplicity
from auditor.statistics.values import BoundedMean
from probes.attribution.attribution_figures import beeswarm_figure, grades_figure, heatmap_figure, text_figure

HOSTILE = (
    "<script>alert(1)</script>",
    "$x^2$ \\frac{a}{b}",
    "admin\u202etxt.exe\u2066",
    "nul\x00bell\x07esc\x1b[31m",
    "a|b `c` *d* [e](http://f) \n# g",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "名前 اسم z\u0301\u0301\u0301\u0301\u0301\u0301\u0301",
    "x" * 500,
)

_RATES: tuple[tuple[str, int], ...] = (
    ("selection_rate", 0),
    ("true_positive_rate", 1),
    ("false_positive_rate", 2),
    ("accuracy", 3),
)


def _fairness_of(
    features: tuple[str, ...],
    groups: Sequence[tuple[str, ...]],
    rates: Sequence[tuple[float, ...]],
    sizes: Sequence[int],
) -> list[Measurement]:
    measurements: list[Measurement] = []
    tables: dict[str, RateTable] = {}
    for metric, column in _RATES:
        n = [s if column in (0, 3) else s // 2 for s in sizes]
        k = [round(m * r[column]) for m, r in zip(n, rates, strict=True)]
        tables[metric] = RateTable(rate=metric, successes=tuple(k), n=tuple(n))
        measurements += [
            Measurement(
                metric=metric,
                estimate=Proportion(successes=s, n=m),
                n_samples=m,
                group=dict(zip(features, group, strict=True)),
            )
            for group, s, m in zip(groups, k, n, strict=True)
        ]
    headlines: dict[str, tuple[WorstDifference | WorstRatio, float]] = {
        "demographic_parity_difference": (WorstDifference(tables=(tables["selection_rate"],)), 0.0),
        "demographic_parity_ratio": (WorstRatio(tables=(tables["selection_rate"],)), 1.0),
        "equalized_odds_difference": (
            WorstDifference(tables=(tables["true_positive_rate"], tables["false_positive_rate"])),
            0.0,
        ),
    }
    return [
        Measurement(
            metric=metric,
            estimate=estimate,
            n_samples=sum(sizes),
            method="between_groups",
            ideal=ideal,
            sensitive=features,
        )
        for metric, (estimate, ideal) in headlines.items()
    ] + measurements


def fairness(hostile: bool = False) -> ProbeResult:
    """Two features and their intersection: one FAIL, some INCONCLUSIVE, one PASS, an empty group."""
    names = HOSTILE if hostile else ("Asian", "Black", "Hispanic", "White")
    race_rates = [(0.55 + 0.02 * i, 0.70 + 0.015 * i, 0.12 + 0.01 * i, 0.80 + 0.01 * i) for i in range(len(names))]
    sex_rates = [(0.41, 0.62, 0.09, 0.81), (0.64, 0.80, 0.21, 0.80)]
    sex = _fairness_of(("sex",), [("female",), ("male",)], sex_rates, [1650, 2010])
    race = _fairness_of(("race",), [(n,) for n in names], race_rates, [110, 420, 260, 2870, *[90] * (len(names) - 4)])
    both = _fairness_of(
        ("sex", "race"),
        [(s, n) for s in ("female", "male") for n in names],
        race_rates * 2,
        [50, 190, 0, 1300, *[40] * (len(names) - 4)] * 2,
    )
    region = _fairness_of(
        ("region",), [("north",), ("south",)], [(0.50, 0.71, 0.15, 0.79), (0.505, 0.71, 0.15, 0.79)], [12000, 11800]
    )
    return ProbeResult(
        probe="group_fairness",
        pillar="fairness",
        citation="Hardt, Price and Srebro, Equality of Opportunity in Supervised Learning (2016)",
        measurements=tuple(sex + race + both + region),
        duration_s=0.8,
    )


def attribution(n_features: int = 26, hostile: bool = False) -> ProbeResult:
    """More features than a figure shows."""
    names = [f"{HOSTILE[i]}" if hostile and i < len(HOSTILE) else f"feature_{i}" for i in range(n_features)]
    if not hostile:
        names[:6] = ["debt_to_income_ratio", "loan_to_value", "credit_history", "self_employed", "afam", "unemployment"]
    importance = [
        Measurement(
            metric="global_importance",
            estimate=StudentT(
                centre=0.3 * 0.82**i, standard_error=0.012 * 0.9**i, degrees_of_freedom=400, lower_limit=0.0
            ),
            n_samples=400,
            method="integrated_gradients",
            at={"feature": name},
        )
        for i, name in enumerate(names)
    ]
    completeness = Measurement(
        metric="completeness_error",
        estimate=BoundedMean(centre=0.0021, standard_error=0.0003, third_moment=0.0, n=400, low=0.0, high=0.05),
        n_samples=400,
        method="integrated_gradients",
        ideal=0.0,
        detail="share of the range of the outputs, 64 steps",
    )
    share = Measurement(
        metric="sensitive_share",
        estimate=StudentT(centre=0.071, standard_error=0.006, degrees_of_freedom=399, scale="logit"),
        n_samples=400,
        method="integrated_gradients",
        sensitive=("afam",),
    )
    return ProbeResult(
        probe="feature_attribution",
        pillar="attribution",
        citation="Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks (2017)",
        measurements=(completeness, share, *importance),
    )


def privacy() -> ProbeResult:
    """An attack near chance with its ROC curve."""
    rng = np.random.default_rng(3)
    members, others = rng.normal(0.12, 1.0, 1500), rng.normal(0.0, 1.0, 900)
    thresholds = np.sort(np.concatenate([members, others]))[::-1]
    fpr = [float((others >= t).mean()) for t in thresholds]
    tpr = [float((members >= t).mean()) for t in thresholds]
    roc = Figure(
        id="membership_inference/roc/loss_threshold",
        probe="membership_inference",
        kind="roc",
        title="ROC of the loss threshold attack",
        series=(Series(name="loss_threshold", x=tuple(fpr), y=tuple(tpr)),),
        alt="True positive rate against false positive rate on logarithmic axes; the curve stays near chance.",
        x_label="false positive rate",
        y_label="true positive rate",
    )
    auc = Measurement(
        metric="attack_auc",
        estimate=AreaUnderCurve(centre=0.531, standard_error=0.012, n_positive=1500, n_negative=900),
        n_samples=2400,
        method="loss_threshold",
        ideal=0.5,
        figure=roc,
        detail="1,500 members and 900 non-members; 3 rows are in both files",
    )
    low = [
        Measurement(
            metric="attack_tpr",
            estimate=true_positive_rate_at(positives=members, negatives=others, false_positive_rate=rate),
            n_samples=2400,
            method="loss_threshold",
            ideal=rate,
            at={"false_positive_rate": rate},
            too_few=f"Only {900 * rate:g} non-members are expected above the threshold; 10 are needed.",
            n_needed=round(10 / rate),
        )
        for rate in (0.01, 0.001)
    ]
    return ProbeResult(
        probe="membership_inference",
        pillar="privacy",
        citation="Yeom et al., Privacy Risk in Machine Learning (2018)",
        measurements=(auc, *low),
    )


def robustness() -> ProbeResult:
    """Two curves, and the part that was stopped."""
    levels = (0.0, 0.05, 0.1, 0.2, 0.4)
    curves = [
        Measurement(
            metric=metric,
            estimate=Proportion(successes=round(1830 * (start + slope * level)), n=1830),
            n_samples=1830,
            method="noise",
            at={"noise": level},
        )
        for metric, start, slope in (("accuracy_under_noise", 0.86, -0.55), ("flip_rate", 0.0, 0.72))
        for level in levels
    ]
    return ProbeResult(
        probe="robustness",
        pillar="robustness",
        citation="Hendrycks and Dietterich, Benchmarking Neural Network Robustness (2019)",
        measurements=tuple(curves),
        not_run="The child process ran out of its 120 s while attacking with PGD; give it more with --max-seconds.",
    )


def explaining(hostile: bool = False) -> list[Figure]:
    """A figure of every kind that explains: text, heatmap, table and beeswarm."""
    rng = np.random.default_rng(5)
    words = [*HOSTILE[:8], "x" * 48] if hostile else "I am a gay man and I am here".split()
    titles = [HOSTILE[0] + HOSTILE[2], HOSTILE[4]] if hostile else ["row 1: scored +1.74", "row 2: scored −0.31"]
    values = [list(np.linspace(-0.9, 1.8, len(words))), [0.0, math.nan, *rng.normal(size=len(words) - 2)]]
    y, x = np.mgrid[:40, :60]
    maps = [np.exp(-((y - 10) ** 2 + (x - 15) ** 2) / 90.0) - 0.1, np.zeros((40, 60))]
    pictures = [rng.integers(0, 256, shape).astype(np.uint8) for shape in ((40, 60, 3), (40, 60))]
    names = [*HOSTILE, "last"] if hostile else [f"feature_{i}" for i in range(14)]
    rows = pd.DataFrame({i: rng.normal(size=80) for i in range(len(names))})
    rows[1] = rng.choice(["a", "b"], 80)
    weights = 0.7 ** np.arange(len(names))
    swarm = np.stack([w * (rows[i] if i != 1 else rng.normal(size=80)) for i, w in enumerate(weights)], axis=1)
    nasty = HOSTILE[0] + HOSTILE[4] if hostile else ""
    grade = Grade(value=0.31, low=0.2, high=0.4)
    standings: tuple[Standing, ...] = get_args(Standing)
    table = GradeTable(
        grades=("comprehensiveness" + nasty, "sufficiency", "parameter_randomisation_overlap"),
        better=("higher", "lower", "neither"),
        methods=tuple(
            GradedMethod(
                method=f"method_{i}" + nasty,
                standing=standing,
                reason="Its map hardly changes when the parameters are randomised." + nasty,
                grades=(grade, Grade(words="no gradient" + nasty), Grade(value=-0.1)),
            )
            for i, standing in enumerate(standings)
        ),
    )
    probe, method = "feature_attribution", "integrated_gradients"
    return [
        text_figure(probe, method, [words, words], values, titles, output="the log-odds of 'toxic'" + nasty),
        heatmap_figure(probe, method, maps, titles, output="the log-odds of 'cat'", pictures=pictures),
        grades_figure(probe, table),
        beeswarm_figure(probe, method, names, swarm, rows, output="the log-odds of 'yes'" + nasty, rng=rng),
    ]


def explanations(hostile: bool = False) -> ProbeResult:
    """A probe whose measurements carry the figures that explain."""
    return ProbeResult(
        probe="feature_attribution",
        pillar="attribution",
        citation="Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks (2017)",
        measurements=tuple(
            Measurement(metric=f"shown_{f.kind}", estimate=Exact(known=1.0), n_samples=1, figure=f)
            for f in explaining(hostile)
        ),
    )


def intake() -> ProbeResult:
    """What is known of the file itself."""
    return ProbeResult(
        probe="intake",
        pillar="intake",
        citation="",
        measurements=(
            Measurement(metric="nonfinite_parameters", estimate=Exact(known=0.0), n_samples=12_481, ideal=0.0),
            Measurement(metric="n_parameters", estimate=Exact(known=12_481.0), n_samples=12_481),
        ),
    )


def language() -> ProbeResult:
    """A probe without its input."""
    return ProbeResult(
        probe="stereotype",
        pillar="language",
        citation="Nadeem, Bethke and Reddy, StereoSet (2021)",
        not_applicable="It asks a language model; give the folder of one, or the text column with --text COL.",
    )


def undefined() -> ProbeResult:
    """A headline that does not exist for these data."""
    return ProbeResult(
        probe="calibration",
        pillar="fairness",
        citation="Naeini, Cooper and Hauskrecht (2015)",
        measurements=(
            Measurement(
                metric="calibration_gap",
                estimate=Undefined(reason="no row has a score"),
                n_samples=0,
                sensitive=("sex",),
            ),
        ),
    )


def criteria() -> list[Criterion]:
    """The built-in profile and one criterion that somebody answers for."""
    return [
        *load_criteria(),
        Criterion(
            metric="demographic_parity_ratio",
            direction="at_least",
            bound=0.8,
            source="audit.toml, criterion 1",
            set_by="Credit Risk Committee",
            set_at="2026-09-01",
            probe="group_fairness",
            sensitive=("sex",),
        ),
    ]


def all_results(hostile: bool = False) -> list[ProbeResult]:
    """One probe of most pillars; together they have all six outcomes."""
    return [
        intake(),
        fairness(hostile),
        undefined(),
        attribution(hostile=hostile),
        privacy(),
        robustness(),
        language(),
    ]


def obeyed(nasty: str = "") -> ConfigurationRecord:
    """A configuration that was only found, and the built-in profile."""
    keys = ("model.name", f"probes.robustness.noise{nasty}", "target")
    return ConfigurationRecord(
        files=(
            ConfigurationFile(
                path="audit.toml" + nasty, role="configuration", origin="found", sha256="5f" * 32, keys=keys
            ),
            ConfigurationFile(path="auditor-default-3", role="criteria", origin="shipped", sha256="6e" * 32),
        )
    )


def report_of(
    results: Sequence[ProbeResult],
    *,
    multiplicity: Multiplicity = "bonferroni",
    allow_inconclusive: bool = False,
    refusal: Refusal | None = None,
    hostile: bool = False,
    held_to: Sequence[Criterion] | None = None,
) -> AuditReport:
    """The report of some results, judged by the real judge."""
    own = criteria() if held_to is None else list(held_to)
    findings, family = judge(results, own, Family(multiplicity=multiplicity))
    nasty = HOSTILE[0] + HOSTILE[2] if hostile else ""
    return AuditReport(
        created="2026-11-24T09:41:07+00:00",
        tool={"name": "auditor", "version": "0.1.0"},
        model=ModelRecord(
            path="models/mortgage_approval.pt" + nasty,
            sha256="9f2c4e1ab7d35860c1f4a2be97d80135e6ab47c9d2f18e03b5a6c7d8e9f01234",
            format="auditor-model/1",
            loaded_by="torch.load(weights_only=True) in a child process without network",
            size_bytes=54_321,
            n_parameters=12_481,
            classes=("yes", "no" + nasty),
            notes=("Every tensor was read by the restricted loader; no code of the file was run.",),
        ),
        data=DataRecord(
            path="data/hmda_test.csv" + nasty,
            sha256="1b4f0e9851971998e732078544c96b36c3d01cedf7caa332359d6f1d83567014",
            n_rows=3660,
            target="deny",
            positive="no" + nasty,
            sensitive=("sex", "race", "region"),
            train_path="data/hmda_train.csv",
            train_sha256="60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
            n_train_rows=8540,
            notes=("Column 'application_id' looks like an identifier and was left out.", "3 rows are in both files."),
        ),
        configuration=obeyed(nasty) if hostile else None,
        environment=Environment(
            python="3.11.7",
            platform="Linux-6.1-x86_64",
            packages={"torch": "2.10.0", "captum": "0.8.0", "scikit-learn": "1.7.2", "numpy": "2.3.1"},
            device="cpu",
            seed=0,
            limits={"memory": "4 GiB", "time": "120 s a probe"},
            command="auditor scan models/mortgage_approval.pt --data data/hmda_test.csv --target deny" + nasty,
        ),
        family=family_record(family),
        criteria=tuple(c.record for c in own),
        findings=tuple(Finding.from_judgement(f) for f in findings),
        figures=tuple(figures_of(findings, results)),
        summary=Summary.from_outcomes(f.outcome for f in findings),
        refusal=refusal,
        allow_inconclusive=allow_inconclusive,
        duration_s=41.3,
        exit_code=exit_code(findings, was_refused=refusal is not None, allow_inconclusive=allow_inconclusive),
    )


@cache
def sample_report(hostile: bool = False) -> AuditReport:
    """A report with all six outcomes and every kind of figure."""
    return report_of(all_results(hostile), hostile=hostile)


def _one(probe: str, pillar: str, *measurements: Measurement) -> ProbeResult:
    return ProbeResult(probe=probe, pillar=pillar, citation="c", measurements=measurements)


def _demo_results() -> list[ProbeResult]:
    sizes, at, fpr = (112, 602), ("yes", "no"), "false_positive_rate"
    rates = [(0.741, 0.873, 0.424, 0.87), (0.960, 0.982, 0.736, 0.90)]
    selected = RateTable(rate="selection_rate", successes=(83, 578), n=sizes)
    gap = {"n_samples": 714, "sensitive": ("afam",), "ideal": 0.0}
    attacked = {"n_samples": 2374, "n_needed": 3339, "too_few": "Only 7.11 non-members are expected above it."}
    skill = "the model is not shown to be right more often than always answering 'no' (89.8% of the rows against 88.0%)"
    curve = AreaUnderCurve(centre=0.838, standard_error=0.03, n_positive=628, n_negative=86)
    mean = BoundedMean(centre=0.35, standard_error=0.015, third_moment=0.0, n=128, low=-1.0, high=1.0)
    near = AreaUnderCurve(centre=0.537, standard_error=0.014, n_positive=1663, n_negative=711)
    absent = ("change", "derived", "recorded_evaluation", "judge", "attribute_inference", "poisoning", "weight_changes")
    return [
        _one("group_fairness", "fairness", *_fairness_of(("afam",), [(x,) for x in at], rates, sizes)),
        _one(
            "performance",
            "performance",
            Measurement(metric="roc_auc", estimate=curve, n_samples=714, chance=0.5),
            Measurement(metric="accuracy", estimate=Proportion(successes=641, n=714), n_samples=714),
            Measurement(metric="base_rate", estimate=Proportion(successes=628, n=714), n_samples=714),
        ),
        _one(
            "counterfactual_fairness",
            "fairness",
            Measurement(metric="counterfactual_flip_rate", estimate=Proportion(successes=19, n=714), **gap),
        ),
        _one(
            "feature_attribution",
            "attribution",
            Measurement(
                metric="faithfulness_gain",
                estimate=mean,
                n_samples=128,
                method="integrated_gradients",
                detail=f"{EARNED} {RESERVED}: {skill}",
            ),
        ),
        _one(
            "membership_inference",
            "privacy",
            Measurement(metric="attack_auc", estimate=near, n_samples=2374),
            Measurement(
                metric="true_positive_rate_at_fpr",
                estimate=Proportion(successes=43, n=1663),
                at={fpr: 0.01},
                **attacked,
            ),
            Measurement(
                metric="true_positive_rate_at_fpr",
                estimate=Undefined(reason="less than one row"),
                at={fpr: 0.001},
                **attacked,
            ),
        ),
        _one(
            "adverse_impact",
            "fairness",
            Measurement(metric="impact_ratio_min", estimate=WorstRatio(tables=(selected,)), **gap | {"ideal": 1.0}),
        ),
        _one(
            "proxy_association",
            "fairness",
            Measurement(metric="proxy_auc", estimate=curve, at={"from": "score"}, **gap | {"ideal": 0.5}),
        ),
        _one(
            "label_bias",
            "fairness",
            Measurement(
                metric="largest_conditional_label_difference", estimate=WorstDifference(tables=(selected,)), **gap
            ),
        ),
        _one(
            "robustness",
            "robustness",
            Measurement(
                metric="accuracy_difference_under_missing",
                estimate=WorstDifference(tables=(selected,)),
                at={"missing": 0.2},
                **gap,
            ),
        ),
        *(ProbeResult(probe=x, pillar="performance", citation="c", not_applicable="Needs more.") for x in absent),
    ]


@cache
def demo_report() -> AuditReport:
    """A report as that of ``make demo``: its checks, its words for columns and people, its paths."""
    report = report_of(_demo_results(), held_to=load_criteria())
    own = tomllib.loads((Path(__file__).parents[2] / "demo" / "audit.toml").read_text(encoding="utf-8"))
    rows = {"path": "demo/test.csv", "train_path": "demo/train.csv", "n_rows": 714, "sensitive": ("afam",)}
    command = (
        "auditor scan demo/model.pt --config demo/audit.toml --data demo/test.csv --train demo/train.csv "
        "--target deny --positive no --sensitive afam --out demo/audit-report"
    )
    return report.model_copy(
        update={
            "about": About.model_validate(own),
            "model": report.model.model_copy(update={"path": "demo/model.pt"}),
            "data": report.data.model_copy(update=rows),
            "environment": report.environment.model_copy(update={"command": command}),
        }
    )


@cache
def refused_report() -> AuditReport:
    """A report about a file that was not loaded."""
    reason = (
        "models/mortgage_approval.pt is a pickle that would call os.system while loading. Save it again as a bundle "
        "with auditor.save(model, path), give a loader of your own with --predict package.module:function, or "
        "accept the risk with --trust-pickle."
    )
    return report_of([], refusal=Refusal(code="unsafe_pickle", reason=reason))
