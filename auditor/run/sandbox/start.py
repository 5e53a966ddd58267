"""The first steps of the measuring process, ``python -I -m auditor.run.sandbox.start DESCRIPTOR``.

It reads the job from standard input and enters the sandbox before torch, numpy or anything of the user's is opened:
their threads are born inside.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import TypeAdapter

from auditor.intake.limits import follow
from auditor.intake.specs import Job
from auditor.run.sandbox.enter import enter


def main() -> None:
    """Answers on the descriptor that the first argument names."""
    job = TypeAdapter(Job).validate_json(sys.stdin.buffer.read())
    follow(job.parent)
    state = enter(job, Path.cwd())
    # Only now, so that what these imports start is inside too.
    from auditor.run.serve import serve

    serve(job, int(sys.argv[1]), state)


if __name__ == "__main__":
    main()
