"""The outcome of a request as data: an answer, or the reason for its absence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from auditor.core.errors import ModelError, first_line
from auditor.models.endpoint.api_messages import Answer, Request
from auditor.models.endpoint.client import BudgetSpentError, RefusedError

# Statuses that say nothing of the request itself: another try may be answered.
_PASSING = frozenset({401, 403, 408, 409, 425, 429})


@dataclass(frozen=True)
class Outcome:
    """``failed``: the reason for a missing answer; ``status``: HTTP status or 0; ``spent``: no calls were left."""

    answer: Answer | None = None
    failed: str = ""
    status: int = 0
    spent: bool = False

    @classmethod
    def from_error(cls, error: ModelError) -> Outcome:
        """The outcome that corresponds to an error of the client."""
        status = error.status if isinstance(error, RefusedError) else 0
        return cls(
            failed=f"{first_line(error)[:500].rstrip('.')}.", status=status, spent=isinstance(error, BudgetSpentError)
        )

    @property
    def settled(self) -> bool:
        """Whether the same request would have the same outcome: an answer, or a refusal of the request itself."""
        return self.answer is not None or (400 <= self.status < 500 and self.status not in _PASSING)

    def answer_or_raise(self) -> Answer:
        """The answer; raises the client's RefusedError, BudgetSpentError or ModelError if there is none."""
        if self.answer is not None:
            return self.answer
        if self.spent:
            raise BudgetSpentError(self.failed)
        raise RefusedError(self.failed, self.status) if self.status else ModelError(self.failed)


Ask = Callable[[Sequence[Request]], list[Outcome]]
