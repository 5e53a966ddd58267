"""Notable findings without a limit, for the first page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from auditor.core.files import Number
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.question_texts import earlier_questions, question_of, questions_of

# Where a number was taken: at which expected share of those named who are named wrongly.
WRONGLY_NAMED = "false_discovery_rate"


def unbounded_findings(report: AuditReport, *, on_page: Collection[str]) -> list[Finding]:
    """Numbers without a limit that significantly differ from their ideal: exposed persons first.

    Rows named at a stated error rate; headline numbers; and of each probe without any that is not ``on_page`` already,
    the number that lies furthest from its ideal.
    """
    # What is judged of several attacks together is bounded, and so are they.
    bounded = {(f.probe, f.metric) for f in report.findings if f.criterion is not None}
    # Of whole sentences who is named decides most: the score of what is said given that speaks for both.
    bounded |= {
        (f.probe, f.metric.removeprefix("conditional_"))
        for f in report.findings
        if f.metric is not None and f.metric.startswith("conditional_")
    }
    candidates = [f for f in report.findings if _has_ideal(f)]
    looked_at = Counter(f.probe for f in candidates)
    largest: dict[str, Finding] = {}
    # The size of a fault before a skill that no model has whole.
    for f in sorted(candidates, key=lambda f: (f.ideal != 0.0, -_distance(f))):
        if f.method == "scoring_rate" or not _leaves_out(f.interval or (None, None), f.ideal or 0.0):
            continue
        if names_rows(f):
            largest.setdefault(f"{f.probe} rows", f)
        elif (f.probe, f.metric) in bounded and not f.sensitive:
            continue
        elif _is_headline(report, f):
            largest.setdefault(f"{f.probe}/{f.metric}", f)
        elif (
            f.probe not in on_page
            and not any(q.headline for q in questions_of(report, f.probe))
            and _stands_out(f, looked_at[f.probe])
        ):
            largest.setdefault(f.probe, f)
    return sorted(largest.values(), key=lambda f: _people_first(report, f))


def names_rows(f: Finding) -> bool:
    """Whether it counts training rows identifiable at a low false discovery rate; false for shares of them."""
    counted = f.pillar == "privacy" and WRONGLY_NAMED in f.at and f.value is not None and f.value >= 1.0
    return counted and f.outcome is Outcome.NOT_JUDGED and not f.doubtful


def _has_ideal(f: Finding) -> bool:
    """Whether it is a number of all rows that nobody judged, and has a value that it should have."""
    return f.outcome is Outcome.NOT_JUDGED and not f.group and f.ideal is not None and f.metric is not None


def _is_headline(report: AuditReport, f: Finding) -> bool:
    question = question_of(report, f.probe, f.metric)
    # Of many numbers of a kind the one that matters: the score, what is decided by it, the plainest test.
    matters = not f.at or f.at.get("from") == "score" or set(f.at) == {"test"}
    return matters and question is not None and f.metric in question.headline


def _stands_out(f: Finding, n: int) -> bool:
    """Whether a number leaves its ideal that was picked among ``n``, and nothing is said against reading it."""
    if f.reason or f.doubtful or f.estimate is None or f.confidence is None or f.ideal is None:
        return False
    return _leaves_out(f.estimate.bounds((1.0 - f.confidence) / (2.0 * n)), f.ideal)


def _leaves_out(ends: tuple[Number, Number], ideal: float) -> bool:
    low, high = ends
    return (low is not None and low > ideal) or (high is not None and high < ideal)


def _distance(f: Finding) -> float:
    """How far the nearest end of an interval lies from the ideal."""
    low, high = f.interval or (None, None)
    ideal = f.ideal or 0.0
    return max((low - ideal) if low is not None else 0.0, (ideal - high) if high is not None else 0.0)


def _people_first(report: AuditReport, f: Finding) -> tuple[bool, bool, int, int]:
    """Exposed persons first, then by question in the order of the record; what answers none comes last."""
    probes, own = [*(report.questions or earlier_questions())], questions_of(report, f.probe)
    question = question_of(report, f.probe, f.metric)
    place = probes.index(f.probe) if question is not None and f.probe in probes else len(probes)
    return f.pillar != "privacy", not names_rows(f), place, own.index(question) if question is not None else 0
