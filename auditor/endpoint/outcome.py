"""What became of a request, for whoever did not make the call: an answer, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from auditor.endpoint.client import BudgetSpentError, RefusedError
from auditor.endpoint.messages import Answer, Request
from auditor.errors import ModelError, first_line

# Statuses that say nothing of the request itself: another try may be answered.
_PASSING = frozenset({401, 403, 408, 409, 425, 429})


@dataclass(frozen=True)
class Outcome:
    """``failed``: why there is no answer; ``status``: that of HTTP, 0 where none came; ``spent``: no call was left."""

    answer: Answer | None = None
    failed: str = ""
    status: int = 0
    spent: bool = False

    @classmethod
    def of(cls, error: ModelError) -> Outcome:
        """What an error of the client's comes to."""
        status = error.status if isinstance(error, RefusedError) else 0
        return cls(
            failed=f"{first_line(error)[:500].rstrip('.')}.", status=status, spent=isinstance(error, BudgetSpentError)
        )

    @property
    def settled(self) -> bool:
        """Whether the same request would have the same outcome: an answer, or a refusal of the request itself."""
        return self.answer is not None or (400 <= self.status < 500 and self.status not in _PASSING)

    def given(self) -> Answer:
        """The answer; RefusedError, BudgetSpentError or ModelError, as the client raised it, where there is none."""
        if self.answer is not None:
            return self.answer
        if self.spent:
            raise BudgetSpentError(self.failed)
        raise RefusedError(self.failed, self.status) if self.status else ModelError(self.failed)


Ask = Callable[[Sequence[Request]], list[Outcome]]
