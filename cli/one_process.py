"""Refusal of multi-process launchers for commands that run in one process."""

from __future__ import annotations

import os

from auditor.core.errors import UsageError


def refuse_a_job(command: str) -> None:
    """Raise UsageError in a process of ``torchrun`` or ``accelerate launch``: each would repeat the same work."""
    n = os.environ.get("WORLD_SIZE", "1").strip()
    if n.isdigit() and int(n) > 1:
        raise UsageError(
            f"auditor {command} works in one process, and WORLD_SIZE says {n}: start it without torchrun or accelerate "
            "launch; several devices train together from Python (auditor examples copy several_devices)."
        )
