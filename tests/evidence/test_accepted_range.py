"""What an acceptance accepts: from what is required, or the ideal, up to its value, and no end where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from auditor.core.errors import UsageError
from auditor.evidence.history.signed_decisions import _range
from auditor.judging.criterion import Criterion
from auditor.report.record.audit_report import Finding
from tests.report.samples import sample_report


def finding(direction: Any = None, bound: Any = None, ideal: float | None = None) -> Finding:
    own = None
    if direction is not None:
        own = Criterion(metric="m", direction=direction, bound=bound, source="-", set_by="-", set_at="-")
    return sample_report().findings[0].model_copy(update={"criterion": own, "ideal": ideal})


@pytest.mark.parametrize(
    ("found", "value", "accepted"),
    [
        (finding("at_most", 0.1), 0.3, (None, 0.3)),
        (finding("at_least", 0.8), 0.6, (0.6, None)),
        (finding("within", (0.4, 0.6)), 0.7, (0.4, 0.7)),
        (finding("within", (0.4, 0.6)), 0.1, (0.1, 0.6)),
        (finding("at_most", 0.1), 0.1, (None, 0.1)),
        (finding(ideal=0.0), 0.2, (0.0, 0.2)),
        (finding(ideal=1.0), 0.7, (0.7, 1.0)),
    ],
)
def test_the_range_reaches_from_what_is_required_to_the_value(
    found: Finding, value: float, accepted: tuple[float | None, float | None]
) -> None:
    assert _range(found, value) == accepted


@pytest.mark.parametrize(
    ("found", "words"),
    [(finding("at_most", 0.1), "meets what is required"), (finding(), "neither a bound nor an ideal")],
)
def test_there_must_be_something_worse_to_accept(found: Finding, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _range(found, 0.05)
