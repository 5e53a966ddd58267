"""The public Python functions: a scan, a model and rows, from paths or from objects in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from auditor.core.errors import UsageError, did_you_mean
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.policy import Required, required_by
from auditor.judging.profiles import DATA_PROFILE, DEFAULT_PROFILE
from auditor.loading.job_specs import DataSpec, ModelSpec, ProbeSpec
from auditor.loading.sandbox.measuring_process import scratch_folder
from auditor.models.format_names import ROWS_IN_MEMORY
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import recorded
from auditor.run.plugins import load_probe_class
from auditor.run.probe import Probe, make_probe
from auditor.run.scan import (
    Catalogue,
    check_policies,
    check_waivers,
    data_spec,
    existing_path,
    held_to,
    model_spec,
    options_of,
    probe_specs,
    with_option,
)
from auditor.run.scan import scan as run_scan
from auditor.run.scan_options import Configured, ScanOptions, flags

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.loading.rows.caller_rows import CallerRows
    from auditor.models.audited_model import AuditedModel

    Table = str | PathLike[str] | pd.DataFrame

# Where a command's answers go, and what it is held against: a caller of Python does that with the report.
_FOR_COMMANDS = frozenset(name for name, flag in flags().items() if flag.of_one_run) - {
    "max_memory",
    "allow_unsandboxed",
    "executor",
    "address",
}
# A model in memory is measured as it is, in this process; what its own object does not say may be said of it.
_OF_AN_OBJECT = ("task", "outputs", "threshold")
_ABOUT_LOADING = (
    "base", *_OF_AN_OBJECT, "architecture", "architecture_args", "predict", "allow_code", "trust_pickle", "device",
    "dtype", "probe", "max_memory", "max_seconds", "stream",
)  # fmt: skip
_ABOUT_ROWS = tuple(name for name in options_of(DataSpec) if name not in ("classes", "features", "stream"))


def scan(
    model: object,
    X: Any,
    y: Any,
    sensitive_features: Any,
    *,
    catalogue: Catalogue,
    criteria: Sequence[Criterion] | None,
    probe_options: Mapping[str, Mapping[str, Any]] | None,
    train: Any,
    options: Mapping[str, Any],
) -> AuditReport:
    """:func:`auditor.scan` with the available probes, by name."""
    own = _probe_options(probe_options)
    said = dict(options)
    named = said.get("probes")
    if named is not None and not isinstance(named, str) and any(not isinstance(name, str) for name in named):
        raise UsageError(
            "probes= takes names; a probe that is an object is asked by auditor.run_audit(model, data, [probe])."
        )
    predictions = said.pop("predictions", None)
    data = said.pop("data", None)
    if data is not None:
        if X is not None:
            raise UsageError("data= is another name of X: give one of them.")
        X = data
    asked = _options({"model": _path(model), **said, **_labels(said)})
    configured = _configured(asked, own, criteria, catalogue)
    recorded = predictions is not None or asked.log is not None
    if asked.model is not None or (model is None and (asked.predict is not None or recorded)):
        with scratch_folder() as scratch:
            if _is_audit_data(X):
                raise UsageError(
                    "AuditData goes with a model in memory: load the model with auditor.load_model, or give the rows "
                    "as a path or a DataFrame."
                )
            if y is not None or sensitive_features is not None:
                raise UsageError(
                    "y= and sensitive_features= go with a model in memory: for a model file give one table of rows, "
                    "and name its columns with target= and sensitive=[...]."
                )
            path, of, answers = (
                _file(table, Path(scratch) / f"{name}.parquet")
                for name, table in (("data", X), ("train", train), ("predictions", predictions))
            )
            asked = replace(asked, data=path, train=of, predictions=answers)
            report = run_scan(replace(configured, options=asked), catalogue).report
            return _nameless(report, predictions if X is None else X, train)
    held_model, rows = _objects(model, X, y, sensitive_features, train, asked)
    return _in_memory(held_model, rows, configured, catalogue)


def scan_data(
    X: Any,
    *,
    test: Any,
    shares: Any,
    croissant: str | None,
    catalogue: Catalogue,
    criteria: Sequence[Criterion] | None,
    probe_options: Mapping[str, Mapping[str, Any]] | None,
    options: Mapping[str, Any],
) -> AuditReport:
    """:func:`auditor.scan_data` with the available probes, by name."""
    config = _configured(_options(options), _probe_options(probe_options), criteria, catalogue)
    with scratch_folder() as scratch:
        train, of, reference = (
            _file(table, Path(scratch) / name)
            for name, table in ((ROWS_IN_MEMORY, X), ("test.parquet", test), ("shares.parquet", shares))
        )
        if train is None:
            raise UsageError("scan_data takes rows: a path or a DataFrame.")
        named = {"shares": reference, "croissant": croissant}
        report = run_scan(rows_alone(config, catalogue, train, of, named), catalogue).report
    return _nameless(report, X, None) if test is None else _nameless(report, test, X)


def _configured(
    options: ScanOptions,
    probe_options: dict[str, dict[str, Any]],
    criteria: Sequence[Criterion] | None,
    catalogue: Catalogue,
) -> Configured:
    """The scan of the options, held to the caller's criteria or else to those that they name.

    Raises UsageError where a rule pack cannot be held to with these options.
    """
    required = required_by(options.policy)
    check_policies(required.packs, options, catalogue)
    default = required_by((DEFAULT_PROFILE,)) if criteria is None and not required.criteria else Required((), (), ())
    held = tuple(criteria) if criteria is not None else required.criteria or default.criteria
    # Criteria of the caller's own take the place of those of a profile, and of no pack's controls.
    obeyed = [file for file in (*required.files, *default.files) if criteria is None or file.role != "criteria"]
    return Configured(options, probe_options, held, required.packs, obeyed=tuple(obeyed))


def rows_alone(
    config: Configured, catalogue: Catalogue, train: str, test: str | None, named: Mapping[str, str | None]
) -> Configured:
    """The scan of ``train``, and ``test``, without a model, whatever an audit.toml names; held to the profile of data
    where no other requirements are set. ``named``: files that are options of probes, by option.

    Raises UsageError where a file is not there or is named twice, and for a table beside a folder.
    """
    files = [existing_path(path, "data file") for path in (train, test) if path is not None]
    if len(set(files)) < len(files):
        raise UsageError("--test is the file of the training rows: they must be different rows.")
    if len({file.is_dir() for file in files}) > 1:
        raise UsageError("The training rows and --test are of one kind: two tables, or two folders of media.")
    options = replace(
        config.options,
        **dict.fromkeys(("model", "predict", "predictions", "generate", "reference")),  # type: ignore[arg-type]
        data=test or train,
        train=None if test is None else train,
    )
    own = dict(config.probe_options)
    for option, given in named.items():
        if given is not None:
            path = str(existing_path(given, f"{option} file"))
            own |= {name: {**own.get(name, {}), option: path} for name in with_option(catalogue, option)}
    config = replace(config, options=options, probe_options=own)
    if any(criterion.source != DEFAULT_PROFILE for criterion in config.criteria):
        return config
    required = required_by((DATA_PROFILE,))
    obeyed = (*(file for file in config.obeyed if file.role != "criteria"), *required.files)
    policy = (DATA_PROFILE,) if options.policy == (DEFAULT_PROFILE,) else options.policy
    return replace(config, options=replace(options, policy=policy), criteria=required.criteria, obeyed=obeyed)


def save(model: object, path: str | PathLike[str]) -> None:
    """Write a model as a file that ``scan`` reads: a fitted estimator in its library's own format, else a bundle.

    scikit-learn's estimators and pipelines as ``.joblib``, ``.pkl`` or ``.skops``, XGBoost as ``.json`` or ``.ubj``,
    LightGBM as ``.txt``, CatBoost as ``.cbm``. An ``AuditedModel`` as :func:`auditor.models.saved_models.save` writes
    it: a network as a bundle, ``.pt``, without code. Raises UsageError for another ending, with the right one.
    """
    from auditor.core.files import write_beside
    from auditor.loading.python_objects import object_file
    from auditor.models.audited_model import AuditedModel
    from auditor.models.saved_models import save as save_model

    if isinstance(model, AuditedModel):
        save_model(model, fspath(path))
    else:
        write_beside(fspath(path), object_file(model, fspath(path)))


def load_model(path: str | PathLike[str], **options: Any) -> AuditedModel:
    """The model in a file or folder, loaded into this process as in the command's child process.

    Nothing in the file runs unless an option allows it. ``options``: ``base``, ``task``, ``classes``, ``outputs``,
    ``threshold``, ``architecture``, ``architecture_args``, ``allow_code``, ``trust_pickle``, ``features``, ``device``,
    ``dtype``, as the flags of ``auditor scan`` mean them. Raises UsageError for a path that is not there, ModelError
    for what is no model of a known format, UnsafeModelError where loading it would run code.
    """
    from auditor.loading.formats import load_model as load
    from auditor.models.torch_context import resolve_device

    _refuse_unknown(options, set(options_of(ModelSpec)), "load_model")
    if not isinstance(path, str | PathLike):
        raise UsageError(f"load_model takes the path of a model, and this is a {type(path).__name__}.")
    spec = model_spec(_options({"model": fspath(path), **options}))
    return load(replace(spec, device=resolve_device(spec.device)))


def load_data(data: Table, model: AuditedModel, **options: Any) -> AuditData:
    """The rows of a table, a folder or a DataFrame, as this model takes them.

    ``options``: ``train``, ``target``, ``positive``, ``sensitive``, ``bins``, ``sensitive_file``, ``join_on``,
    ``features``, ``text``, ``image``, ``classes``, ``cluster``, ``weight``, ``cluster_at_most``, ``weight_at_most``,
    ``copies_are_real``, as the flags of ``auditor scan`` mean them. Raises UsageError for a column that is not there,
    with the nearest that is, DataError for rows that cannot be used.
    """
    from auditor.loading.rows.load_rows import load_data as load

    _refuse_unknown(options, {*_ABOUT_ROWS, "classes", "features"}, "load_data")
    train = options.pop("train", None)
    with scratch_folder() as scratch:
        at, of = _file(data, Path(scratch) / "data.parquet"), _file(train, Path(scratch) / "train.parquet")
        return load(data_spec(_options({"data": at, "train": of, **options})), model)


def _objects(
    model: object, X: Any, y: Any, sensitive_features: Any, train: Any, options: ScanOptions
) -> tuple[AuditedModel, AuditData | None]:
    """A model in memory, and its rows as it takes them."""
    from auditor.loading.python_objects import audited_object
    from auditor.loading.rows.caller_rows import CallerRows
    from auditor.models.audited_model import AuditedModel

    ready = isinstance(model, AuditedModel)
    unsaid = ScanOptions()
    for name in _ABOUT_LOADING:
        if getattr(options, name) != getattr(unsaid, name) and (ready or name not in _OF_AN_OBJECT):
            raise UsageError(
                f"{name}= says how a model is loaded and measured, and this one is here already: leave it out."
            )
    apart = y is not None or sensitive_features is not None
    spec = ModelSpec(classes=options.classes, **_given_options(options, ("features", *_OF_AN_OBJECT)))
    if _is_audit_data(X) or X is None:
        about = {name: getattr(options, name) for name in _ABOUT_ROWS if getattr(options, name)}
        about |= {"train": train} if train is not None else {}
        about |= {"y": y} if y is not None else {}
        about |= {"sensitive_features": sensitive_features} if sensitive_features is not None else {}
        if about := about | (_given_options(options, ("classes", "features")) if ready else {}):
            what = "AuditData says that itself" if X is not None else "there is no data"
            raise UsageError(f"{next(iter(about))}= says something about a table of rows, and {what}: leave it out.")
        return model if isinstance(model, AuditedModel) else audited_object(model, None, spec), X
    if isinstance(X, str | PathLike) or (ready and not apart):
        if apart:
            raise UsageError("y= and sensitive_features= go with rows in memory: name columns of the file instead.")
        held = model if isinstance(model, AuditedModel) else audited_object(model, None, spec)
        about = {name: getattr(options, name) for name in _ABOUT_ROWS if getattr(options, name)}
        about |= _given_options(options, ("classes", "features"))
        return held, load_data(X, held, **about, **({} if train is None else {"train": train}))
    return _rows_apart(model, CallerRows.from_object(X), y, sensitive_features, train, options, spec)


def _rows_apart(
    model: object, rows: CallerRows, y: Any, sensitive_features: Any, train: Any, options: ScanOptions, spec: ModelSpec
) -> tuple[AuditedModel, AuditData]:
    """A model and rows in memory, of which labels and groups may stand apart or be columns."""
    from auditor.data.audit_data import AuditData, favourable
    from auditor.loading.python_objects import audited_object, feature_names
    from auditor.loading.rows.caller_rows import CallerRows, data_in_memory, group_columns, with_training_rows
    from auditor.models.audited_model import AuditedModel

    if y is not None and options.target is not None:
        raise UsageError("y= and target= both say what is true: leave one of them out.")
    if sensitive_features is not None and options.sensitive:
        raise UsageError("sensitive_features= and sensitive= both name groups: leave one of them out.")
    if train is not None and (not isinstance(train, tuple) or len(train) != 2):
        raise UsageError("train= of a model in memory is the pair (X_train, y_train).")
    groups = group_columns(list(options.sensitive) if options.sensitive else sensitive_features, rows)
    others = (options.target, options.cluster, options.weight)
    own = options.features or getattr(model, "features", None) or feature_names(model) or ()
    named = bool(own) and set(own) <= set(rows.columns)
    features = tuple(own) if named else tuple(name for name in rows.columns if name not in others)
    held_rows = rows.select(features) if rows.columns else rows
    held = model if isinstance(model, AuditedModel) else audited_object(model, held_rows, spec)
    if groups is not None and len(held.classes) == 2 and options.positive is None:
        if favourable(None, held.classes) is None:
            first, second = held.classes
            raise UsageError(f"Which label is favourable to a person? Add positive={first!r} or positive={second!r}.")
    with scratch_folder() as scratch:
        names = () if groups is None else tuple(map(str, groups.columns))
        about = data_spec(replace(options, data=scratch, train=None, sensitive=names))
        if getattr(rows.rows, "ndim", 2) > 2:
            if held.kind == "regressor":
                return held, AuditData.for_regression(rows.rows, y, sensitive_features=groups)
            return held, AuditData.from_arrays(
                rows.rows, y, classes=held.classes, positive=options.positive, sensitive_features=groups
            )
        data = data_in_memory(rows, features, y, groups, held, about, Path(scratch))
        if train is None:
            return held, data
        learned = replace(about, sensitive=(), bins=(), cluster=None, weight=None)
        members = data_in_memory(
            CallerRows.from_object(train[0]), features, train[1], None, held, learned, Path(scratch)
        )
        return held, with_training_rows(data, members)


def _in_memory(model: AuditedModel, rows: AuditData | None, config: Configured, catalogue: Catalogue) -> AuditReport:
    from auditor.loading.rows.row_warnings import with_repeated_answers
    from auditor.run.job_models import intake_result
    from auditor.run.run_audit import run_audit
    from auditor.training.task_distribution import chosen_executor
    from auditor.training.task_executor import tasks_by

    options = config.options
    labelled = rows is not None and (rows.y_true is not None or rows.target_values is not None)
    asked = ScanOptions(
        probes=options.probes,
        target=options.target or ("labels" if labelled else None),
        benchmark=options.benchmark,
        benchmark_filter=options.benchmark_filter,
        scorer=options.scorer,
        calibration=options.calibration,
        judge=options.judge,
        chat=options.chat,
        system=options.system,
        few_shot=options.few_shot,
        reference=options.reference,
        ood=options.ood,
    )
    specs = probe_specs(replace(config, options=asked), catalogue)
    check_waivers(options.allow_inconclusive, {*catalogue, *(spec.name for spec in specs)})
    rows = None if rows is None else with_repeated_answers(model, rows)
    with chosen_executor(options.executor, options.address) as executor, tasks_by(executor):
        report = run_audit(
            model,
            rows,
            [make_probe(_kind(spec, catalogue), spec.options) for spec in specs],
            config.criteria,
            seed=options.seed,
            family=Family(error_rate=options.error_rate, multiplicity=options.multiplicity),
            allow_inconclusive=options.allow_inconclusive or False,
            by_default=options.probes is None,
            beside=(intake_result(model),),
            controls=not options.no_controls,
        )
        if executor is not None:
            executor.forget()
    updates = {"configuration": recorded(config.obeyed), "no_controls": options.no_controls}
    return held_to(config, report.model_copy(update=updates))


def _kind(spec: ProbeSpec, catalogue: Catalogue) -> type[Probe]:
    return catalogue[spec.name] if spec.name in catalogue else load_probe_class(spec.target, spec.name)


def _probe_options(value: object) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    asked = {} if value is None else value
    for name, values in asked.items() if isinstance(asked, Mapping) else [("", None)]:
        if not isinstance(name, str) or not isinstance(values, Mapping):
            raise UsageError('probe_options= takes options by probe: {"group_fairness": {"intersections": False}}.')
        found[name.replace("-", "_")] = dict(values)
    return found


def _given_options(options: ScanOptions, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _options(values: Mapping[str, Any]) -> ScanOptions:
    for name in values:
        if name in _FOR_COMMANDS:
            raise UsageError(f"{name}= is for the command alone: here the report is yours to write, print and compare.")
    _refuse_unknown(values, set(flags()) - _FOR_COMMANDS, "scan")
    try:
        return ScanOptions.from_values({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{first['loc'][0]}={first['input']!r}: {said}.") from None


def _refuse_unknown(values: Mapping[str, Any], known_options: set[str], function: str) -> None:
    for name in values:
        if name not in known_options:
            raise UsageError(f"{function} has no option {name!r}{did_you_mean(name, known_options) or '.'}")


def _labels(values: Mapping[str, Any]) -> dict[str, Any]:
    """Labels as texts: a caller has them as numbers or truth values too."""
    from auditor.data.preprocessing import label_name

    found: dict[str, Any] = {}
    if values.get("positive") is not None:
        found["positive"] = label_name(values["positive"])
    if isinstance(values.get("classes"), Sequence) and not isinstance(values["classes"], str):
        found["classes"] = [label_name(label) for label in values["classes"]]
    return found


def _path(model: object) -> str | None:
    return fspath(model) if isinstance(model, str | PathLike) else None


def _is_audit_data(data: object) -> bool:
    from auditor.data.audit_data import AuditData

    return isinstance(data, AuditData)


def _file(table: Any, path: Path) -> str | None:
    """A table as a file that any process can read; what is a path already is taken as it is."""
    if table is None or isinstance(table, str | PathLike):
        return None if table is None else fspath(table)
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise UsageError(f"Rows are a path, a DataFrame or auditor.AuditData, and this is a {type(table).__name__}.")
    from auditor.loading.rows.caller_rows import written

    return written(table, path)


def _nameless(report: AuditReport, data: Any, train: Any) -> AuditReport:
    """The record without the places of files that were made for this scan alone."""
    made = {"path": data, "train_path": train}
    unnamed = {
        name: None for name, given in made.items() if given is not None and not isinstance(given, str | PathLike)
    }
    return report.model_copy(update={"data": report.data.model_copy(update=unnamed)})
