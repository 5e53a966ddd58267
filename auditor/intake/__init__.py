"""From a path to a model, safely: a file is what its content says, and nothing in it runs unless a flag allows it."""

from __future__ import annotations

from auditor.intake.formats import identify, load_model
from auditor.intake.result import intake_result, resolve_device
from auditor.intake.specs import ModelSpec

__all__ = ["ModelSpec", "identify", "intake_result", "load_model", "resolve_device"]
