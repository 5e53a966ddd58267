"""From a path to a model, safely: what a file is, is read from its content, and nothing in it runs unless a flag says so."""

from __future__ import annotations

from auditor.intake.formats import identify, load_model
from auditor.intake.result import intake_result, resolve_device
from auditor.specs import ModelSpec

__all__ = ["ModelSpec", "identify", "intake_result", "load_model", "resolve_device"]
