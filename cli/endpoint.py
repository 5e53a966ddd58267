"""``auditor probes endpoint``: the handling of request parameters by the server behind a URL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import UsageError
from cli.flags import JsonAlone, Tracebacks
from cli.terminal import coloured, paragraph, stages

if TYPE_CHECKING:
    from auditor.models.endpoint.server_findings import Capability, Handshake

_SEED = 0
# What hundreds of forward passes of a large model take.
_MOST_SECONDS = 7_200.0
_OUTCOMES = {"proven": "PASS", "refuted": "FAIL", "could not tell": "INCONCLUSIVE"}


def endpoint(
    url: Annotated[str, typer.Argument(help="Root of an OpenAI-compatible server: http://127.0.0.1:8000/v1.")],
    model_name: Annotated[str, typer.Option(help="Name of the model on this server.")],
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable that contains the API key; the key itself is never an argument."),
    ] = None,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Allow texts to be sent to another machine; else the URL must be local."),
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Folder of the audited language model, to compare with the served one.")
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(help="Maximum total variation distance from the reference: 0.1.", show_default=False),
    ] = None,
    max_calls: Annotated[
        int | None,
        typer.Option(help="Maximum number of calls: 200, or 1000 with --reference.", show_default=False),
    ] = None,
    more_calls: Annotated[
        int, typer.Option(help="Number of short calls before the check that the same model still answers.", min=0)
    ] = 0,
    concurrency: Annotated[int, typer.Option(help="Number of concurrent calls.")] = 4,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for each call.")] = 120.0,
    json_: JsonAlone = False,
    debug: Tracebacks = False,
) -> int:
    """Probe the capabilities of a model server: which request parameters it obeys, and which it only accepts.

    Exit codes: 0 every capability is proven, 1 a parameter is accepted but not obeyed, 2 wrong usage, 3 none is,
    but something is refused or inconclusive, 4 no compatible server answers.
    """
    from auditor.loading.job_specs import Limits as OfAProcess
    from auditor.models.endpoint.client import Client, Limits, address_of, key_of
    from auditor.models.endpoint.session import shake_hands
    from auditor.run.endpoint_reference import with_reference
    from auditor.run.scan_options import ScanOptions

    address = address_of(url, allow_remote=allow_remote)
    _check(reference, within)
    most = max_calls if max_calls is not None else 200 if reference is None else 1_000
    limits = Limits(max_calls=most, concurrency=concurrency, seconds=max_seconds)
    with Client(address, model_name, key_of(api_key_env), limits) as client, stages(not json_) as shown:
        found = shake_hands(client, more_calls=more_calls, on_stage=shown)
        if reference is not None:
            own = OfAProcess(memory_bytes=ScanOptions().max_memory, seconds=_MOST_SECONDS)
            found = with_reference(client, found, str(reference), own, seed=_SEED, within=within, on_stage=shown)
    if json_:
        typer.echo(json.dumps(_as_json(found), indent=2))
    else:
        _print(found)
    return found.exit_code


def _check(reference: Path | None, within: float | None) -> None:
    from auditor.run.endpoint_reference import check_reference

    if reference is not None:
        check_reference(str(reference))
    if within is not None and reference is None:
        raise UsageError("--within says how near the served model is to be to a reference: add --reference FOLDER.")
    if within is not None and not 0.0 < within < 1.0:
        raise UsageError(f"--within {within:g} must lie between 0 and 1.")


def _print(handshake: Handshake) -> None:
    from auditor.report.record.number_text import visible

    typer.echo(visible(f"endpoint  {handshake.url}, model {handshake.model}: {handshake.calls} calls"))
    for each in handshake.capabilities:
        shown = f"{each.name:<17} {each.shown.value}{': accepted, and not done' if each.accepted else ''}"
        typer.echo(coloured(visible(shown), _OUTCOMES[each.shown.value]))
        typer.echo(paragraph(visible(each.why), 4))
    typer.echo(f"exit {handshake.exit_code}: {_ending(handshake)}")


def _ending(handshake: Handshake) -> str:
    if handshake.ignored:
        return f"{len(handshake.ignored)} of {len(handshake.capabilities)} capabilities are accepted and not done"
    return "every capability is proven" if handshake.exit_code == 0 else "something is refused or could not be told"


def _as_json(handshake: Handshake) -> dict[str, object]:
    return {
        "url": handshake.url,
        "model": handshake.model,
        "calls": handshake.calls,
        "capabilities": [_capability(each) for each in handshake.capabilities],
        "exit_code": handshake.exit_code,
    }


def _capability(capability: Capability) -> dict[str, object]:
    return {
        "name": capability.name,
        "shown": capability.shown.value,
        "accepted_and_ignored": capability.accepted,
        "why": capability.why,
    }
