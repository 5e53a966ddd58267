"""``auditor gradient-inversion``: a test whether single client updates leak their training images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import AuditorError, UsageError, first_line
from cli.flags import JsonAlone, Tracebacks
from cli.terminal import paragraph

if TYPE_CHECKING:
    from auditor.privacy.federated.inversion_audit import Attempt, ClientTask, InversionAudit

_EXIT = {"stopped": 0, "gives_away": 1, "cannot_tell": 3}


def gradient_inversion(
    task: Annotated[str, typer.Argument(help="Your function: package.module:function. It runs with your rights.")],
    clip: Annotated[float | None, typer.Option(help="Clipping norm of an update, before it is sent.")] = None,
    noise: Annotated[float, typer.Option(help="Noise added by a client, in clipping norms.")] = 0.0,
    local_steps: Annotated[int, typer.Option(help="Local SGD steps of a client.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of a client.")] = 0.1,
    batch: Annotated[int, typer.Option(help="Number of images per client.")] = 1,
    updates: Annotated[int, typer.Option(help="Number of updates to attack.")] = 5,
    others: Annotated[
        int, typer.Option(help="Number of images with the same label to rank a client's image among.")
    ] = 99,
    steps: Annotated[int, typer.Option(help="Gradient descent steps of the attack.")] = 200,
    restarts: Annotated[int, typer.Option(help="Number of random initial images.")] = 1,
    alpha: Annotated[
        float, typer.Option(help="False positive rate: how often harmless updates may be reported as leaking.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of the random draws and of the noise.")] = 0,
    json_: JsonAlone = False,
    debug: Tracebacks = False,
) -> int:
    """Test whether client updates leak training images, by reconstructing images from single updates.

    Your function returns a ClientTask: a network, images and labels, and optionally the update that a client sends.
    It runs in this process, with your rights. Exit codes: 0 the attack reconstructs images from plain updates but not
    from those sent, 1 updates leak their images, 2 wrong usage, 3 the attack fails on plain updates too, 4 too few
    images.
    """
    import numpy as np

    from auditor.loading.user_code import import_object
    from auditor.privacy.federated.inversion_attacks import ClientStep, Effort
    from auditor.privacy.federated.inversion_audit import Defence, audit_updates

    step = ClientStep(local_steps=local_steps, learning_rate=learning_rate)
    defence = Defence(clipping_norm=clip, noise_multiplier=noise)
    effort = Effort(steps=steps, restarts=restarts)
    result = audit_updates(
        _task(import_object(task, str(Path.cwd()), "TASK")),
        rng=np.random.default_rng(seed),
        step=step,
        defence=defence,
        effort=effort,
        updates=updates,
        batch=batch,
        others=others,
        alpha=alpha,
    )
    if json_:
        typer.echo(json.dumps(_as_json(result), indent=2))
    else:
        _print(result)
    return _EXIT[result.verdict]


def _task(function: Any) -> ClientTask:
    from auditor.privacy.federated.inversion_audit import ClientTask

    try:
        found = function()
    except AuditorError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise or exit in any way
        raise UsageError(f"The function raised {type(error).__name__}: {first_line(error)}.") from error
    if not isinstance(found, ClientTask):
        raise UsageError(
            f"The function returned {type(found).__name__}: return a ClientTask of "
            "auditor.privacy.federated.inversion_audit."
        )
    return found


def _print(result: InversionAudit) -> None:
    typer.echo(f"sent        {_ranks(result.attempts, result)}")
    if result.plain is not None:
        typer.echo(f"plain       {_ranks(result.plain, result)}")
    typer.echo(f"verdict     {result.verdict.replace('_', ' ').upper()}")
    typer.echo(paragraph(result.reason[0].upper() + result.reason[1:], 12))


def _ranks(attempts: tuple[Attempt, ...], result: InversionAudit) -> str:
    each = ", ".join(f"{one.rank + 1} ({one.similarity:.2f} by {one.method})" for one in attempts)
    return f"place of the client's image among {result.others + 1} by likeness, of each update: {each}"


def _as_json(result: InversionAudit) -> dict[str, object]:
    plain = None if result.plain is None else [dict(vars(one)) for one in result.plain]
    return dict(vars(result)) | {"attempts": [dict(vars(one)) for one in result.attempts], "plain": plain}
