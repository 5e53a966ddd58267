"""Data audited without a model: recorded answers of a model, logs of its evaluation, or rows before there is one."""

from __future__ import annotations

import math
import mimetypes
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from auditor.core.errors import DataError, UsageError
from auditor.core.files import sha256_of
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import NO_CLUSTERS, LogSummary, Recorded, design_of
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing, label_name
from auditor.loading.job_specs import DataSpec, ModelSpec, RecordedSpec
from auditor.loading.rows.column_roles import id_like
from auditor.loading.rows.evaluation_logs import read_log
from auditor.loading.rows.folders import files_in, sha256_of_folder
from auditor.loading.rows.load_rows import Tally, load_data, sensitive_groups
from auditor.loading.rows.logged_rows import require_clusters
from auditor.loading.rows.logged_samples import ERRORED, SCORED, UNSCORED, Claim, LoggedSamples
from auditor.loading.rows.sample_clusters import Clusters, SampleKeys
from auditor.loading.rows.score_columns import score_columns
from auditor.loading.rows.table_files import TableFile, open_table
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.files.model_bytes import printable
from auditor.models.format_names import EVALUATION_LOG, NO_MODEL
from auditor.models.recorded_model import (
    NoModel,
    RecordedClassifier,
    RecordedEvaluation,
    RecordedRegressor,
    RecordedWriter,
)

PROVENANCE = Provenance(
    format="recorded predictions",
    loaded_by="pyarrow",
    notes=(
        "No model was asked: its answers were read from the data file, and that they are this model's is the word of "
        "whoever wrote it.",
    ),
)
_NO_MODEL = Provenance(
    format=NO_MODEL,
    loaded_by="nothing",
    notes=("There is no model yet: the rows are audited alone.",),
)
# Of media enough is read to know copies by.
_SIDE, _SAMPLING_RATE, _SECONDS = 64, 16_000, 4
# More kinds of answers than that are numbers, or text.
_MOST_CLASSES = 100
_IMPLIED = (("0", "1"), ("False", "True"))


def load_recorded(model: ModelSpec, spec: DataSpec) -> tuple[AuditedModel, AuditData]:
    """The model that the answers in the data files are of, and the rows with them; :class:`NoModel` without answers.

    Raises UsageError for a column that is not there or a flag that is missing, DataError for answers that are none.
    """
    asked = spec.recorded or RecordedSpec()
    if asked.is_log:
        return load_logged(spec)
    if asked.rows_alone:
        return _rows_alone(model, spec)
    file = open_table(spec.path, "predictions file")
    if file.kind == "eval":
        require_clusters(file.path, spec.cluster)
    scores = score_columns(asked, file)
    answers = (*scores.values(), asked.predicted, asked.loss, asked.generated)
    own = [name for name in (*answers, spec.target) if name is not None]
    file.require([*own, *(spec.sensitive if spec.sensitive_file is None else ())])
    features, ids = _features(file, spec, own)
    audited: AuditedModel
    if asked.generated is not None:
        audited = RecordedWriter(provenance=PROVENANCE)
    elif model.task == "regression":
        audited = RecordedRegressor(features=features, provenance=PROVENANCE)
    else:
        audited = RecordedClassifier(
            classes=_classes(model, spec, asked, scores, file),
            features=features,
            threshold=0.5 if model.threshold is None else model.threshold,
            provenance=PROVENANCE,
        )
    data = load_data(replace(spec, features=None if spec.text else tuple(features)), audited)
    if audited.kind == "classifier" and not audited.classes and data.y_true is None:
        # Losses alone: whose they are matters to no one, but a row without a label takes no part.
        data = replace(data, y_true=np.zeros(len(data), np.int64))
    return audited, replace(data, notes=(*data.notes, *_left_out(ids)))


def _left_out(ids: Sequence[str]) -> list[str]:
    return [f"Columns that name rows were left out of the features: {', '.join(ids)}."] if ids else []


def _rows_alone(model: ModelSpec, spec: DataSpec) -> tuple[AuditedModel, AuditData]:
    """The rows, training rows among them if ``spec.train`` names any, in the place of a model :class:`NoModel`.

    Raises UsageError for a column that is not there, and for a target that is no class.
    """
    spec = replace(spec, recorded=None)
    if Path(spec.path).is_dir():
        return _media_alone(model, spec)
    files = [open_table(path, "data file") for path in (spec.path, spec.train) if path is not None]
    for file in files:
        file.require([*filter(None, [spec.target]), *(spec.sensitive if spec.sensitive_file is None else ())])
    features, ids = _features(files[0], spec, [spec.target] if spec.target else [], with_sensitive=True)
    classes = _classes_in(model, spec, files) if spec.target is not None else ()
    placed = NoModel(classes=classes, features=features, provenance=_NO_MODEL)
    data = load_data(replace(spec, features=None if spec.text else tuple(features)), placed)
    if ids:
        # What names a row, such as an e-mail address, makes it like no other: it is read apart.
        named = NoModel(classes=classes, features=ids, provenance=_NO_MODEL)
        data = replace(data, identifiers=pd.DataFrame(load_data(replace(spec, features=tuple(ids)), named).X))
    return placed, replace(data, notes=(*data.notes, *_left_out(ids)))


def _media_alone(model: ModelSpec, spec: DataSpec) -> tuple[AuditedModel, AuditData]:
    """The files of a folder with one sub-folder per class, coarsely: enough to find copies, and not to learn from.

    Raises UsageError for a folder whose files are neither pictures nor sound.
    """
    names = files_in(Path(spec.path))
    kinds = Counter((mimetypes.guess_type(name)[0] or "").partition("/")[0] for name in names)
    named = model.classes or spec.classes
    folders = {name.partition("/")[0] for name in names if "/" in name}
    classes = sorted(folders, key=_natural) if named is None else named
    placed = NoModel(classes=[label_name(name) for name in classes], features=(), provenance=_NO_MODEL)
    if max(kinds["image"], kinds["audio"]) == 0:
        raise UsageError(f"{printable(Path(spec.path).name)!r} holds neither pictures nor sound: give a table of rows.")
    picture = ImagePreprocessing(size=(_SIDE, _SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)
    sound = AudioPreprocessing(sampling_rate=_SAMPLING_RATE, samples=_SECONDS * _SAMPLING_RATE)
    placed.preprocessing = picture if kinds["image"] >= kinds["audio"] else sound
    return placed, load_data(replace(spec, features=None), placed)


def _classes_in(model: ModelSpec, spec: DataSpec, files: Sequence[TableFile]) -> tuple[str, ...]:
    named = model.classes or spec.classes
    if named is not None:
        return tuple(map(label_name, named))
    target = str(spec.target)
    seen = set().union(*(_labels(file, [target], "leave --target out, or bin it into classes") for file in files))
    if len(seen) < 2:
        raise UsageError(f"Column {target!r} holds fewer than two labels: name the classes with --classes a,b.")
    return next((implied for implied in _IMPLIED if seen <= set(implied)), tuple(sorted(seen, key=_natural)))


def _features(
    file: TableFile, spec: DataSpec, answer_columns: Sequence[str], *, with_sensitive: bool = False
) -> tuple[list[str], list[str]]:
    """The columns beside the answers: --features, else all that are nothing else; those that name rows stand second."""
    if spec.text is not None:
        return [], []
    if spec.features is not None:
        return list(spec.features), []
    taken = {*answer_columns, *(() if with_sensitive else spec.sensitive), spec.join_on, spec.cluster, spec.weight}
    others = [name for name in file.columns if name not in taken]
    ids = id_like(file.read(others, {}).to_pandas()) if others else []
    return [name for name in others if name not in ids], ids


def _classes(
    model: ModelSpec, spec: DataSpec, answer_spec: RecordedSpec, scores: dict[str, str], file: TableFile
) -> tuple[str, ...]:
    """The classes in the order of the scores; of two the favourable one stands last unless --classes says otherwise."""
    if model.classes is not None:
        named = tuple(label_name(c) for c in model.classes)
        if "" not in scores and scores and set(named) != set(scores):
            raise UsageError(f"--classes and --score name different classes: {', '.join(scores)} have a score.")
        return named
    if scores and "" not in scores:
        return tuple(scores)
    columns = [name for name in (spec.target, answer_spec.predicted) if name is not None]
    if not columns and not scores:
        return ()
    seen = _labels(file, columns)
    positive = None if spec.positive is None else label_name(spec.positive)
    for implied in _IMPLIED:
        if seen <= set(implied) and positive in (None, *implied):
            return implied
    if positive is not None and len(seen | {positive}) == 2:
        return (*(seen - {positive}), positive)
    if len(seen) < 2:
        raise UsageError(f"{file.path.name} holds fewer than two labels: name the classes with --classes a,b.")
    if len(seen) > 2 and scores:
        raise UsageError(
            f"One score a row decides between 2 classes, and {file.path.name} has {len(seen)} "
            f"({', '.join(sorted(seen)[:6])}): give --score class=column for each of them."
        )
    return tuple(sorted(seen, key=_natural))


def _labels(file: TableFile, columns: Sequence[str], remedy: str = "add --task regression") -> set[str]:
    found: set[str] = set()
    for name in columns:
        values = file.read([name], {name: pa.string()}).column(name).unique().drop_null().to_pylist()
        found |= {label_name(value) for value in values}
        if len(found) > _MOST_CLASSES:
            raise UsageError(
                f"Column {name!r} of {file.path.name} has more than {_MOST_CLASSES} different values: if they are "
                f"numbers that are predicted, {remedy}."
            )
    return found


def _natural(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


# ---- logs of evaluations ---------------------------------------------------------------------------------------------

_MOST_CONTRADICTIONS, _MOST_SAMPLES = 50, 5_000_000
# A harness that writes all of a double rounds nothing but the sum.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class _Entries:
    """The entries of a log by sample: ``codes`` (n,) of its ``names``; ``kept`` (n,) all but repeats of a repeat."""

    samples: LoggedSamples
    codes: IntArray
    names: pd.Index
    values: FloatArray
    kept: BoolArray

    @classmethod
    def from_samples(cls, samples: LoggedSamples) -> _Entries:
        """The entries of samples as they were read."""
        codes, names = pd.factorize(np.asarray(samples.ids, object))
        epochs = np.asarray(samples.epochs, np.int64)
        kept = np.ones(len(codes), bool)
        if len(names) < len(codes):
            kept = ~pd.Series(codes * (epochs.max(initial=0) + 1) + epochs).duplicated().to_numpy()
        return cls(
            samples,
            np.asarray(codes, np.int64),
            pd.Index(names, dtype=object),
            np.asarray(samples.values, np.float64),
            kept,
        )

    def means(self, part: BoolArray) -> list[float]:
        """The mean score of some entries in every way that a harness takes it: over repeats first or not, and with
        entries without a score left out or counted as 0."""
        scored = part & ~np.isnan(self.values)
        if not scored.any():
            return []
        sums = np.bincount(self.codes[scored], weights=self.values[scored], minlength=len(self.names))
        n = np.bincount(self.codes[scored], minlength=len(self.names))
        of_samples = np.divide(sums, n, out=np.zeros_like(sums), where=n > 0)
        there = len(np.unique(self.codes[part]))
        total = float(sums.sum())
        return [total / scored.sum(), total / part.sum(), of_samples.sum() / (n > 0).sum(), of_samples.sum() / there]

    def contradictions(self, epochs: int) -> Iterator[tuple[str, str]]:
        """Where the log disagrees with itself, each by its kind and a sentence."""
        samples = self.samples
        yield from samples.contradictions
        if repeated := int((~self.kept).sum()):
            first = samples.ids[int(np.flatnonzero(~self.kept)[0])]
            yield "repeated_epochs", f"{repeated:,} entries repeat a sample's repeat, the first of sample {first}"
        beyond = int((np.asarray(samples.epochs) > epochs).sum()) if samples.epochs_set else 0
        if beyond:
            yield "changed_epochs", f"the log sets {epochs} repeats a sample, and {beyond:,} entries are of others"
        yield from _other_models(samples)
        for claim in samples.claims:
            yield from self._against(claim)

    def _against(self, claim: Claim) -> Iterator[tuple[str, str]]:
        """What the samples of a claim's part have against it."""
        samples = self.samples
        parts = np.asarray(samples.parts, np.int64)
        part = np.ones(len(parts), bool) if claim.part not in samples.part_names else (
            parts == samples.part_names[claim.part]
        )  # fmt: skip
        part &= self.kept
        where = f" of {claim.part}" if claim.part else ""
        there = len(np.unique(self.codes[part]))
        if claim.n is not None and there > claim.n:
            yield "contradicted_metrics", f"the log reports {claim.n:,} samples{where} and has {there:,}"
        scored = part & ~np.isnan(self.values)
        # What samples that are not there would make of a number, nobody knows.
        short = any(other.part == claim.part and there < (other.n or 0) for other in samples.claims)
        short |= samples.expected is not None and not samples.expected <= set(self.names)
        n_scored = (int(scored.sum()), len(np.unique(self.codes[scored])))
        if claim.scored is not None and claim.scored not in n_scored and not (short and claim.scored > max(n_scored)):
            yield "contradicted_metrics", f"{claim.scored:,} scores{where} are reported, and {n_scored[0]:,} are there"
        if claim.value is None or math.isnan(claim.value) or short:
            return
        found = self.means(part)
        tolerance = _ROUNDING if claim.decimals is None else 0.5 * 10.0 ** -max(claim.decimals, 2) + _ROUNDING
        if found and min(abs(claim.value - mean) for mean in found) > tolerance:
            yield (
                "contradicted_metrics",
                f"{claim.metric}{where} is reported as {claim.value:.6g}, and the samples give {found[0]:.6g}",
            )


def _other_models(samples: LoggedSamples) -> Iterator[tuple[str, str]]:
    """Names of the model in samples that share no part with its name, or with each other."""
    named = samples.model or next(iter(samples.models), "")
    own = _name_parts(named)
    for other, n in samples.models.items():
        if not any(a.startswith(b) or b.startswith(a) for a in own for b in _name_parts(other)):
            yield "other_models", f"the log is of {printable(named)}, and names {printable(other)} {n:,} times"


def _name_parts(name: str) -> list[str]:
    """The parts of a model's name between slashes, as harnesses write them in names of files too."""
    return [part for part in name.lower().replace("__", "/").replace("_", "-").split("/") if part] + (
        [name.lower().replace("/", "-").replace("_", "-")] if "/" in name or "_" in name else []
    )


def load_logged(spec: DataSpec) -> tuple[RecordedEvaluation, AuditData]:
    """The model that the log of an evaluation is of, and its samples as rows, a sample's repeats in one.

    A sample that the log says it has, and has not, is a row too, without a score. Samples that share a document, as the
    log shows, are clusters unless ``spec.cluster`` names a key, or none. Raises UsageError where the log does not say
    which score is meant, DataError for what is no log.
    """
    recorded = spec.recorded or RecordedSpec()
    if len(recorded.score) > 1:
        raise UsageError("A log is judged by one of its scores: give --score once.")
    keys = SampleKeys(frozenset(spec.sensitive)) if spec.cluster is None else None
    if spec.cluster == NO_CLUSTERS:
        spec = replace(spec, cluster=None)
    asked = [name for name in (*spec.sensitive, spec.cluster) if name is not None]
    score = next(iter(recorded.score), None)
    samples = read_log(spec.path, score=score, key=spec.join_on, columns=asked, keys=keys)
    entries = _Entries.from_samples(samples)
    n_read = len(entries.names)
    by_part: dict[str, int] = {}
    for claim in samples.claims:
        by_part[claim.part] = max(by_part.get(claim.part, 0), claim.n or 0)
    claimed = sum(by_part.values())
    absent = len(samples.expected - set(samples.ids)) if samples.expected is not None else 0
    n = n_read + max(absent, claimed - n_read, 0)
    if not 0 < n <= _MOST_SAMPLES:
        raise DataError(
            f"{printable(Path(spec.path).name)!r} has or reports {n:,} samples: 1 to {_MOST_SAMPLES:,} are read.",
            code="AUD-DATA-LIMIT",
        )
    counts = np.bincount(entries.codes[entries.kept], minlength=n)
    epochs = samples.epochs_set or int(counts.max(initial=1))
    repeats = np.maximum(counts, epochs).astype(np.float64)
    scored = entries.kept & ~np.isnan(entries.values)
    total = np.bincount(entries.codes[scored], weights=entries.values[scored], minlength=n)
    open_share = 1.0 - np.bincount(entries.codes[scored], minlength=n) / repeats
    states = Counter(samples.states)
    # Samples are numbered as they first occur.
    first = np.flatnonzero(np.diff(np.maximum.accumulate(entries.codes), prepend=-1))
    clusters, said = (None, ()) if keys is None else keys.clusters_of(first, n - n_read)
    summary = LogSummary(
        score=score or next(iter(samples.score_names), ""),
        judge=printable(samples.judge, 80),
        entries=len(samples.ids),
        errored=states[ERRORED],
        unscored=states[UNSCORED],
        unread=int(repeats.sum()) - int(counts.sum()),
        epochs=epochs,
        claims=tuple(filter(None, map(_in_words, samples.claims[:_MOST_CONTRADICTIONS]))),
        lowest=float(np.nanmin(entries.values, initial=0.0, where=scored)),
        highest=float(np.nanmax(entries.values, initial=1.0, where=scored)),
        contradictions=tuple(entries.contradictions(epochs))[:_MOST_CONTRADICTIONS],
        clustered=clusters.summary if clusters is not None else "",
    )
    graded = np.stack([total / repeats, np.maximum(open_share, 0.0)], axis=1)
    data = replace(
        _rows_of(entries, spec, first, graded, clusters), notes=(*said, *([clusters.note] if clusters else []))
    )
    return RecordedEvaluation(summary, provenance=_log_provenance(samples, spec.path, states[SCORED])), data


def _rows_of(
    entries: _Entries, spec: DataSpec, first: IntArray, graded: FloatArray, found: Clusters | None
) -> AuditData:
    names = entries.names.to_numpy(object)
    absent = len(graded) - len(names)
    columns = entries.samples.columns
    frame = pd.DataFrame({name: _first_values(column, first, absent) for name, column in columns.items()})
    clusters, key = (None, spec.cluster) if found is None else (pd.Series(found.codes), found.name)
    if spec.cluster is not None:
        # Nobody knows where a sample belongs that was not read.
        own = [f"\0{i}" for i in range(absent)]
        clusters = pd.Series([*frame[spec.cluster].astype("string")[: len(names)], *own], dtype=object)
    tally = Tally("log", Path(spec.path).name, None, ())
    return AuditData(
        X=np.asarray([*names, *[f"(not in the log {i})" for i in range(1, absent + 1)]], object),
        recorded=Recorded(graded=graded),
        sensitive_features=sensitive_groups(frame, spec, tally) if spec.sensitive else None,
        design=design_of(clusters, None, cluster=key, weight=None, cluster_at_most=spec.cluster_at_most),
    )


def _first_values(column: Sequence[Any], first: IntArray, absent: int) -> pd.Series[Any]:
    """(n,) the value of each sample, None of those that are absent; what it holds is told from its different values."""
    codes, levels = pd.factorize(pd.Series(column, dtype=object).to_numpy()[first])
    codes = np.concatenate([codes, np.full(absent, -1)])
    values = pd.Series(levels, dtype=object)
    values = values if (codes < 0).any() else values.infer_objects()
    return values.reindex(codes).reset_index(drop=True)


def _in_words(claim: Claim) -> str:
    of = f" of {claim.part}" if claim.part else ""
    words = [f"{claim.n:,} samples"] if claim.n is not None else []
    words += [f"{claim.metric} {claim.value:.6g}"] if claim.value is not None and math.isfinite(claim.value) else []
    return printable(f"{', '.join(words)}{of}", 200) if words else ""


def _log_provenance(samples: LoggedSamples, path: str, scored: int) -> Provenance:
    where = Path(path)
    model = samples.model or next(iter(samples.models), "")
    return Provenance(
        stated_name=printable(model, 120) or None,
        sha256=sha256_of_folder(where) if where.is_dir() else sha256_of(where),
        format=f"{EVALUATION_LOG} ({samples.kind})",
        loaded_by="auditor",
        notes=(
            f"The log is of {printable(model, 120) or 'a model without a name'}: {len(samples.ids):,} entries, "
            f"{scored:,} with a score.",
            "No model was asked: that these are its scores is the word of whoever ran the evaluation.",
        ),
    )
