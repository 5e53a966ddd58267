"""From a path to a model, safely: a file is what its content says, and nothing in it runs unless a flag allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditor.intake.specs import ModelSpec

if TYPE_CHECKING:
    from auditor.intake.formats import identify, load_model
    from auditor.intake.result import intake_result, resolve_device

__all__ = ["ModelSpec", "identify", "intake_result", "load_model", "resolve_device"]


def __getattr__(name: str) -> object:
    # Readers of tables and benchmarks lie in this package too, and the command line must reach them without torch.
    if name in ("identify", "load_model"):
        from auditor.intake import formats

        return getattr(formats, name)
    if name in ("intake_result", "resolve_device"):
        from auditor.intake import result

        return getattr(result, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
