"""``auditor scan-data``: rows audited before there is a model, as ``auditor scan`` audits a model."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.flags import with_flags


@with_flags(
    [
        "target", "sensitive", "bins", "sensitive_file", "join_on", "text", "features", "classes", "copies_are_real",
        "probes", "policy", "as_of", "error_rate", "multiplicity", "allow_inconclusive", "no_controls", "seed", "out",
        "format", "history", "db", "bundle", "sign", "timestamp", "max_memory", "max_seconds", "allow_unsandboxed",
        "lang", "quiet", "json_", "debug",
    ],
    {
        "target": "Column with the labels.",
        "text": "Column of texts, where each row is one.",
        "features": "Columns that a model will take: a,b,c; all others by default.",
        "policy": "Acceptance criteria: a profile or a TOML file; auditor-data-1 by default.",
    },
)  # fmt: skip
def scan_data(
    flag_values: dict[str, object],
    train: Annotated[
        str, typer.Argument(help="Rows that a model is to learn from: CSV, Parquet, JSON Lines, or a folder of media.")
    ],
    test: Annotated[str | None, typer.Option(help="Rows that a model is to be measured on.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Table of the shares that groups should have: sex,share; see representation.")
    ] = None,
    croissant: Annotated[
        str | None, typer.Option(help="Croissant metadata, whose statements are held against the rows.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of a probe: probe.option=value.")] = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration file; without it ./audit.toml may only select what is measured.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every finding with its reason and notes.")] = False,
) -> int:
    """Audit rows before there is a model: who is in them, what repeats, what gives the label or a group away.

    Runs the probes that need rows alone; those that need a model are NOT_APPLICABLE, and are counted only. Exit codes:
    as of scan.
    """
    from auditor.loading.sandbox.measuring_process import measuring_process

    # Before all else that is imported here: it imports meanwhile.
    with measuring_process() as waiting:
        from auditor.run.api import rows_alone
        from cli.scan import run
        from cli.scan_request import configure
        from probes import PROBES

        named = {"shares": reference, "croissant": croissant}
        configured = rows_alone(configure(flag_values, config, set_ or []), PROBES, train, test, named)
        return run(configured, waiting, verbose=verbose, debug=configured.options.debug)
