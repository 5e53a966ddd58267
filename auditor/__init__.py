"""Audits machine-learning models: measurements with stated uncertainty; a check that cannot run never passes.

The public API: the names in ``__all__``, the estimates that a probe returns, each
imported from the module of :mod:`auditor.statistics` that defines it, and the callbacks for trainers in
:mod:`auditor.run.while_training`, with the trackers of :mod:`auditor.training.interim`. Everything else may change.

Names are imported as they are asked for: ``import auditor`` imports neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    from auditor.core.errors import AuditorError, NotApplicableError
    from auditor.data.audit_data import AuditData
    from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
    from auditor.judging.budgets import Family
    from auditor.judging.criterion import Criterion, load_criteria
    from auditor.judging.measurement import Measurement, Outcome, Pillar
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import TorchModel
    from auditor.report.comparing.compare_audits import compare
    from auditor.report.record.audit_report import AuditReport, Finding
    from auditor.run import __version__
    from auditor.run.api import load_data, load_model, save
    from auditor.run.checks.contract import check_mitigation, check_probe
    from auditor.run.mitigation import Mitigation
    from auditor.run.option_parsers import ScanArguments
    from auditor.run.probe import Need, Probe
    from auditor.run.run_audit import run_audit
    from auditor.run.while_training.training_audit import TrainingAudit
    from mitigations import MITIGATIONS
    from probes import PROBES

# Where each public name is defined.
_DEFINED_IN = {
    "AudioPreprocessing": "auditor.data.preprocessing",
    "AuditData": "auditor.data.audit_data",
    "AuditReport": "auditor.report.record.audit_report",
    "AuditedModel": "auditor.models.audited_model",
    "AuditorError": "auditor.core.errors",
    "Criterion": "auditor.judging.criterion",
    "Family": "auditor.judging.budgets",
    "Finding": "auditor.report.record.audit_report",
    "ImagePreprocessing": "auditor.data.preprocessing",
    "MITIGATIONS": "mitigations",
    "Measurement": "auditor.judging.measurement",
    "Mitigation": "auditor.run.mitigation",
    "Need": "auditor.run.probe",
    "NotApplicableError": "auditor.core.errors",
    "Outcome": "auditor.judging.measurement",
    "Pillar": "auditor.judging.measurement",
    "PROBES": "probes",
    "Probe": "auditor.run.probe",
    "TorchModel": "auditor.models.torch_model",
    "TrainingAudit": "auditor.run.while_training.training_audit",
    "__version__": "auditor.run",
    "check_mitigation": "auditor.run.checks.contract",
    "check_probe": "auditor.run.checks.contract",
    "compare": "auditor.report.comparing.compare_audits",
    "load_criteria": "auditor.judging.criterion",
    "load_data": "auditor.run.api",
    "load_model": "auditor.run.api",
    "run_audit": "auditor.run.run_audit",
    "save": "auditor.run.api",
}
__all__ = [
    "AudioPreprocessing",
    "AuditData",
    "AuditReport",
    "AuditedModel",
    "AuditorError",
    "Criterion",
    "Family",
    "Finding",
    "ImagePreprocessing",
    "MITIGATIONS",
    "Measurement",
    "Mitigation",
    "Need",
    "NotApplicableError",
    "Outcome",
    "Pillar",
    "PROBES",
    "Probe",
    "TorchModel",
    "TrainingAudit",
    "__version__",
    "check_mitigation",
    "check_probe",
    "compare",
    "load_criteria",
    "load_data",
    "load_model",
    "run_audit",
    "save",
    "scan",
    "scan_data",
]


def scan(
    model: object,
    X: Any = None,
    y: Any = None,
    *,
    sensitive_features: Any = None,
    positive: object = None,
    target: str | None = None,
    sensitive: Sequence[str] | str | None = None,
    train: Any = None,
    probes: Sequence[str] | str | None = None,
    criteria: Sequence[Criterion] | None = None,
    probe_options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int | None = None,
    error_rate: float | None = None,
    **options: Unpack[ScanArguments],
) -> AuditReport:
    """Audit a model and return the report of ``auditor scan``.

    model: a fitted object with ``predict`` (scikit-learn, XGBoost, LightGBM, CatBoost, skorch), a torch module with
    ``classes=[...]``, a Hugging Face pipeline, a function of rows with ``classes=[...]``, an ``AuditedModel``, or a
    path. An object is asked in this process; a path is loaded and measured in a process of its own, as the command
    does; None beside ``predict``, ``predictions`` or ``log``.

    X: the rows that the model's ``predict`` takes: a table of pandas, polars or Arrow, an array, a list of texts; or a
    path, or (with a model in memory) ``AuditData``. y: their true labels or numbers; or ``target``, the column of X.
    sensitive_features: the groups of each row, a column, a table or a mapping of columns, or names of columns of X; for
    a path ``sensitive``. positive: the label that is favourable to a person. train: the rows that the model was trained
    on, (X_train, y_train) or for a path a table.

    probes: names, all that apply by default. criteria: what the numbers are held to; None for what ``policy`` names, by
    default the built-in profile. probe_options: options of single probes by name,
    ``{"group_fairness": {"intersections": True}}``. seed: 0 by default. error_rate: family-wise, 0.05 by default.

    Further options, as the flags of ``auditor scan`` of the same names: ``allow_code``, ``allow_inconclusive``,
    ``allow_unsandboxed``, ``address``, ``architecture``, ``architecture_args``, ``as_of``, ``base``, ``benchmark``,
    ``benchmark_filter``, ``bins``, ``calibration``, ``chat``, ``check_predictions``, ``classes``, ``cluster``,
    ``copies_are_real``, ``data`` (another name of X), ``decoder``, ``device``, ``device_map``, ``dtype``,
    ``embedder``, ``executor``, ``features``, ``few_shot``, ``generate``, ``generated``, ``image``, ``join_on``,
    ``judge``, ``judge_name``, ``log``, ``loss``, ``max_calls``, ``max_memory``, ``max_seconds``, ``model_name``,
    ``multiplicity``, ``ood``, ``outputs``, ``policy``, ``predict``, ``predicted``, ``predictions``, ``probe``,
    ``quantize``, ``query``, ``reasoning_effort``, ``reference``, ``score``, ``scorer``, ``sensitive_file``,
    ``stream``, ``system``, ``task``, ``text``, ``thinking_tokens``, ``threshold``, ``trust_pickle``, ``weight``,
    ``weight_at_most``, ``cluster_at_most``, ``no_controls``.

    Raises UsageError for an option, a path or a column that is wrong. Of a path, a model or data that are refused make
    a report that says so, with exit code 4; of objects they raise DataError or ModelError.
    """
    from auditor.run.api import scan as run_scan

    return run_scan(
        model,
        X,
        y,
        sensitive_features,
        catalogue=_public("PROBES"),
        criteria=criteria,
        probe_options=probe_options,
        train=train,
        options={
            "positive": positive,
            "target": target,
            "sensitive": sensitive,
            "probes": probes,
            "seed": seed,
            "error_rate": error_rate,
            **options,
        },
    )


def scan_data(
    X: Any,
    *,
    test: Any = None,
    target: str | None = None,
    sensitive: Sequence[str] | str | None = None,
    shares: Any = None,
    croissant: str | None = None,
    probes: Sequence[str] | str | None = None,
    criteria: Sequence[Criterion] | None = None,
    probe_options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int | None = None,
    error_rate: float | None = None,
    **options: Unpack[ScanArguments],
) -> AuditReport:
    """Audit rows before there is a model and return the report of ``auditor scan-data``.

    X: the rows that a model is to learn from, and test: those that it is to be measured on, each a path or a DataFrame.
    target: the column of the labels. sensitive: columns whose groups are compared. shares: the shares that groups
    should have, as the probe ``representation`` takes them. croissant: the path of Croissant metadata, whose
    statements are held against the rows. All others as in :func:`scan`, as far as they are about rows: ``bins``,
    ``classes``, ``copies_are_real``, ``features``, ``join_on``, ``max_memory``, ``max_seconds``, ``multiplicity``,
    ``policy``, ``sensitive_file``, ``text`` and the like.

    Raises UsageError for an option, a path or a column that is wrong.
    """
    from auditor.run.api import scan_data as run_scan_data

    return run_scan_data(
        X,
        test=test,
        shares=shares,
        croissant=croissant,
        catalogue=_public("PROBES"),
        criteria=criteria,
        probe_options=probe_options,
        options={
            "target": target,
            "sensitive": sensitive,
            "probes": probes,
            "seed": seed,
            "error_rate": error_rate,
            **options,
        },
    )


def _public(name: str) -> Any:
    module = _DEFINED_IN[name]
    if module in ("probes", "mitigations"):
        from auditor.loading.import_finders import own_package

        return getattr(own_package(module), name)
    return getattr(import_module(module), name)


if not TYPE_CHECKING:  # to a type checker, a name that is none is an error, and this would hide it

    def __getattr__(name: str) -> Any:
        if name not in _DEFINED_IN:
            raise AttributeError(f"module 'auditor' has no attribute {name!r}")
        globals()[name] = _public(name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
