"""The sandboxed process, started by auditor.run.child_start: does its job and returns results or the error."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.loading.formats import Opened
from auditor.loading.import_finders import claim_own_packages, without_drawing
from auditor.loading.job_specs import Job, answers_apart
from auditor.loading.sandbox.resource_limits import restrict
from auditor.models.networks.select_device import resolve_device
from auditor.run.job_channel import Channel, Done, Refused


def serve(job: Job, channel: Channel, model_files: list[Opened]) -> None:
    """Do the job; ``model_files`` contains the model's file if already opened, and is emptied."""
    # Before the limits are set, which count what is mapped by then.
    work = _work_of(job, model_files)
    gc.freeze()
    gc.enable()
    try:
        claim_own_packages()
        without_drawing()
        with _code_apart(job, model_files):
            job = replace(job, model=replace(job.model, device=resolve_device(job.model.device)))
            restrict(job, held_bytes=sum(len(each.source.data) for each in model_files))
            work(job, channel)
    except (UsageError, DataError, ModelError) as error:
        # Into the process's own output, which --debug shows.
        traceback.print_exception(error)
        last: Refused | Done = Refused.from_error(error)
    else:
        last = Done()
    # Whoever reads the last message ends this process, and what it has printed would be lost.
    sys.stdout.flush()
    sys.stderr.flush()
    channel.send(last)


def _code_apart(job: Job, model_files: list[Opened]) -> AbstractContextManager[None]:
    if not answers_apart(job):
        return nullcontext()
    from auditor.loading.sandbox.answering_process import answering_apart

    return answering_apart(job, Path.cwd(), model_files)


def _work_of(job: Job, model_files: list[Opened]) -> Callable[[Job, Channel], None]:
    """What does the job: who trains on a table waits for nothing that an audit imports."""
    if job.table_training is not None:
        from auditor.run.table_training import train

        return train
    from auditor.run.child_jobs import run

    return partial(run, model_files=model_files)
