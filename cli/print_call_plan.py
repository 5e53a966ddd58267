"""``auditor scan URL --dry-run``: how many calls and tokens a scan of a server takes, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from auditor.core.errors import UsageError
from auditor.models.endpoint.client import is_endpoint
from cli.scan_request import configure

if TYPE_CHECKING:
    from auditor.models.endpoint.call_plan import PlannedEndpoint
    from auditor.run.scan_options import Configured

_MILLION = 1e6


def print_plan(
    flag_values: Mapping[str, object],
    config: str | None,
    settings: Sequence[str],
    prices: tuple[float | None, float | None] | None,
) -> int:
    """Print the settings of a scan, or with ``prices``, which may be None each, its calls of a server; 0."""
    configured = configure(dict(flag_values), config, list(settings))
    if prices is not None:
        _print_calls(configured, *prices)
        return 0
    from cli.audit_plan import show_config

    show_config(configured, flag_values, settings)
    return 0


def _print_calls(config: Configured, price_in: float | None, price_out: float | None) -> None:
    """Ask a stand-in for the server what the probes ask, and print what that comes to.

    ``price_in``, ``price_out``: of a million tokens that are sent, and that are written. Raises UsageError where the
    model is at no server, or one of two prices is missing.
    """
    from auditor.models.endpoint.call_plan import planned_endpoint
    from auditor.models.endpoint.session import Servers
    from auditor.run.scan import job_of, rows_at_hand, scan_job
    from probes import PROBES

    options = config.options
    served, judged = is_endpoint(options.model) and options.model_name is not None, is_endpoint(options.judge)
    if not served and (options.model is not None or not judged):
        raise UsageError("--dry-run plans the calls of a server: give its URL and --model-name NAME.")
    if (price_in is None) != (price_out is None):
        raise UsageError("A price is of both: give --price-in and --price-out, each of a million tokens.")
    thinking = options.thinking_tokens
    endpoint = planned_endpoint(str(options.model), str(options.model_name), thinking) if served else None
    judge = planned_endpoint(str(options.judge), str(options.judge_name), thinking) if judged else None
    servers = Servers(model=endpoint, judge=judge)
    with rows_at_hand(config) as (asked, _):
        scan_job(asked, job_of(asked, PROBES, servers), PROBES, time.perf_counter(), servers=servers)
    if endpoint is not None:
        _print_server(endpoint, options.max_calls, price_in, price_out)
    if judge is not None:
        own = (price_in, price_out) if endpoint is None else (None, None)
        typer.echo("The judge:" if endpoint is None else "The judge, at prices of its own:")
        _print_server(judge, options.max_calls, *own)
    typer.echo("Nothing was sent. Planned for a chat; a token is taken to be four bytes, and further tries cost more.")


def _print_server(server: PlannedEndpoint, max_calls: int, price_in: float | None, price_out: float | None) -> None:
    calls, sent, written = server.own_calls, 0, 0
    typer.echo(f"{'handshake':<24} about {calls:>7,} calls, of a few tokens each")
    for name, plan in server.planned.items():
        calls, sent, written = calls + plan.calls, sent + plan.tokens_in, written + plan.tokens_out
        past = "" if calls <= max_calls else f"   past --max-calls {max_calls:,}"
        typer.echo(_line(name, "", plan.calls, plan.tokens_in, plan.tokens_out) + past)
    typer.echo(_line("together", "about", calls, sent, written))
    if price_in is not None and price_out is not None:
        price = (sent * price_in + written * price_out) / _MILLION
        typer.echo(f"price at most about {price:,.4g}")


def _line(name: str, about: str, calls: int, sent: int, written: int) -> str:
    return f"{name:<24} {about:<5} {calls:>7,} calls, about {sent:,} tokens sent, at most {written:,} written"
