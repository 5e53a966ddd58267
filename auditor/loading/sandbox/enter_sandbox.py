"""Entering the sandbox, and the refusals if no sandbox is available."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from pathlib import Path

from auditor.core.errors import UsageError
from auditor.loading.job_specs import Job, flag_of_code
from auditor.loading.sandbox import landlock, seccomp
from auditor.loading.sandbox.allowed_paths import accelerators, places_of
from auditor.report.record.sandbox_state import SandboxState

ASKED = "--allow-unsandboxed"


def enter(job: Job, scratch: Path, *, version: int | None = None) -> SandboxState:
    """Confine this process permanently to the job's needs, and return the active mechanisms.

    To be called before anything of the user's is opened, and while there is one thread: Landlock binds the thread that
    calls it and what that starts. ``no_new_privs`` must be set. ``scratch``: the folder that it works in. ``version``:
    of Landlock's interface, where it is not to be the newest. Where the job goes without, its process still cannot
    leave its group, by which it is killed.
    """
    if sys.platform != "linux":
        return SandboxState(why=f"{sys.platform} has none that this tool knows")
    if job.allow_unsandboxed:
        if seccomp.supported():
            with suppress(OSError):
                seccomp.stay_in_group()
        return SandboxState(why=f"{ASKED} was given")
    known = landlock.version() if version is None else version
    why = [] if known else ["this kernel has no Landlock, or it is turned off"]
    with_devices = bool(accelerators(job))
    try:
        if known:
            landlock.restrict(places_of(job, scratch), known)
    except OSError as error:
        known = 0
        why.append(f"this system does not allow {error.strerror}")
    denies = seccomp.supported()
    try:
        if denies:
            seccomp.install(with_devices=with_devices)
        else:
            why.append(f"the system calls of {platform.machine()} are not known to this tool")
    except OSError as error:
        denies = False
        why.append(f"this system does not allow {error.strerror}")
    return SandboxState(landlock=known, seccomp=denies, why="; ".join(why))


def refuse_code(job: Job, state: SandboxState) -> None:
    """Raise UsageError if the job would run code of the file or the user without confinement."""
    if state.is_confined or job.allow_unsandboxed:
        return
    flag = flag_of_code(job)
    if flag is not None:
        raise UsageError(
            f"{flag} runs code, and there is no kernel sandbox to run it in: {state.why}. Leave it out, or add {ASKED} "
            "to run it with your rights."
        )
