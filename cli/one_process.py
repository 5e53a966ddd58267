"""Commands that work in one process, and say so where a launcher starts several."""

from __future__ import annotations

import os

from auditor.errors import UsageError


def refuse_a_job(command: str) -> None:
    """Raises UsageError in a process of ``torchrun`` or ``accelerate launch``: each would do the same work again."""
    n = os.environ.get("WORLD_SIZE", "1").strip()
    if n.isdigit() and int(n) > 1:
        raise UsageError(
            f"auditor {command} works in one process, and WORLD_SIZE says {n}: start it without torchrun or accelerate "
            "launch; several devices train together from Python (auditor examples copy several_devices)."
        )
