"""The measuring process, which auditor.run.sandbox.start begins: does its job and answers, or says why not."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from auditor.errors import AuditorError, DataError, ModelError, UsageError
from auditor.intake.limits import restrict
from auditor.intake.own_packages import claim_own_packages
from auditor.intake.result import resolve_device
from auditor.intake.specs import Job
from auditor.report.sandbox_state import SandboxState
from auditor.run.protocol import Channel, Confined, Done, Refused
from auditor.run.sandbox.enter import refuse_code


def serve(job: Job, descriptor: int, sandbox: SandboxState) -> None:
    """Does the job and answers on the descriptor; ``sandbox`` is what :mod:`auditor.run.sandbox.start` has entered."""
    channel = Channel(descriptor)
    channel.send(Confined(state=sandbox))
    # Before the limits are set, which count what is mapped by then.
    work = _work_of(job)
    try:
        refuse_code(job, sandbox)
        claim_own_packages()
        job = replace(job, model=replace(job.model, device=resolve_device(job.model.device)))
        restrict(job)
        if job.model.code_folder is not None:
            sys.path.append(job.model.code_folder)
        work(job, channel)
    except UsageError as error:
        _refuse(channel, "usage", error)
    except DataError as error:
        _refuse(channel, "data", error)
    except ModelError as error:
        _refuse(channel, "model", error)
    else:
        channel.send(Done())


def _work_of(job: Job) -> Callable[[Job, Channel], None]:
    """What does the job: who trains on a table waits for nothing that an audit imports."""
    if job.table_training is not None:
        from auditor.run.table_training import train

        return train
    from auditor.run.child import run

    return run


def _refuse(channel: Channel, code: Literal["usage", "data", "model"], error: AuditorError) -> None:
    # Into the process's own output, which --debug shows.
    traceback.print_exception(error)
    channel.send(Refused(code=code, reason=str(error)))
