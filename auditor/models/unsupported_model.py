"""A loaded model that no probe supports, with the reason for each probe."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from auditor.core.errors import ModelError
from auditor.models.audited_model import AuditedModel, Provenance


class OtherModel(AuditedModel):
    """A network for a task other than classes, numbers or text likelihoods; ``what`` names it in words."""

    kind = "other"

    def __init__(self, module: nn.Module, *, description: str, provenance: Provenance | None = None) -> None:
        super().__init__(self._no_answer, classes=(), provenance=provenance)
        self.module = module
        self.what = description

    def _no_answer(self, X: Any) -> NoReturn:
        raise ModelError(f"This model is {self.what}, which gives no classes: ask it through --predict.")
