"""``auditor evidence reproduce``: repetition of a bundle's audit, and the comparison with it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import DataError, UsageError
from cli.flags import AllowUnsandboxed, AsJson, MaxMemory, Tracebacks
from cli.terminal import coloured, paragraph
from cli.verify import stored_probe

if TYPE_CHECKING:
    from auditor.report.record.audit_report import AuditReport
    from auditor.run.scan_options import Configured

_MOST_SHOWN = 20
# What a bundle of somebody else's may not make this machine do by itself.


def reproduce(
    bundle: Annotated[Path, typer.Argument(help="An evidence bundle: audit.zip.")],
    model: Annotated[str | None, typer.Option(help="Path of the model, if it was moved.")] = None,
    data: Annotated[str | None, typer.Option(help="Path of the evaluation rows, if they were moved.")] = None,
    train: Annotated[str | None, typer.Option(help="Path of the training rows, if they were moved.")] = None,
    tolerance: Annotated[float, typer.Option(help="Relative tolerance for differences of values.")] = 1e-6,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run code named in the bundle's flags, and unpickle.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...; by default that of the audit.")] = None,
    max_memory: MaxMemory = None,
    allow_unsandboxed: AllowUnsandboxed = False,
    json_: AsJson = False,
    debug: Tracebacks = False,
) -> int:
    """Run a bundle's audit again on the model and the data, and compare.

    Exit codes: 0 the same numbers and outcomes, 1 other ones, 3 model, data or version of the code have changed;
    4 the file is not a bundle.
    """
    from auditor.evidence.container import read_archive, unpack
    from auditor.evidence.manifest import RECORD, REQUEST, RESULTS

    if not 0.0 <= tolerance < 1.0:
        raise UsageError(f"--tolerance {tolerance:g} must be a share from 0 to below 1.")
    _check_whole(bundle)
    entries = unpack(read_archive(bundle), bundle.name)
    for name in (RECORD, REQUEST, RESULTS):
        if name not in entries:
            raise DataError(f"{bundle.name!r} has no {name}: it is no evidence bundle, or that part was taken out.")
    own: dict[str, object] = {"model": model, "data": data, "train": train, "device": device, "max_memory": max_memory}
    own["allow_unsandboxed"] = allow_unsandboxed or None
    configured = configured_again(entries[REQUEST], entries[RESULTS], own, allow_code=allow_code)
    then = _record(entries[RECORD], bundle.name)
    return _report_comparison(then, _run_again(configured), tolerance, as_json=json_)


def _check_whole(bundle: Path) -> None:
    """What does not agree with itself is not worth running again. Raises DataError."""
    from auditor.evidence.verify.verify_bundle import verify_bundle

    wrong = [check for check in verify_bundle(bundle, stored_probe).checks if check.state == "wrong"]
    if wrong:
        raise DataError(
            f"{bundle.name!r} does not agree with itself ({wrong[0].name}: {wrong[0].detail}): auditor evidence "
            "verify says all."
        )


def configured_again(
    request: bytes, results: bytes, user_values: Mapping[str, object], *, allow_code: bool
) -> Configured:
    """The scan requested in a bundle, on the user's own files.

    Raises DataError, UsageError where it would run code.
    """
    from pydantic import ValidationError

    from auditor.evidence.manifest import ASKED
    from auditor.run.scan_options import Configured, ScanOptions, flags

    try:
        said = json.loads(request)
        # What is of one run is for whoever runs it again to say, not for the bundle.
        then = {
            name: value
            for name, value in said["options"].items()
            if name not in flags() or not flags()[name].of_one_run
        }
        options = then | {name: value for name, value in user_values.items() if value is not None}
        asked = ASKED.validate_json(results)
        code = [name for name, flag in flags().items() if flag.runs_code and then.get(name)]
        if code and not allow_code:
            raise UsageError(
                f"That audit ran code of its own (--{code[0].replace('_', '-')}): look at it, and add --allow-code."
            )
        return Configured(
            ScanOptions.from_values(options),
            {str(k): dict(v) for k, v in said["probe_options"].items()},
            asked.criteria,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if user_values.get(name) is not None:
            said = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"--{name.replace('_', '-')} {user_values[name]!r}: {said}.") from None
        raise DataError(f"The bundle's request cannot be read: {name}: {first['msg']}.") from None
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"The bundle's request cannot be read: {type(error).__name__}.") from None


def _record(content: bytes, name: str) -> AuditReport:
    from auditor.report.record.audit_report import AuditReport

    try:
        return AuditReport.from_json(content)
    except DataError as error:
        raise DataError(f"{name!r}: {error}") from None


def _run_again(config: Configured) -> AuditReport:
    from auditor.run.scan import job_of, scan_job
    from cli.report_outputs import command_line
    from cli.terminal import stages
    from probes import PROBES

    started = time.perf_counter()
    job = job_of(config, PROBES)
    with stages(True) as shown:
        shown.total = len(job.probes) + 2
        return scan_job(config, job, PROBES, started, command=command_line(), on_stage=shown).report


def _report_comparison(original: AuditReport, rerun: AuditReport, tolerance: float, *, as_json: bool) -> int:
    from auditor.report.record.number_text import visible

    if rerun.refusal is not None and original.refusal is None:
        raise DataError(f"It cannot be run again here: {rerun.refusal.reason}")
    other = _other_circumstances(original, rerun)
    wrong = _other_findings(original, rerun, tolerance)
    same = sum(f.id not in wrong for f in original.findings)
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


def _other_circumstances(original: AuditReport, rerun: AuditReport) -> list[str]:
    """What differs between the two runs that may explain other numbers."""
    pairs = (
        ("the model", original.model.sha256, rerun.model.sha256),
        ("the data", original.data.sha256, rerun.data.sha256),
        ("the training data", original.data.train_sha256, rerun.data.train_sha256),
        ("the favourable label", original.data.positive, rerun.data.positive),
        ("the version of auditor", original.tool.get("version"), rerun.tool.get("version")),
    )
    found = [f"{what}: {str(a)[:16]} then, {str(b)[:16]} now" for what, a, b in pairs if a != b]
    a, b = original.environment.packages, rerun.environment.packages
    found += [
        f"{name} {a.get(name, 'absent')} then, {b.get(name, 'absent')} now"
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]
    if original.model.dtype != rerun.model.dtype:
        found.append(f"the numbers it is computed in: {original.model.dtype} then, {rerun.model.dtype} now")
    if original.environment.device != rerun.environment.device:
        found.append(f"the device: {original.environment.device} then, {rerun.environment.device} now")
    return found


def _other_findings(original: AuditReport, rerun: AuditReport, tolerance: float) -> dict[str, str]:
    """What came out otherwise, in words, by the finding's id."""
    mine = {f.id: f for f in rerun.findings}
    found: dict[str, str] = {}
    for said in original.findings:
        again = mine.pop(said.id, None)
        if again is None:
            found[said.id] = "was not measured again"
            continue
        a, b = said.value, again.value
        if (a is None) != (b is None) or (
            a is not None and b is not None and not math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)
        ):
            found[said.id] = f"{_value_text(a)} then, {_value_text(b)} now"
        elif said.outcome is not again.outcome:
            found[said.id] = f"{said.outcome.value} then, {again.outcome.value} now ({_value_text(a)})"
    return found | dict.fromkeys(mine, "was not measured then")


def _value_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"
