"""The first steps of the sandboxed process, ``python -I -m auditor.run.child_start DESCRIPTOR``.

It reads the job from the first line of standard input and enters the sandbox before torch, numpy or anything of the
user's is opened: their threads are born inside. A model file that its bytes alone refuse is refused before they are
imported.
"""

from __future__ import annotations

import gc
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

from pydantic import TypeAdapter

from auditor.core.errors import ModelError, UsageError
from auditor.loading.formats import FORMATS, Opened, refuse_early
from auditor.loading.job_specs import Job, answers_apart
from auditor.loading.sandbox.enter_sandbox import enter, refuse_code
from auditor.loading.sandbox.resource_limits import follow, within_memory
from auditor.run.job_channel import Channel, Confined, Refused


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
    from auditor.run.child_entry import serve

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


if __name__ == "__main__":
    main()
