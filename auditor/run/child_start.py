"""The first steps of the sandboxed process, ``python -I -m auditor.run.child_start DESCRIPTOR``.

It reads the job from the first line of standard input and enters the sandbox before torch, numpy or anything of the
user's is opened: their threads are born inside. A model file that its bytes alone refuse is refused before they are
imported.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path

from pydantic import TypeAdapter

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.loading.formats import FORMATS, Opened, refuse_early
from auditor.loading.import_finders import claim_own_packages, without_drawing
from auditor.loading.job_specs import Job, answers_apart
from auditor.loading.sandbox.enter_sandbox import enter, refuse_code
from auditor.loading.sandbox.resource_limits import follow, restrict, within_memory
from auditor.run.job_channel import Channel, Confined, Done, Refused


def main() -> None:
    """Answer on the descriptor that the first argument names."""
    # What is imported stays, and looking through it for garbage takes a fifth of the time: serve turns this back.
    gc.disable()
    job = jobs().validate_json(sys.stdin.buffer.readline())
    follow(job.parent)
    channel = Channel(int(sys.argv[1]))
    try:
        state = enter(job, Path.cwd(), to_fork=answers_apart(job))
        channel.send(Confined(state=state))
        refuse_code(job, state)
        with within_memory(job):
            opened = first_look(job)
    except (UsageError, ModelError) as error:
        channel.send(Refused.from_error(error))
        return
    # Only now, so that what these imports start is inside too.
    for name in {name for each in opened for name in FORMATS[each.format].first_imports}:
        import_module(name)
    serve(job, channel, opened)


@cache
def jobs() -> TypeAdapter[Job]:
    """The parser of jobs, whose construction takes longer than one parse."""
    return TypeAdapter(Job)


def first_look(job: Job) -> list[Opened]:
    """The model's file, if the job has one; a detector's file is read again by its loader."""
    recorded = job.data is not None and job.data.recorded is not None
    if recorded or job.detector_training is not None or job.table_training is not None:
        return []
    opened = refuse_early(job.model)
    return [] if opened is None or job.detection is not None else [opened]


def serve(job: Job, channel: Channel, model_files: list[Opened]) -> None:
    """Do the job; ``model_files`` contains the model's file if already opened, and is emptied."""
    from auditor.models.torch_context import resolve_device

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


if __name__ == "__main__":
    main()
