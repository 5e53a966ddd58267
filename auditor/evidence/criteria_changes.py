"""Requirements of two audits: equal, changed, or present in one audit only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from auditor.judging.criterion import CriterionRecord

Pair = tuple[CriterionRecord | None, CriterionRecord | None]


def changed_criteria(
    before: Sequence[CriterionRecord], after: Sequence[CriterionRecord]
) -> Iterator[tuple[str, CriterionRecord | None, CriterionRecord | None]]:
    """Differences: their topic in words, and the requirement before and after, None if absent."""
    then, now = _by_subject(before), _by_subject(after)
    for subject in dict.fromkeys((*then, *now)):
        for a, b in _differing(then.get(subject, []), now.get(subject, [])):
            yield subject, a, b


def _differing(a: Sequence[CriterionRecord], b: Sequence[CriterionRecord]) -> list[Pair]:
    """Criteria of one subject in pairs: equal ones first, so that an added one is not taken for a changed one."""
    rest_a, rest_b = list(a), list(b)
    for criterion in a:
        # One for one: a requirement that stands twice takes two shares of the error rate.
        if criterion in rest_b:
            rest_a.remove(criterion)
            rest_b.remove(criterion)
    n = max(len(rest_a), len(rest_b))
    return [(rest_a[i] if i < len(rest_a) else None, rest_b[i] if i < len(rest_b) else None) for i in range(n)]


def _by_subject(criteria: Sequence[CriterionRecord]) -> dict[str, list[CriterionRecord]]:
    found: dict[str, list[CriterionRecord]] = {}
    for c in criteria:
        parts = [
            f"of {c.probe}" if c.probe else "",
            f"by {c.method}" if c.method else "",
            f"between groups of {' x '.join(sorted(c.sensitive))}" if c.sensitive else "",
            f"of {', '.join(f'{k} = {v}' for k, v in sorted(c.group.items()))}" if c.group else "",
            c.place,
        ]
        found.setdefault(" ".join([c.metric, *(p for p in parts if p)]), []).append(c)
    return found
