"""How many rows lack what, as the audit counted them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from auditor.files import LEFT_OUT, UNSAID, Closed

MOST_COLUMNS = 100
_Count = Annotated[int, Field(ge=0)]


class Missing(Closed):
    """Rows without a value: ``labels`` of the target, None where there is none; ``features``, by column.

    ``n_features``: how many columns the model takes, None where a row is none of columns, such as a text; of those with
    holes the ``MOST_COLUMNS`` with the most are listed, and ``more`` says how many others there are.
    """

    labels: Annotated[_Count | None, UNSAID] = None
    n_features: Annotated[_Count | None, UNSAID] = None
    features: Annotated[dict[str, _Count], Field(max_length=MOST_COLUMNS), LEFT_OUT] = Field(default_factory=dict)
    more: Annotated[_Count, LEFT_OUT] = 0

    @classmethod
    def of(cls, labels: int | None, features: Mapping[str, int] | None) -> Missing:
        """Those of a target and of every column that the model takes, 0 of one without holes."""
        holes = sorted(((name, n) for name, n in (features or {}).items() if n), key=lambda pair: (-pair[1], pair[0]))
        return cls(
            labels=labels,
            n_features=None if features is None else len(features),
            features=dict(holes[:MOST_COLUMNS]),
            more=max(0, len(holes) - MOST_COLUMNS),
        )
