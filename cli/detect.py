"""``auditor detect``: provenance statements of media files, with a detector's estimate."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import UsageError
from auditor.run.scan_options import ScanOptions
from cli.detect_calibrate import Calibrated, channel_of, left_out_by_all, scoring_job
from cli.flags import AllowUnsandboxed, BundleTo, Device, JsonAlone, SignWith, TimestampBy, Writes
from cli.no_detector_help import without_detector
from cli.signed_outputs import sealed

if TYPE_CHECKING:
    from auditor.detection.detection_record import DetectorRecord, FileResult, FileVerdict
    from auditor.detection.detector_calibration import BatchShift
    from auditor.detection.provenance.provenance_record import Credentials, FileProvenance, Statement
    from auditor.evidence.detection_evidence import AskedDetector
    from auditor.loading.job_specs import Job
    from auditor.models.detector_card import KnownRate
    from auditor.run.job_results import FilesExamined

MOST_FILES = 100_000
_MAX_ANCHORS = 4 << 20
_MOST_SHOWN = 6
# Of the name of an evidence picture, in bytes: file systems take 255, of which a temporary name needs some.
_LONGEST_NAME = 200
_UNRELIABLE = "not to be relied on"
_COLUMNS = (
    "file", "medium", "answer", "probability", "p_real", "p_fake", "novelty", "credentials", "claims", "metadata",
    "evidence", "reason", "notes",
)  # fmt: skip
_COLOURS = {
    "fake": "FAIL",
    "no known trace": "INCONCLUSIVE",
    "cannot say": "INCONCLUSIVE",
    "unread": "NOT_RUN",
    "": "NOT_JUDGED",
}
# What is shown of a detector's known rates; --json has all of them.
_SHOWN = {"auc": "AUC", "equal_error_rate": "equal error rate", "tpr_at_fpr": "TPR at 1 % FPR"}
UNMEASURED = (
    "not measured on another collection: of files that came another way than those it was made with, far more real "
    "ones may be called fake (detect calibrate, or --known-real DIR)"
)
_NOBODY: list[str | None] = [None]
MEDIA = {"image": "images", "speech": "speech"}
_OF_PART = {"image": "pictures", "speech": "sound"}
ANSWERS = ("answered_real", "answered_fake", "answered_cannot_say")


def detect(
    files: Annotated[list[Path], typer.Argument(help="Image, audio or video files.")],
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector, as auditor detect train or detect calibrate writes it; one of pictures and one of sound "
            "for a video."
        ),
    ] = None,
    predict: Annotated[
        str | None, typer.Option(help="Your function that the detector was calibrated for: package.module:function.")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Folder for an attribution picture per file."), Writes(itself=True)
    ] = None,
    known_real: Annotated[
        Path | None, typer.Option(help="Folder of at least 19 files from the same channel that are known to be real.")
    ] = None,
    trust_anchors: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) of authorities whose signatures you trust.")
    ] = None,
    bundle: BundleTo = None,
    sign: SignWith = None,
    timestamp: TimestampBy = None,
    json_: JsonAlone = False,
    seed: Annotated[int, typer.Option(help="Seed of the random parts that the evidence is compared with.")] = 0,
    device: Device = ScanOptions.device,
    max_memory: Annotated[str | None, typer.Option(help="Memory limit of the process that reads files: 8GiB.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for each file.")] = 120.0,
    allow_unsandboxed: AllowUnsandboxed = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the process's output.")] = False,
) -> int:
    """Report the provenance statements of each file and, with a detector, whether it is likely to be synthetic.

    Exit codes: 0 the answer for every file is fake, 2 wrong usage, 3 a file has the answer "no known trace" or
    "cannot say" or could not be read, no detector was given, or known files are near copies, 4 the detector is refused.
    """
    paths, named = _distinct(files), list(dict.fromkeys(detector or ()))
    _check(named, evidence, known_real)

    from auditor.core.files import encode_path, readable
    from auditor.evidence.detection_evidence import detection_content, detection_evidence, exit_code_of
    from auditor.loading.job_specs import DetectionSpec

    kept = sealed(bundle, sign, timestamp)
    anchors = None if trust_anchors is None else _pem(trust_anchors)
    out = None if evidence is None else _folder(evidence)
    jobs = [
        scoring_job(one, device, max_memory, max_seconds, allow_unsandboxed=allow_unsandboxed, predict=predict)
        for one in (named or _NOBODY)
    ]
    known = [] if known_real is None else [_channel(job, known_real, paths, show=not json_) for job in jobs]
    spec = DetectionSpec(
        files=tuple(encode_path(os.path.realpath(path)) for path in paths),
        trust_anchors=anchors,
        with_heat_map=out is not None,
        with_calibration=kept is not None or len(named) > 1,
    )
    # The files of the one medium calibrate the one detector, and those of the other the other.
    specs = [replace(spec, card=each.card.model_dump_json()) for each in known] or [spec] * len(jobs)
    found = [
        _examined(replace(job, seed=seed, detection=own), show=not json_, debug=debug)
        for job, own in zip(jobs, specs, strict=True)
    ]
    results, asked_of = _together(paths, named, found, [each.few for each in known])
    pictures, unwritten = ({}, {}) if out is None else _write_pictures(results, out)
    results = [(readable(path), _with_note(result, unwritten.get(path, ""))) for path, result in results]
    pictures = {readable(path): where for path, where in pictures.items()}
    code = exit_code_of([result for _, result in results], asked_of, unwritten=bool(unwritten))
    said = detection_content(asked_of, results, pictures, code)
    if kept is not None:
        asked = {"seed": seed, "trust_anchors": bool(anchors), "evidence": bool(out), "known_real": bool(known)}
        kept.write(detection_evidence(said, asked_of, unwritten=bool(unwritten), request=asked))
    if json_:
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
    else:
        _print(results, asked_of, pictures, code, known)
    if kept is not None:
        kept.raise_if_undated()
    return code


def _examined(job: Job, *, show: bool, debug: bool) -> FilesExamined:
    from auditor.run.parent_process import examine, last_lines
    from cli.terminal import stages

    assert job.detection is not None
    with stages(show) as shown:
        shown.total = len(job.detection.files) + 1
        found = examine(job, on_stage=shown)
    if debug and found.log.strip():
        typer.echo(last_lines(found.log, 200), err=True)
    return found


def _together(
    paths: Sequence[Path], detector_paths: Sequence[str], examinations: Sequence[FilesExamined], few: Sequence[str]
) -> tuple[list[tuple[str, FileResult]], list[AskedDetector]]:
    """What is said of each file, and the detectors with the batch that each has seen; ``few``: of each on a channel."""
    from auditor.detection.detector_calibration import check_media, judged_by_all
    from auditor.evidence.detection_evidence import AskedDetector

    known = [each.detector for each in examinations if each.detector is not None]
    cards = [each.card for each in known]
    check_media(cards)
    judged, batches = judged_by_all(cards, [list(each.files.values()) for each in examinations])
    asked = [
        AskedDetector(path=path, known=each, batch=batch, few=said)
        for path, each, batch, said in zip(detector_paths, known, batches, few or [""] * len(known), strict=False)
    ]
    return list(zip(map(str, paths), judged, strict=True)), asked


def _channel(job: Job, known_real: Path, paths: Sequence[Path], *, show: bool) -> Calibrated:
    from cli.terminal import stages

    with stages(show) as shown:
        return channel_of(job, known_real, paths, on_stage=shown)


def _check(detector_paths: Sequence[str], evidence: Path | None, known_real: Path | None) -> None:
    absent = next((one for one in detector_paths if not Path(one).exists()), None)
    if absent is not None:
        raise UsageError(
            f"There is no detector at {absent!r}: make one with auditor detect train, or of any classifier with "
            "auditor detect calibrate."
        )
    if len(detector_paths) > 2:
        raise UsageError("A call takes two detectors at most, one of pictures and one of sound.")
    if evidence is not None and not detector_paths:
        raise UsageError("--evidence shows what a detector's score rests on: add --detector FILE.")
    if known_real is not None and not detector_paths:
        raise UsageError("--known-real calibrates a detector on your own files: add --detector FILE.")


def _print(
    results: Sequence[tuple[str, FileResult]],
    detectors: Sequence[AskedDetector],
    pictures: dict[str, str],
    code: int,
    known_real: Sequence[Calibrated],
) -> None:
    from auditor.report.record.number_text import visible
    from cli.terminal import paragraph

    looked_at = _looked_at()
    if looked_at:
        _print_files(results, [each.known for each in detectors], pictures)
    else:
        _print_table(results, pictures)
    # In a pipe the table stands alone, and how to read it goes to whoever looks on.
    for line in [
        *(f"left out  {line}, of the files known to be real" for line in left_out_by_all(known_real)),
        *(f"channel   {each.few}" for each in known_real if each.few),
        *(_explained(detectors, with_evidence=bool(pictures)) if detectors else ()),
        *(line for each in detectors for line in _of_batch(each.batch)),
    ]:
        typer.echo(paragraph(visible(line), 0), err=not looked_at)
    if not detectors:
        for line in without_detector([result for _, result in results]):
            typer.echo(paragraph(visible(line), 0), err=not looked_at)
    typer.echo(_ending(results, code, any_detector=bool(detectors)), err=not looked_at)


def _looked_at() -> bool:
    return sys.stdout.isatty()


def _distinct(files: Sequence[Path]) -> list[Path]:
    """The files as typed, each once; UsageError for a folder, or where none of them is there."""
    for path in files:
        if os.path.isdir(path):
            raise UsageError(f"{str(path)!r} is a folder: name its files, such as {shlex.quote(str(path))}/*")
    # One that is absent among others has an error of its own, and the others are examined.
    if not any(map(os.path.exists, files)):
        what = "no file" if len(files) == 1 else f"none of these {len(files):,} files, such as"
        raise UsageError(f"There is {what} {str(files[0])!r}.")
    found: dict[str, Path] = {}
    for path in files:
        found.setdefault(os.path.realpath(path), path)
    if len(found) > MOST_FILES:
        raise UsageError(f"{len(found):,} files are more than the {MOST_FILES:,} that one call takes.")
    return list(found.values())


def _pem(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_ANCHORS).decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"The certificates in {str(path)!r} cannot be read: give a file in PEM.") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UsageError(f"{str(path)!r} holds no certificate in PEM.")
    return text


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Cannot write into {str(path)!r}: {error.strerror}.") from None
    if not os.access(path, os.W_OK):
        raise UsageError(f"Cannot write into {str(path)!r}: name another folder with --evidence.")
    return path


def _write_pictures(results: Sequence[tuple[str, FileResult]], out: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Where each file's evidence was written, and why it could not be.

    A picture of an earlier run is replaced; any other file, and every file of this run, stays as it is.
    """
    from auditor.core.files import write_beside
    from auditor.judging.png import encode

    mine = {os.path.realpath(path) for path, _ in results}
    pictures, unwritten = {}, {}
    for path, result in results:
        if result.heat_map is None:
            continue
        where = _free(out, _stem(path), mine)
        try:
            write_beside(where, encode(result.heat_map.picture()))
        except UsageError as error:
            unwritten[path] = str(error)
            continue
        mine.add(os.path.realpath(where))
        pictures[path] = str(where)
    return pictures, unwritten


def _stem(path: str) -> str:
    """The file's name, in UTF-8, and cut where it is too long for something to be added to it."""
    from auditor.core.files import readable

    name = readable(Path(path).name)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return f"{name.encode()[: _LONGEST_NAME - 13].decode('utf-8', 'ignore')}~{digest}"


def _free(out: Path, stem: str, used_paths: set[str]) -> Path:
    """A path in the folder that no file has but a picture of an earlier run."""
    from auditor.core.writable_paths import may_replace

    where, n = out / f"{stem}.png", 1
    while os.path.realpath(where) in used_paths or (
        os.path.lexists(where) and not (_is_evidence(where) and may_replace(where))
    ):
        n += 1
        where = out / f"{stem}.{n}.png"
    return where


def _is_evidence(path: Path) -> bool:
    from auditor.core.errors import DataError
    from auditor.core.files import read_regular
    from auditor.detection.detection_record import LARGEST_PICTURE
    from auditor.detection.heat_map import is_evidence
    from auditor.judging.png import decode

    try:
        return not path.is_symlink() and is_evidence(decode(read_regular(path, "The picture"), LARGEST_PICTURE))
    except (DataError, ValueError):
        return False


def _with_note(result: FileResult, note: str) -> FileResult:
    from auditor.detection.detection_record import MOST_NOTES

    return result.model_copy(update={"notes": (note, *result.notes)[:MOST_NOTES]}) if note else result


# ---- text ----------------------------------------------------------------------------------------------------------


def _answer(result: FileResult) -> str:
    return "unread" if result.error else "" if result.verdict is None else result.verdict.answer


def _print_table(results: Sequence[tuple[str, FileResult]], pictures: dict[str, str]) -> None:
    from auditor.report.record.number_text import visible
    from cli.terminal import print_table

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    rows = []
    for path, result in results:
        verdict, provenance = result.verdict, result.provenance
        rows.append(
            (
                path,
                result.medium or "",
                _answer(result),
                cell(verdict.probability if verdict else None),
                cell(verdict.p_real if verdict else None),
                cell(verdict.p_fake if verdict else None),
                cell(verdict.novelty if verdict else None),
                provenance.credentials.state if provenance.credentials else provenance.credentials_unread,
                "; ".join(_claims(provenance)),
                "; ".join(map(_statement_text, provenance.statements)) or provenance.statements_unread,
                pictures.get(path, ""),
                result.error or (verdict.reason if verdict else ""),
                " ".join(
                    [
                        *result.notes,
                        *([f"The evidence is {_unreliable_reason(result)}."] if _unreliable_reason(result) else []),
                    ]
                ),
            )
        )
    print_table(_COLUMNS, [[visible(text) for text in row] for row in rows])


def _print_files(
    results: Sequence[tuple[str, FileResult]], detectors: Sequence[DetectorRecord], pictures: dict[str, str]
) -> None:
    for path, result in results:
        _print_file(path, result, detectors, pictures.get(path))
        typer.echo("")


def _print_file(path: str, result: FileResult, detectors: Sequence[DetectorRecord], picture: str | None) -> None:
    from auditor.report.record.number_text import visible
    from cli.terminal import coloured, paragraph

    answer = _answer(result)
    verdict = result.verdict
    head = coloured(f"{answer.upper() or 'NOT ASKED':<14}", _COLOURS[answer])
    kind = ", ".join(filter(None, (result.form, result.medium)))
    guess = ""
    if verdict is not None and verdict.probability is not None:
        between = f" [{verdict.low:.2f}, {verdict.high:.2f}]" if verdict.low is not None else ""
        guess = f"  probability of synthetic {verdict.probability:.2f}{between}"
    typer.echo(f"{head} {visible(path)}{f'  ({kind})' if kind else ''}{guess}")
    for line in (result.error, verdict.reason if verdict is not None else "", *result.notes):
        if line:
            typer.echo(paragraph(visible(line), 12))
    if verdict is not None:
        card = detectors[0].card if len(detectors) == 1 else None
        said = []
        if verdict.p_real is not None and verdict.p_fake is not None:
            said.append(f"p-values: real {verdict.p_real:.3f}, fake {verdict.p_fake:.3f}")
        if verdict.novelty is not None and card is not None and card.novelties:
            p = card.p_known(verdict.novelty)
            said.append(f"of a kind it knows: p {p:.3f}, unsupported at {card.novelty_rate:g}")
        if said:
            typer.echo(f"{'':12}{'; '.join(said)}")
    for part in result.parts:
        typer.echo(
            paragraph(visible(f"{_OF_PART[part.medium]:<10}{part.verdict.answer}: {_grounds(part.verdict)}"), 12)
        )
    if not result.error or result.form:
        _print_provenance(result.provenance)
    if result.heat_map is not None and picture is not None:
        held = _unreliable_reason(result)
        typer.echo(paragraph(f"evidence  {visible(picture)}{f'; {held}' if held else ''}", 12))


def _grounds(verdict: FileVerdict) -> str:
    if verdict.p_real is None or verdict.p_fake is None:
        return verdict.reason
    return f"p-values: real {verdict.p_real:.3f}, fake {verdict.p_fake:.3f}. {verdict.reason}"


def _unreliable_reason(result: FileResult) -> str:
    """Why a file's evidence is not to be relied on; "" where it may be, or there is none."""
    if result.heat_map is None or result.heat_map.earned:
        return ""
    unsupported = result.verdict is not None and result.verdict.probability is None
    why = "the score of an unsupported file means nothing" if unsupported else "random parts move the score as far"
    return f"{_UNRELIABLE}: {why}"


def _print_provenance(provenance: FileProvenance) -> None:
    from auditor.report.record.number_text import visible
    from cli.terminal import paragraph

    signed = provenance.credentials
    if signed is not None:
        typer.echo(paragraph(visible(f"signed    {_signed(signed)}"), 12))
        for claim in _claims(provenance):
            typer.echo(paragraph(visible(f"claims    {claim}"), 12))
        for failure in signed.failures:
            typer.echo(paragraph(visible(f"failed    {failure}"), 12))
    elif provenance.credentials_unread:
        typer.echo(paragraph(visible(f"signed    {provenance.credentials_unread}"), 12))
    for statement in provenance.statements[:_MOST_SHOWN]:
        typer.echo(paragraph(visible(f"says      {_statement_text(statement)}"), 12))
    if len(provenance.statements) > _MOST_SHOWN:
        typer.echo(f"{'':12}says      and {len(provenance.statements) - _MOST_SHOWN} more: see --json")
    if provenance.statements_unread:
        typer.echo(paragraph(visible(f"says      {provenance.statements_unread}"), 12))
    if not (signed or provenance.statements or provenance.credentials_unread or provenance.statements_unread):
        typer.echo(f"{'':12}says      nothing of its making")


def _signed(signed: Credentials) -> str:
    of = f" of {signed.issuer}" if signed.issuer else ""
    by = f"{signed.signer or 'an unnamed certificate'}{of}"
    when = f" on {signed.signed_at}" if signed.signed_at else ""
    said = f"C2PA, {signed.standing}: by {by}{when}"
    if signed.standing == "intact, signer unknown":
        why = "no authority named by --trust-anchors vouches for it" if signed.anchored else "no --trust-anchors"
        said += f", as its own certificate says and anybody's can ({why})"
    return f"{said}; time stamp: {signed.time_stamp}"


_NOT_VOUCHED = {"trusted": "", "not valid": "NOT VALID: "}


def _claims(provenance: FileProvenance) -> list[str]:
    """What signed credentials claim of how the file was made, marked where nobody known stands behind it."""
    signed = provenance.credentials
    if signed is None:
        return []
    found = [
        f"{action.action}"
        + (f" with {action.software}" if action.software else "")
        + (f", {action.digital_source_type}: {action.origin}" if action.digital_source_type else "")
        for action in signed.actions[:_MOST_SHOWN]
    ]
    found += [f"written by {signed.claim_generator}"] if signed.claim_generator else []
    return [_NOT_VOUCHED.get(signed.standing, "SIGNER UNKNOWN: ") + claim for claim in found]


def _statement_text(statement: Statement) -> str:
    from auditor.report.record.number_text import shortened

    value = shortened(" ".join(statement.value.split()), 80)
    meant = statement.points_to or (f"that is, {statement.origin}" if statement.origin else "")
    return f"{statement.where} {statement.name} = {value}" + (f" ({meant})" if meant else "")


def _explained(detectors: Sequence[AskedDetector], *, with_evidence: bool = False) -> Iterator[str]:
    """What each detector is, how often it is known to err, and how an answer is to be read."""
    for each in detectors:
        from auditor.detection.detector_calibration import channel_lines

        known, card = each.known, each.known.card
        kinds = f", trained on {', '.join(card.kinds[:8])}" if card.kinds else ""
        more = f" and {len(card.kinds) - 8} more" if len(card.kinds) > 8 else ""
        yield (
            f"detector  {each.path} for {MEDIA[known.medium]}{kinds}{more}; calibrated on {known.n_real:,} real and "
            f"{known.n_fake:,} synthetic files, either ruled out at an error rate of {card.error_rate:g}"
        )
        for line in rate_lines(card.known_rates):
            yield f"known     {line}"
        for line in channel_lines(card):
            yield f"channel   {line}"
        if not card.knows_another_collection:
            yield f"known     {UNMEASURED}"
    from auditor.evidence.detection_evidence import READING

    if with_evidence:
        from auditor.detection.heat_map import LEGEND

        yield f"evidence  {LEGEND}"
    yield f"reading   {READING}"


def _of_batch(batch: BatchShift | None) -> Iterator[str]:
    """Whether the files asked together are like those known to be real."""
    if batch is None:
        return
    if batch.alarm:
        yield (
            f"ALARM     these {batch.n:,} files are not like the files known to be real (p = {batch.p_value:.2g}): "
            "they came another way, or many of them are fake; none of them is called fake"
        )
    elif batch.visible:
        yield (
            f"batch     no sign that these {batch.n:,} files came another way (p = {batch.p_value:.2g}), which is no "
            "proof that they did not"
        )
    else:
        these = "one file" if batch.n == 1 else f"{batch.n:,} files"
        yield f"batch     whether {these} came another way than those known to be real, so few cannot show"


def rate_lines(rates: Sequence[KnownRate]) -> Iterator[str]:
    """Known error rates of a detector: on training kinds, on other kinds, and on the worst of those."""
    for unseen, words in ((False, "on new files of kinds it knows"), (True, "over kinds left out of training")):
        if line := _pooled_line(rates, unseen=unseen):
            yield f"{words}: {line}"
    by_kind = [rate for rate in rates if rate.kind is not None and rate.unseen and rate.metric == "equal_error_rate"]
    if by_kind:
        worst = max(by_kind, key=lambda rate: rate.value)
        yield f"worst of {len(by_kind)} kinds left out: {worst.kind}, equal error rate {with_interval(worst)}"
    for name in dict.fromkeys(rate.collection for rate in rates if rate.collection is not None):
        yield f"on the collection {name}, left out whole: {_collection_line(rates, name)}"
    if not rates:
        yield "nothing: no error rate was measured when it was made"


def _pooled_line(rates: Sequence[KnownRate], *, unseen: bool) -> str:
    """The rates over all kinds together, seen in training or not; empty where none was measured."""
    pooled = {
        rate.metric: rate for rate in rates if rate.kind is None and rate.collection is None and rate.unseen is unseen
    }
    parts = [f"{name} {with_interval(pooled[metric])}" for metric, name in _SHOWN.items() if metric in pooled]
    if unseen and all(answer in pooled for answer in ANSWERS):
        parts.append(f"answered: {answer_shares(pooled)}")
    return ", ".join(parts)


def _collection_line(rates: Sequence[KnownRate], name: str) -> str:
    own = {rate.metric: rate for rate in rates if rate.collection == name}
    return ", ".join(
        f"{with_interval(own[metric])} of its {what} files called fake"
        for metric, what in (("false_positive_rate", "real"), ("true_positive_rate", "synthetic"))
        if metric in own
    )


def answer_shares(rates: Mapping[str, KnownRate]) -> str:
    """The answers on synthetic files of unseen kinds, as shares with intervals."""
    from auditor.models.detector_card import METRIC_OF

    shares = [f"{answer} {with_interval(rates[metric])}" for answer, metric in METRIC_OF.items()]
    return f"{', '.join(shares)} ({rates[ANSWERS[0]].n_fake:,} synthetic files)"


def with_interval(rate: KnownRate) -> str:
    """The value to two digits and its interval."""
    between = "" if rate.low is None or rate.high is None else f" [{rate.low:.2f}, {rate.high:.2f}]"
    return f"{rate.value:.2f}{between}"


def _ending(results: Sequence[tuple[str, FileResult]], code: int, *, any_detector: bool) -> str:
    counts = {answer: sum(_answer(result) == answer for _, result in results) for answer in _COLOURS}
    if not any_detector:
        unread = f", {counts['unread']} of them unread," if counts["unread"] else ""
        these = "this file is" if len(results) == 1 else f"these {len(results)} files{unread} are"
        return (
            f"exit {code}: no detector was named (--detector): whether {these} synthetic is said by none but themselves"
        )
    said = ", ".join(f"{n} {answer}" for answer, n in counts.items() if n)
    return f"exit {code}: {said}" + ("; what is not found fake is not thereby real" if code else "")
