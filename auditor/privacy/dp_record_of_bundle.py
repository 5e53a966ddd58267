"""The private training run recorded in a model bundle, read in a child process: the parent loads no model."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import AuditorError, ModelError
from auditor.loading.job_specs import Job, Limits, ModelSpec
from auditor.loading.sandbox.enter_sandbox import enter
from auditor.loading.sandbox.measuring_process import scratch_folder
from auditor.loading.sandbox.resource_limits import follow, restrict

if TYPE_CHECKING:
    from auditor.privacy.run_record import RunRecord

# Of processor time; the wall time only ends what hangs.
_SECONDS = 120
_LONGEST_WALL = 30.0 * _SECONDS
_MEMORY = 4 << 30
_MOST_BYTES = 1 << 20


def read_bundle(path: str | Path) -> RunRecord:
    """The private run in a model file, loaded with limits in a separate process, with a validated answer.

    Raises ModelError where the file is refused, records no private training, or the process dies.
    """
    from auditor.privacy.run_record import parse_run

    file = Path(path).resolve()
    with scratch_folder() as scratch, tempfile.TemporaryFile() as answer:
        environment = {k: os.environ[k] for k in ("PATH", "LANG", "LD_LIBRARY_PATH") if k in os.environ}
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-I",
                    "-m",
                    "auditor.privacy.dp_record_of_bundle",
                    str(file),
                    str(os.getpid()),
                    str(_SECONDS),
                ],
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                cwd=scratch,
                env=environment | {"HOME": scratch, "TMPDIR": scratch, "OMP_NUM_THREADS": "1"},
                timeout=_LONGEST_WALL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"{file.name!r} did not load within {_LONGEST_WALL:g} s: it hangs.") from None
        if done.returncode == -signal.SIGXCPU:
            raise ModelError(f"{file.name!r} took more than {_SECONDS} s of processor time to load.")
        answer.seek(0)
        raw = answer.read(_MOST_BYTES)
    try:
        said = json.loads(raw)
        problem, record = said["error"], said["record"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"Loading {file.name!r} did not end well (code {done.returncode}).") from None
    if problem is not None:
        raise ModelError(str(problem)[:2000])
    return parse_run(record, file.name)


def _main() -> None:
    path, parent, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    spec = ModelSpec(path=path, device="cpu")
    limits = Limits(memory_bytes=_MEMORY, seconds=_LONGEST_WALL)
    job = Job(model=spec, data=None, probes=(), seed=0, limits=limits, parent=parent)
    follow(job.parent)
    enter(job, Path.cwd())
    # Only now, so that what these imports start is in the sandbox too.
    from auditor.loading.formats import load_model
    from auditor.privacy.run_record import run_of_model

    restrict(job)
    try:
        record = run_of_model(load_model(spec), Path(path).name)
    except AuditorError as error:
        print(json.dumps({"error": str(error), "record": None}))
    else:
        print(json.dumps({"error": None, "record": record.model_dump(mode="json", exclude_none=True)}))


if __name__ == "__main__":
    _main()
