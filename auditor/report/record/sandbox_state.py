"""The confinement of the sandboxed process; imports no NumPy, whose threads would start outside the sandbox."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auditor.core.files import Closed
from auditor.core.number_types import Count


class SandboxState(Closed):
    """The kernel mechanisms that confined the measuring process.

    ``landlock``: the version of its interface, 0 where it was not on. ``seccomp``: whether system calls were denied.
    ``why``: why a layer was not on, "" where both were.
    """

    landlock: Count = 0
    seccomp: bool = False
    why: Annotated[str, Field(max_length=500)] = ""

    @property
    def is_confined(self) -> bool:
        """Whether both mechanisms were active: neither alone is a sandbox."""
        return self.landlock > 0 and self.seccomp

    def describe(self) -> str:
        """The active mechanisms, and the reason for each inactive one."""
        layers = [f"Landlock {self.landlock}"] if self.landlock else []
        layers += ["seccomp"] if self.seccomp else []
        if self.is_confined:
            return " and ".join(layers)
        return f"none{f', {layers[0]} alone' if layers else ''}: {self.why}"
