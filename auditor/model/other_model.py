"""A model that loads and that no probe asks: what it is, for the reason of each."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from auditor.errors import ModelError
from auditor.model.audited_model import AuditedModel, Provenance


class OtherModel(AuditedModel):
    """A network of another task than classes, numbers or the likelihood of texts; ``what`` says which, in words."""

    kind = "other"

    def __init__(self, module: nn.Module, *, what: str, provenance: Provenance | None = None) -> None:
        super().__init__(self._no_answer, classes=(), provenance=provenance)
        self.module = module
        self.what = what

    def _no_answer(self, X: Any) -> NoReturn:
        raise ModelError(f"This model is {self.what}, which gives no classes: ask it through --predict.")
