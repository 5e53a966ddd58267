"""``auditor detect compare``: detectors side by side on the user's own files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import DataError, UsageError
from auditor.run.scan_options import ScanOptions
from cli.detect_calibrate import KnownFiles, as_classifier, class_meanings, find_known_files, scoring_job
from cli.flags import AllowUnsandboxed, Device, JsonAlone

if TYPE_CHECKING:
    import numpy as np

    from auditor.core.rows import BoolArray, FloatArray
    from auditor.detection.detection_record import FileResult
    from auditor.statistics.estimate import Estimate

_CONFIDENCE = 0.95
_CHANGES = "probes.deepfake.degradations:everyday_versions"
_COLUMNS = ("detector", "metric", "of", "value", "low", "high", "n_real", "n_fake")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A detector's results by path, and the processor seconds that it took a file."""

    name: str
    results: Mapping[Path, FileResult]
    learnt: frozenset[Path]
    seconds: float


def detect_compare(
    detectors: Annotated[
        list[str], typer.Argument(help="Two or more detectors or classifiers, as auditor detect calibrate takes them.")
    ],
    data: Annotated[
        Path,
        typer.Option(help="Folder of known files: real and synthetic ones, in sub-folders by source and generator."),
    ],
    class_is: Annotated[
        list[str] | None,
        typer.Option(help="Meaning of a class or a sub-folder: fake=NAME, real=NAME or neither=NAME."),
    ] = None,
    error_rate: Annotated[
        float, typer.Option(help="Rate of false alarms at which all are compared.", min=1e-4, max=0.5)
    ] = 0.05,
    changes: Annotated[
        bool, typer.Option("--changes", help="Compare also after everyday changes: JPEG, resizing, codecs, telephone.")
    ] = False,
    json_: JsonAlone = False,
    device: Device = ScanOptions.device,
    max_memory: Annotated[str | None, typer.Option(help="Memory limit of the process that reads files: 8GiB.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for each file.")] = 120.0,
    allow_unsandboxed: AllowUnsandboxed = False,
) -> int:
    """Compare detectors on your own files at one rate of false alarms: by generator, source and change, with cost.

    Exit codes: 0 the first is shown to be better than each other one, 2 wrong usage, 3 it is not, or files were left
    out, 4 a detector or the files were refused.
    """
    names = list(dict.fromkeys(detectors))
    if len(names) < 2:
        raise UsageError("Name two detectors or more: auditor detect compare a.pt b.onnx --data DIR.")
    meanings = class_meanings(class_is or ())
    known = find_known_files(data, None, None, meanings)
    scored = []
    for name in names:
        job = scoring_job(name, device, max_memory, max_seconds, allow_unsandboxed=allow_unsandboxed)
        scored.append(_scores(name, as_classifier(job, meanings, known, None, None), known, changes=changes))
    files = [
        path
        for path in (*known.real, *known.fake)
        if all(path not in each.learnt and _probability(each.results[path]) is not None for each in scored)
    ]
    n_lost = len(known.real) + len(known.fake) - len(files)
    for each in scored:
        if len(each.learnt) == n_lost and not files:
            raise UsageError(
                f"Nothing is left to compare on: all {n_lost:,} files under --data are training files of {each.name} "
                "or copies of them: name a folder of files that no detector was trained on."
            )
    rows = compare_scores(scored, files, set(known.fake), data, error_rate)
    shown = [row for row in rows if row["metric"] == "auc_behind_first"]
    code = 3 if n_lost or any(row["low"] <= 0.0 for row in shown) else 0
    if json_:
        said = {"error_rate": error_rate, "left_out": n_lost, "rows": rows, "exit_code": code}
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
        return code
    from auditor.report.record.number_text import visible
    from cli.terminal import print_table

    print_table(_COLUMNS, [[_cell(row.get(column)) for column in _COLUMNS] for row in rows])
    unclear = [row["detector"] for row in shown if row["low"] <= 0.0]
    order = f"not shown to be worse than the first: {', '.join(unclear)}" if unclear else "each other is worse"
    lost = f"; {n_lost:,} files are left out, which not every detector can score or is new to" if n_lost else ""
    typer.echo(visible(f"exit {code}: {order}{lost}"), err=True)
    return code


def _scores(name: str, job: Any, known: KnownFiles, *, changes: bool) -> Scored:
    import resource
    from dataclasses import replace

    from auditor.core.files import encode_path
    from auditor.detection.detector_calibration import learnt_of
    from auditor.run.parent_process import examine

    names = {path: encode_path(str(path)) for path in (*known.real, *known.fake)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    asked = replace(job.detection, files=tuple(names.values()))
    found = examine(replace(job, detection=asked))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    results = {path: found.files[encoded] for path, encoded in names.items()}
    assert found.detector is not None
    if changes:
        again = examine(replace(job, detection=replace(asked, changes=_CHANGES))).files
        results = {path: result.model_copy(update={"changed": again[names[path]].changed})
                   for path, result in results.items()}  # fmt: skip
    how = zip(results, learnt_of(found.detector.card, list(results.values())), strict=True)
    learnt = frozenset(path for path, why in how if why)
    return Scored(name=name, results=results, learnt=learnt, seconds=spent / len(results))


def _probability(result: FileResult) -> float | None:
    return None if result.verdict is None else result.verdict.probability


def compare_scores(
    scored: Sequence[Scored], files: Sequence[Path], fake: set[Path], data: Path, error_rate: float
) -> list[dict[str, Any]]:
    """Rows of estimates, the detectors by how many fakes they find at this rate of false alarms, all over ``files``.

    ``of`` "" is over all files; else a sub-folder of fakes or of real files, fakes in a container that real files
    share, or all files after a change: ``tpr_at_fpr`` with the threshold of real files so changed,
    ``false_positive_rate`` with that of the files as they are, neither where one of the detectors can score too few.
    ``auc_behind_first``: paired difference to the detector that ranks first, all differences together at 95 %
    (Bonferroni). Raises DataError without enough files of either class.
    """
    import numpy as np

    from auditor.statistics.detection import area_difference
    from auditor.statistics.rank_estimates import area_under_curve, true_positive_rate_at
    from auditor.statistics.rates import Proportion

    is_fake = np.asarray([path in fake for path in files], bool)
    fewest, n_real, n_fake = math.ceil(1.0 / error_rate), int((~is_fake).sum()), int(is_fake.sum())
    if n_real < fewest or n_fake < 2:
        raise DataError(
            f"Every detector can be asked about {n_real:,} real and {n_fake:,} synthetic files, and at a rate of "
            f"{error_rate:g} it takes {fewest} and 2: add more of them."
        )
    found = {each.name: np.asarray([_probability(each.results[path]) for path in files], np.float64) for each in scored}
    groups, every, after = _groups(files, is_fake, data, scored[0]), np.ones(len(files), bool), _changed(files, scored)

    def rate(scores: FloatArray, these: BoolArray, of_real: BoolArray) -> Estimate:
        return true_positive_rate_at(
            positives=scores[these & is_fake], negatives=scores[of_real & ~is_fake], false_positive_rate=error_rate
        )

    def area(each: Scored) -> Estimate:
        return area_under_curve(positives=found[each.name][is_fake], negatives=found[each.name][~is_fake])

    order = sorted(scored, key=lambda each: (-rate(found[each.name], every, every).value, -area(each).value))
    level = 1.0 - (1.0 - _CONFIDENCE) / max(len(order) - 1, 1)
    rows: list[dict[str, Any]] = []

    def add(metric: str, of: str, estimate: Estimate, these: BoolArray, confidence: float = _CONFIDENCE) -> None:
        low, high = estimate.interval(confidence)
        counts = {"n_real": int((these & ~is_fake).sum()), "n_fake": int((these & is_fake).sum())}
        ends = {"value": estimate.value, "low": low, "high": high}
        rows.append({"detector": each.name, "metric": metric, "of": of} | ends | counts)

    for place, each in enumerate(order):
        scores = found[each.name]
        threshold = float(np.quantile(scores[~is_fake], 1.0 - error_rate, method="higher"))

        def add_alarms(of: str, scores: FloatArray, these: BoolArray, threshold: float = threshold) -> None:
            share = Proportion(successes=int((scores[these] > threshold).sum()), n=int(these.sum()))
            add("false_positive_rate", of, share, these)

        add("tpr_at_fpr", "", rate(scores, every, every), every)
        add("auc", "", area(each), every)
        if place:
            behind = area_difference(first=found[order[0].name], second=scores, positive=is_fake)
            add("auc_behind_first", "", behind, every, level)
        for of, these in groups.items():
            if (these & is_fake).any():
                add("tpr_at_fpr", of, rate(scores, these, every), these | ~is_fake)
            else:
                add_alarms(of, scores, these)
        for change, these in after.items():
            of, real = f"after {change}", these & ~is_fake
            if real.sum() < fewest or not (these & is_fake).any():
                rows.append({"detector": each.name, "metric": "tpr_at_fpr", "of": of, "value": None})
                continue
            own = np.asarray([each.results[path].changed.get(change, np.nan) for path in files], np.float64)
            add("tpr_at_fpr", of, rate(own, these, these), these)
            add_alarms(of, own, real)
        rows.append({"detector": each.name, "metric": "processor_seconds_a_file", "of": "", "value": each.seconds})
    return rows


def _changed(files: Sequence[Path], scored: Sequence[Scored]) -> dict[str, np.ndarray[Any, Any]]:
    """Files that every detector has scored after a change, by the change."""
    import numpy as np

    changes = dict.fromkeys(change for path in files for each in scored for change in each.results[path].changed)
    return {
        change: np.asarray([all(change in each.results[path].changed for each in scored) for path in files])
        for change in changes
    }


def _groups(files: Sequence[Path], is_fake: BoolArray, data: Path, scored: Scored) -> dict[str, np.ndarray[Any, Any]]:
    """Files of each sub-folder of a class, and fakes whose container some real file shares."""
    import numpy as np

    parents = [path.parent.relative_to(data.resolve()).as_posix() for path in files]
    nested = [name for name in dict.fromkeys(parents) if "/" in name]
    groups = {name: np.asarray([parent == name for parent in parents]) for name in nested}
    facts = [scored.results[path].facts[:1] for path in files]
    real = {each for each, fake in zip(facts, is_fake, strict=True) if not fake and each}
    alike = np.asarray([each in real for each in facts]) & is_fake
    if 0 < alike.sum() < is_fake.sum():
        groups |= {"(container as real files)": alike, "(another container)": is_fake & ~alike}
    return groups


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
