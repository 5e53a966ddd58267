"""Evidence on the command line: what a scan leaves for a stranger, and what the stranger does with it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.errors import DataError, UsageError
from cli.output import coloured, paragraph

if TYPE_CHECKING:
    from auditor.evidence.bundle import Evidence
    from auditor.evidence.log import ChainedLog
    from auditor.evidence.verify import Verified
    from auditor.isolate import Measured
    from auditor.probe import Probe
    from auditor.report.record import AuditReport
    from auditor.specs import Job
    from cli.options import Configured, ScanOptions

# Their numbers follow from a model's answers, its decisions and the groups: nothing else is asked of the model.
FROM_ANSWERS = ("group_fairness", "adverse_impact", "score_fairness", "regression_fairness")
_MOST_SHOWN = 20
_STATES = {"ok": "PASS", "wrong": "FAIL", "not checked": "INCONCLUSIVE"}
_WORDS = {"ok": "ok", "wrong": "WRONG", "not checked": "NOT CHECKED"}
# What a bundle of somebody else's may not make this machine do by itself.
_RUNS_CODE = ("trust_pickle", "allow_code", "predict", "probe", "architecture")
_OF_THIS_RUN = (
    "out", "format", "json_", "quiet", "debug", "bundle", "sign", "include_rows", "redact", "history", "db",
    "max_memory", "registration",
)  # fmt: skip


# ---- writing ---------------------------------------------------------------------------------------------------------


def check_flags(options: ScanOptions) -> None:
    """Raises UsageError, before any work, where a flag of the bundle has no bundle, or the key cannot sign."""
    given = {"--sign": options.sign, "--include-rows": options.include_rows, "--redact": options.redact}
    for flag, value in given.items():
        if value and options.bundle is None:
            raise UsageError(f"{flag} says something about the evidence bundle: add --bundle FILE.")
    if options.include_rows and options.redact:
        raise UsageError("--include-rows puts every row's groups into the bundle, --redact takes rows out: give one.")
    if options.bundle is not None and Path(options.bundle).is_dir():
        raise UsageError(f"--bundle {options.bundle!r} is a folder: name a file, such as audit.zip.")
    if options.bundle is not None:
        _check_writable(Path(options.bundle).parent)
    if options.sign is not None:
        from auditor.evidence.signing import load_private_key

        load_private_key(Path(options.sign))


def _check_writable(folder: Path) -> None:
    """Found out before the work, not after it."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise UsageError(f"Cannot write the bundle into {str(folder)!r}: {error.strerror}.") from None


def start_log(job: Job) -> ChainedLog:
    """The log of a scan that begins."""
    from auditor import __version__
    from auditor.evidence.log import ChainedLog
    from auditor.passwords import without_passwords

    log = ChainedLog()
    command = [without_passwords(word) for word in sys.argv[1:]]
    log.add("started", tool=f"responsible-auditor {__version__}", command=command, seed=job.seed)
    return log


def write_evidence(configured: Configured, job: Job, measured: Measured, report: AuditReport, log: ChainedLog) -> str:
    """Writes the bundle of a scan; returns its path."""
    from auditor.evidence.bundle import write_bundle
    from auditor.evidence.signing import load_private_key

    options = configured.options
    if options.bundle is None:
        raise UsageError("Name the bundle with --bundle FILE.")
    key = None if options.sign is None else load_private_key(Path(options.sign))
    write_bundle(options.bundle, _evidence(configured, job, measured, report, log), key=key, redact=options.redact)
    return options.bundle


def _evidence(configured: Configured, job: Job, measured: Measured, report: AuditReport, log: ChainedLog) -> Evidence:
    from auditor.evidence.bundle import Evidence
    from auditor.evidence.manifest import code_digests
    from auditor.finding import Family

    for result in measured.results:
        became = "not run" if result.not_run else "not applicable" if result.not_applicable else "answered"
        log.add(became, probe=result.probe, measurements=len(result.measurements), seconds=round(result.duration_s, 3))
    log.add("judged", **report.summary.model_dump(by_alias=True))
    options = configured.options
    own = [name for name in (options.predict, options.architecture, *options.probe) if name and ":" in name]
    try:
        answers = measured.answers()
    except DataError:
        answers = None  # what came over the pipe was not what it said: verification says that there are none
    return Evidence(
        report=report,
        results=measured.results,
        criteria=configured.criteria,
        family=Family(error_rate=options.error_rate, multiplicity=options.multiplicity),
        request=request_of(configured),
        log=log,
        answers=answers,
        counts=measured.counts,
        code=code_digests(own, None if job.model.code_folder is None else Path(job.model.code_folder)),
    )


def request_of(configured: Configured) -> dict[str, object]:
    """The flags and options of a scan as they were given: enough to run it again."""
    options = configured.options.model_dump(mode="json", exclude_unset=True, exclude=set(_OF_THIS_RUN))
    return {"options": options, "probe_options": configured.probe_options}


# ---- verify ----------------------------------------------------------------------------------------------------------


def keygen(
    out: Annotated[Path, typer.Argument(help="Where to write the private key; the public one gets .pub.")] = Path(
        "auditor.key"
    ),
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Make an Ed25519 key to sign bundles and decisions with."""
    from auditor.evidence.signing import make_key

    mark = make_key(out)
    typer.echo(f"private  {out}  (mode 0600: keep it to yourself)")
    typer.echo(f"public   {out}.pub  (give it to whoever shall check your signatures)")
    typer.echo(f"sha256   {mark}")


def verify(
    bundle: Annotated[Path, typer.Argument(help="An evidence bundle: audit.zip.")],
    key: Annotated[list[Path] | None, typer.Option(help="Public key of whom you trust; repeat for more.")] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Exit 0 where only the signer is not known.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Check an evidence bundle without model, data or torch, and recompute every number in it.

    Exit codes: 0 everything agrees, 1 something does not, 3 something could not be checked, such as who signed it; 4 it
    is no bundle.
    """
    from auditor.evidence.signing import load_public_key
    from auditor.evidence.verify import verify_bundle

    found = verify_bundle(bundle, stored_probe, trusted=[load_public_key(path) for path in key or ()])
    if json_:
        typer.echo(json.dumps(_as_json(found), indent=2, ensure_ascii=False))
    else:
        _print_verified(bundle, found)
    unsettled = [c for c in found.checks if c.state == "not checked"]
    if allow_unsigned:
        unsettled = [c for c in unsettled if c.name != "signature"]
    code = 1 if found.wrong else 3 if unsettled else 0
    if not json_:
        words = {
            0: "everything in the bundle agrees",
            1: "the bundle does not agree with itself: do not rely on it",
            3: "nothing disagrees, but not everything could be checked",
        }
        typer.echo(f"exit {code}: {words[code]}")
    return code


def stored_probe(name: str, options: Mapping[str, Any]) -> Probe | None:
    """A probe whose numbers follow from stored answers, with the options it had; None for all others.

    Raises ConfigError for options that are none.
    """
    from auditor.probe import make_probe
    from probes import PROBES

    return make_probe(PROBES[name], dict(options)) if name in FROM_ANSWERS else None


def _as_json(found: Verified) -> dict[str, object]:
    return {
        "checks": [{"name": c.name, "state": c.state, "detail": c.detail} for c in found.checks],
        "from_rows": sorted(found.from_rows),
        "from_tables": sorted(found.from_tables),
    }


def _print_verified(path: Path, found: Verified) -> None:
    from auditor.report.text import count, visible

    typer.echo(f"bundle  {visible(str(path))}")
    report = found.report
    if report is not None:
        typer.echo(
            f"audit   {visible(report.created)}: {visible(report.model.path or 'a model in memory')} on "
            f"{visible(report.data.path or 'no data')} ({count(report.data.n_rows)} rows), exit {report.exit_code}"
        )
    typer.echo()
    for check in found.checks:
        label = coloured(f"{_WORDS[check.state]:<12}", _STATES[check.state])
        typer.echo(paragraph(f"{label} {visible(check.name)}: {visible(check.detail)}", 0))
    if report is not None:
        numbers = [f.id for f in report.findings if f.value is not None]
        rows, tables = (sum(i in ids for i in numbers) for ids in (found.from_rows, found.from_tables))
        typer.echo()
        typer.echo(
            paragraph(
                f"Of {len(numbers):,} numbers, {rows:,} were counted anew from the model's answers row by row, "
                f"{tables:,} from the tables of groups, and {len(numbers) - rows - tables:,} recomputed from the "
                "statistics that the bundle states of them: for those, auditor reproduce asks the model itself.",
                0,
            )
        )
        told = [name for name in ("decisions", "registration", "controls") if getattr(report, name, None)]
        if told:
            typer.echo(paragraph(f"The record's {', '.join(told)} are as it states them; nothing recomputes them.", 0))


# ---- reproduce -------------------------------------------------------------------------------------------------------


def reproduce(
    bundle: Annotated[Path, typer.Argument(help="An evidence bundle: audit.zip.")],
    model: Annotated[str | None, typer.Option(help="The model, where it lies elsewhere than then.")] = None,
    data: Annotated[str | None, typer.Option(help="The evaluation rows, where they lie elsewhere.")] = None,
    train: Annotated[str | None, typer.Option(help="The training rows, where they lie elsewhere.")] = None,
    tolerance: Annotated[float, typer.Option(help="By how much a value may differ, as a share of it.")] = 1e-6,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run code that the bundle's own flags name, and unpickle.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...; as then by default.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Memory for the measuring process, such as 8GiB.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Run a bundle's audit again on the model and the data, and compare.

    Exit codes: 0 the same numbers and outcomes, 1 others, 3 another model or other data than then, or another version
    of the code; 4 it is no bundle.
    """
    from auditor.evidence.archive import read_archive, unpack
    from auditor.evidence.manifest import RECORD, REQUEST, RESULTS

    if not 0.0 <= tolerance < 1.0:
        raise UsageError(f"--tolerance {tolerance:g} must be a share from 0 to below 1.")
    _check_whole(bundle)
    entries = unpack(read_archive(bundle), bundle.name)
    for name in (RECORD, REQUEST, RESULTS):
        if name not in entries:
            raise DataError(f"{bundle.name!r} has no {name}: it is no evidence bundle, or that part was taken out.")
    own = {"model": model, "data": data, "train": train, "device": device, "max_memory": max_memory}
    configured = configured_again(entries[REQUEST], entries[RESULTS], own, allow_code=allow_code)
    then = _record(entries[RECORD], bundle.name)
    return _compared(then, _run_again(configured), tolerance, as_json=json_)


def _check_whole(bundle: Path) -> None:
    """What does not agree with itself is not worth running again. Raises DataError."""
    from auditor.evidence.verify import verify_bundle

    wrong = [check for check in verify_bundle(bundle, stored_probe).checks if check.state == "wrong"]
    if wrong:
        raise DataError(
            f"{bundle.name!r} does not agree with itself ({wrong[0].name}: {wrong[0].detail}): auditor verify says all."
        )


def configured_again(request: bytes, results: bytes, own: Mapping[str, str | None], *, allow_code: bool) -> Configured:
    """The scan that a bundle asks for, on one's own files. Raises DataError, UsageError where it would run code."""
    from pydantic import ValidationError

    from auditor.evidence.manifest import ASKED
    from cli.options import Configured, ScanOptions

    try:
        said = json.loads(request)
        options = dict(said["options"]) | {name: value for name, value in own.items() if value is not None}
        asked = ASKED.validate_json(results)
        code = [name for name in _RUNS_CODE if options.get(name)]
        if code and not allow_code:
            raise UsageError(
                f"That audit ran code of its own (--{code[0].replace('_', '-')}): look at it, and add --allow-code."
            )
        return Configured(
            ScanOptions.model_validate(options),
            {str(k): dict(v) for k, v in said["probe_options"].items()},
            asked.criteria,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if own.get(name) is not None:
            said = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"--{name.replace('_', '-')} {own[name]!r}: {said}.") from None
        raise DataError(f"The bundle's request cannot be read: {name}: {first['msg']}.") from None
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"The bundle's request cannot be read: {type(error).__name__}.") from None


def _record(content: bytes, name: str) -> AuditReport:
    from auditor.report.record import AuditReport

    try:
        return AuditReport.from_json(content)
    except DataError as error:
        raise DataError(f"{name!r}: {error}") from None


def _run_again(configured: Configured) -> AuditReport:
    from auditor.isolate import measure
    from cli.output import stages
    from cli.scan import build_job, make_report, pillars

    started = time.perf_counter()
    job = build_job(configured)
    with stages(True) as shown:
        shown.total = len(job.probes) + 2
        measured = measure(job, pillars(), on_stage=shown)
    return make_report(configured, job, measured, time.perf_counter() - started)


def _compared(then: AuditReport, now: AuditReport, tolerance: float, *, as_json: bool) -> int:
    from auditor.report.text import visible

    if now.refusal is not None and then.refusal is None:
        raise DataError(f"It cannot be run again here: {now.refusal.reason}")
    other = _other_circumstances(then, now)
    wrong = _other_findings(then, now, tolerance)
    same = sum(f.id not in wrong for f in then.findings)
    code = 1 if wrong else 3 if other else 0
    if as_json:
        said = {"same": same, "different": wrong, "circumstances": other, "tolerance": tolerance, "exit_code": code}
        typer.echo(json.dumps(said, indent=2, ensure_ascii=False))
        return code
    for line in other:
        typer.echo(paragraph(f"{coloured('OTHER', 'INCONCLUSIVE')}  {visible(line)}", 0))
    for name, line in list(wrong.items())[:_MOST_SHOWN]:
        typer.echo(paragraph(f"{coloured('WRONG', 'FAIL')}  {visible(name)}: {visible(line)}", 0))
    if len(wrong) > _MOST_SHOWN:
        typer.echo(f"       and {len(wrong) - _MOST_SHOWN:,} more; --json names all.")
    typer.echo(f"{same:,} findings came out the same, to {tolerance:g} of their value; {len(wrong):,} did not.")
    words = {0: "the audit is reproduced", 1: "it is not reproduced", 3: "the same numbers, in other circumstances"}
    typer.echo(f"exit {code}: {words[code]}")
    return code


def _other_circumstances(then: AuditReport, now: AuditReport) -> list[str]:
    """What differs between the two runs that may explain other numbers."""
    pairs = (
        ("the model", then.model.sha256, now.model.sha256),
        ("the data", then.data.sha256, now.data.sha256),
        ("the training data", then.data.train_sha256, now.data.train_sha256),
        ("the version of auditor", then.tool.get("version"), now.tool.get("version")),
    )
    found = [f"{what}: {str(a)[:16]} then, {str(b)[:16]} now" for what, a, b in pairs if a != b]
    a, b = then.environment.packages, now.environment.packages
    found += [
        f"{name} {a.get(name, 'absent')} then, {b.get(name, 'absent')} now"
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]
    if then.environment.device != now.environment.device:
        found.append(f"the device: {then.environment.device} then, {now.environment.device} now")
    return found


def _other_findings(then: AuditReport, now: AuditReport, tolerance: float) -> dict[str, str]:
    """What came out otherwise, in words, by the finding's id."""
    import math

    mine = {f.id: f for f in now.findings}
    found: dict[str, str] = {}
    for said in then.findings:
        again = mine.pop(said.id, None)
        if again is None:
            found[said.id] = "was not measured again"
            continue
        a, b = said.value, again.value
        if (a is None) != (b is None) or (
            a is not None and b is not None and not math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)
        ):
            found[said.id] = f"{_shown(a)} then, {_shown(b)} now"
        elif said.outcome is not again.outcome:
            found[said.id] = f"{said.outcome.value} then, {again.outcome.value} now ({_shown(a)})"
    return found | dict.fromkeys(mine, "was not measured then")


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"
