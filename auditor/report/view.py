"""What a reader is told first, last and in which words: the parts of a report that its renderings share."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.drawing.standing import scale_of, strength
from auditor.finding.criterion import CriterionRecord
from auditor.finding.display import RANKS, ColouredText, Swarm
from auditor.finding.figure import Figure, Series
from auditor.finding.measurement import Outcome
from auditor.finding.vacuity import HIDDEN
from auditor.record import text
from auditor.record.about import About
from auditor.record.acceptances import told as accepted_told
from auditor.record.audit_report import (
    INTAKE,
    AuditReport,
    ExitCode,
    Finding,
)
from auditor.record.labels import Labels
from auditor.record.left_out import groups_left_out, hidden_gradients

# The order in which a reader has to act, not the alphabet.
ORDER = (
    Outcome.FAIL,
    Outcome.INCONCLUSIVE,
    Outcome.NOT_RUN,
    Outcome.PASS,
    Outcome.NOT_APPLICABLE,
    Outcome.NOT_JUDGED,
)
COUNTED = (
    Outcome.PASS,
    Outcome.FAIL,
    Outcome.INCONCLUSIVE,
    Outcome.NOT_RUN,
    Outcome.NOT_APPLICABLE,
    Outcome.NOT_JUDGED,
)
MEANING = {
    Outcome.PASS: "shown to lie within the criterion",
    Outcome.FAIL: "shown to lie beyond the criterion",
    Outcome.INCONCLUSIVE: "the data cannot settle it",
    Outcome.NOT_RUN: "stopped or never measured",
    Outcome.NOT_APPLICABLE: "an input was not given",
    Outcome.NOT_JUDGED: "measured, no criterion set",
}
PILLARS = ("performance", "fairness", "language", "attribution", "privacy", "robustness", "deepfake", "intake")

LIMITS = (
    "A PASS says that one number lies within one bound on these data. It does not say that the model is fair, private "
    "or safe, and definitions of fairness can contradict one another.",
    "The error rates hold for rows that are independent, or whose clusters --cluster names, and drawn from the "
    "population the model will meet. No statistic can show that they were; several rows of one person, or copies of a "
    "row, else count as so many people, and every interval is too narrow.",
    "What was not measured is not covered: read the findings that were not run and not applicable as open questions.",
    "An attack shows what can be broken, and never that the rest cannot be: what leaks or flips is at least what was "
    "found, and accuracy under an attack at most what was left. One that fails here may succeed in stronger hands.",
    "Attributions describe the model, not the causes at work in the world.",
    "Bounds of a built-in profile are conventions of this tool. Whoever answers for the model sets those that matter.",
)


@dataclass(frozen=True)
class Verdict:
    """The exit code in words: one outcome's colour, a headline and a sentence."""

    outcome: Outcome
    headline: str
    sentence: str


@dataclass(frozen=True)
class Row:
    """A finding as it is printed; ``anchor`` is its place in the page.

    ``by``: the method that found it, where another row would else look the same.
    """

    anchor: str
    finding: Finding
    name: str
    where: str
    value: str
    interval: str
    confidence: str
    must_be: str
    p_fail: str
    p_pass: str
    adjusted: str
    n: str
    rank: int
    by: str = ""

    @property
    def outcome(self) -> Outcome:
        return self.finding.outcome


@dataclass(frozen=True)
class Column:
    """A column of the table behind a figure; ``numeric`` ones are set to the right, ``code`` ones as names."""

    name: str
    numeric: bool = False
    code: bool = False


@dataclass(frozen=True)
class ShownWord:
    """A word as it is coloured: ``level`` -4 to 4, and its value in words."""

    word: str
    level: int
    value: str


@dataclass(frozen=True)
class ShownText:
    """A text as it is coloured; ``space`` stands between its words."""

    title: str
    words: tuple[ShownWord, ...]
    space: str
    left_out: int


@dataclass(frozen=True)
class Drawn:
    """A figure with the table behind it; ``left_out`` points are only in the record. ``texts``: its coloured words."""

    figure: Figure
    dom_id: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int
    texts: tuple[ShownText, ...] = ()
    scale: str = ""


MOST_POINTS = 60


@dataclass(frozen=True)
class Count:
    """How many findings have an outcome, and what it means."""

    outcome: Outcome
    n: int
    meaning: str


def counts_of(report: AuditReport) -> tuple[Count, ...]:
    """The six counts; what asks about other kinds of model is none of them, since no input would make it apply."""
    apart = {Outcome.NOT_APPLICABLE: n_for_other_kinds(report)}
    return tuple(Count(o, report.summary.count(o) - apart.get(o, 0), MEANING[o]) for o in COUNTED)


def n_for_other_kinds(report: AuditReport) -> int:
    """How many findings say only that their question is for another kind of model or of data."""
    return sum(f.other_kind for f in report.findings)


def for_other_kinds(report: AuditReport) -> str:
    """That count in words; "" where there is none."""
    n = n_for_other_kinds(report)
    return f"{n:,} for other kinds of model or data" if n else ""


def counts_in_words(report: AuditReport) -> str:
    """``3 PASS, 0 FAIL, ...``, and apart from them what is for other kinds of model."""
    counted = [f"{text.count(c.n)} {c.outcome.words}" for c in counts_of(report)]
    return ", ".join([*counted, *filter(None, [for_other_kinds(report)])])


def document_id(report: AuditReport) -> str:
    """SHA-256 of the record's JSON, which is the digest of the ``report.json`` beside the rendering."""
    return hashlib.sha256(report.to_json().encode()).hexdigest()


def rows_of(findings: Sequence[Finding], called: Labels | None = None) -> list[Row]:
    """Every finding as it is printed, in the order of the record; ``called``: what columns and values are called."""
    named = [(_name(f), text.label(f, called)) for f in findings]
    alike, by_method = Counter(named), Counter((*n, f.method) for n, f in zip(named, findings, strict=True))
    return [
        _row(i, f, where, _by(f, alone=alike[name, where] == 1, told=by_method[name, where, f.method] == 1))
        for i, (f, (name, where)) in enumerate(zip(findings, named, strict=True), 1)
    ]


def shown_rows(report: AuditReport) -> list[Row]:
    """Every finding of a report, its columns and values called as ``[labels]`` says."""
    return rows_of(report.findings, (report.about or About()).called)


def _name(f: Finding) -> str:
    return f.metric or (f.criterion.metric if f.criterion else f.probe)


def _by(f: Finding, *, alone: bool, told: bool) -> str:
    if alone or f.metric is None:
        return ""
    # What is found by several methods together names none of them.
    return f.method or "" if told else ", ".join(part for part in (f.probe, f.method) if part)


def _row(i: int, f: Finding, where: str, by: str) -> Row:
    exact = f.estimate is not None and f.estimate.kind == "exact"
    return Row(
        anchor=f"finding-{i}",
        finding=f,
        name=_name(f),
        where=where,
        value=text.value(f),
        interval="exact" if exact else text.interval(f.interval),
        confidence="" if exact or f.interval is None else text.confidence(f.confidence),
        must_be=f.criterion.describe() if f.criterion else "",
        p_fail="" if exact else text.p_value(f.p_fail),
        p_pass="" if exact else text.p_value(f.p_pass),
        adjusted=_adjusted(f),
        n="" if f.n_samples is None else text.count(f.n_samples),
        rank=ORDER.index(f.outcome),
        by=by,
    )


def _adjusted(f: Finding) -> str:
    if f.p_fail_adjusted is None or f.p_pass_adjusted is None:
        return ""
    fail, ok = text.p_value(f.p_fail_adjusted), text.p_value(f.p_pass_adjusted)
    return f"adjusted {fail} and {ok}, in the {f.budget} budget"


def is_detail(finding: Finding) -> bool:
    """Whether a number only stands behind the findings: one of many groups, features or levels, held to nothing."""
    return finding.outcome is Outcome.NOT_JUDGED and bool(finding.group or finding.at)


def drawn_as(i: int, figure: Figure) -> Drawn:
    """A figure with the table behind it; ``i`` is its number in the report."""
    columns, rows = _table_behind(figure)
    kept, left_out = _thinned(figure, rows) if figure.series and figure.kind != "forest" else (rows, 0)
    scale = scale_of(figure.texts)
    return Drawn(
        figure=figure,
        dom_id=f"figure-{i}",
        columns=columns,
        rows=tuple(kept),
        left_out=left_out,
        texts=tuple(_shown_text(t, scale) for t in figure.texts),
        scale=text.number(scale) if scale else "",
    )


def _shown_text(t: ColouredText, scale: float) -> ShownText:
    words = tuple(
        ShownWord(word=word, level=strength(value, scale), value=text.signed(value))
        for word, value in zip(t.words, t.values, strict=True)
    )
    return ShownText(title=t.title, words=words, space=" " if t.spaced else "", left_out=t.left_out)


def _table_behind(figure: Figure) -> tuple[tuple[Column, ...], list[tuple[str, ...]]]:
    """What a figure shows as a table, for those who read rather than look; a table of grades is one already."""
    match figure.kind:
        case "text":
            return _columns("Text", "Word", "#Contribution"), [
                (t.title or f"text {i}", word, text.signed(value))
                for i, t in enumerate(figure.texts, 1)
                for word, value in zip(t.words, t.values, strict=True)
            ]
        case "heatmap":
            return _columns("Picture", "#Lowest value", "#Highest value", "Where it lies"), [
                (h.title, text.number(h.low), text.number(h.high), h.detail) for h in figure.heatmaps
            ]
        case "beeswarm":
            return _columns("Feature", "#Dots", "#Lowest", "#Median", "#Highest", "By the row's own value"), [
                (s.feature, text.count(len(s.values)), *_spread(s), _ends_of(s)) for s in figure.swarms
            ]
        case "table":
            return (), []
        case _:
            names = _columns(figure.x_label or "x", "#" + (figure.y_label or "y"), "#Interval")
            return (Column("Series", code=True), *names), [row for s in figure.series for row in _points_of(s)]


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name.removeprefix("#"), numeric=name.startswith("#")) for name in names)


def _points_of(series: Series) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for k, x in enumerate(series.x):
        y, low, high = (v[k] if k < len(v) else None for v in (series.y, series.low, series.high))
        known = low is not None or high is not None
        place = x if isinstance(x, str) else text.number(x)
        rows.append((series.name, place, text.number(y), text.interval((low, high)) if known else ""))
    return rows


def _thinned(figure: Figure, rows: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], int]:
    """At most ``MOST_POINTS`` rows of each series, evenly, and how many others there are."""
    kept: list[tuple[str, ...]] = []
    start = 0
    for series in figure.series:
        n = len(series.x)
        kept += rows[start : start + n][:: max(1, -(-n // MOST_POINTS))]
        start += n
    return kept, len(rows) - len(kept)


def _spread(swarm: Swarm) -> tuple[str, str, str]:
    if not swarm.values:
        return (text.UNDEFINED,) * 3
    middle = (swarm.values[(len(swarm.values) - 1) // 2] + swarm.values[len(swarm.values) // 2]) / 2.0
    return text.signed(swarm.values[0]), text.signed(middle), text.signed(swarm.values[-1])


def _ends_of(swarm: Swarm) -> str:
    """How the contributions of rows with high values compare with those of rows with low ones, in words."""
    highest, lowest = ([v for v, r in zip(swarm.values, swarm.ranks, strict=True) if r == k] for k in (RANKS - 1, 0))
    if not highest or not lowest:
        return ""
    high, low = (sum(v) / len(v) for v in (highest, lowest))
    return f"{text.signed(high)} on average in the highest fifth, {text.signed(low)} in the lowest"


def verdict_of(report: AuditReport) -> Verdict:
    """What the exit code says, for a reader who knows no exit codes."""
    s = report.summary
    match report.exit_code:
        case ExitCode.REFUSED:
            return Verdict(
                Outcome.FAIL,
                "Refused: the model or the data were not accepted",
                "The audit stopped before anything could be measured. This is not a pass.",
            )
        case ExitCode.FAILED:
            return Verdict(
                Outcome.FAIL,
                f"Failed: {text.plural(s.fail, 'finding is', 'findings are')} shown to lie beyond the criterion",
                "At least one requirement is violated, beyond what chance in these data explains.",
            )
        case ExitCode.INCONCLUSIVE:
            return _unsettled(report)
        case ExitCode.PASSED:
            forgiven = report.allow_inconclusive and s.inconclusive
            return Verdict(
                Outcome.INCONCLUSIVE if forgiven else Outcome.PASS,
                "Nothing failed, and what is inconclusive was waived"
                if forgiven
                else "Passed: everything that was judged lies within its criterion",
                f"{text.plural(s.inconclusive, 'finding')} could not be settled; the run was told to accept that."
                if forgiven
                else f"{text.plural(s.passed, 'finding')} judged, all shown to lie within the criterion.",
            )
        case _:
            return Verdict(Outcome.NOT_RUN, "Not run: the command was not understood", "Nothing was measured.")


def _unsettled(report: AuditReport) -> Verdict:
    s = report.summary
    judged = {Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL}
    if not any(f.outcome in judged and f.pillar != INTAKE for f in report.findings):
        return Verdict(
            Outcome.INCONCLUSIVE,
            "Nothing was judged, and that is not a pass",
            "No probe's number was held against a criterion. See below what would have to be given.",
        )
    open_ = [
        text.plural(n, one, many)
        for n, one, many in (
            (s.inconclusive, "finding is inconclusive", "findings are inconclusive"),
            (s.not_run, "was not run", "were not run"),
        )
        if n
    ]
    if not open_ and any(f.padding for f in report.findings):
        return Verdict(
            Outcome.INCONCLUSIVE,
            "Nothing was judged that a model could well miss, and that is not a pass",
            "Every requirement is padding: a bound that hardly any model comes near. Set bounds that mean something.",
        )
    if not open_:
        return Verdict(
            Outcome.INCONCLUSIVE,
            "Nothing of the model itself was judged, and that is not a pass",
            "What was judged are checks of the file, or of an explanation's own arithmetic.",
        )
    return Verdict(
        Outcome.INCONCLUSIVE,
        "Not settled: nothing failed, but not everything could be said",
        f"{' and '.join(open_)}. This is not a pass.",
    )


def promise_of(report: AuditReport) -> str:
    """What the error rates of this scan promise, in words."""
    f = report.family
    rate, judgements = text.percent(f.error_rate), text.plural(f.m, "judgement")
    if f.m == 0:
        return "No measured number was held against a criterion, so this scan makes no promise about errors."
    match f.multiplicity:
        case "bonferroni" | "holm":
            how = "Bonferroni's" if f.multiplicity == "bonferroni" else "Holm's"
            means = (
                "PASS means shown to lie within the bound, not merely that no difference was found; what neither test "
                "could show is INCONCLUSIVE."
            )
            if not f.budgets:
                return (
                    f"Over the {judgements} of this scan, the probability that even one FAIL is false is at most "
                    f"{rate}, and so is the probability that even one PASS is false ({how} method). {means}"
                )
            shares = "; ".join(
                f"{budget.name} {text.percent(budget.rate)} over {text.plural(budget.questions, 'question')}"
                + (f" ({budget.judgements} judgements)" if budget.judgements > budget.questions else "")
                for budget in f.budgets
            )
            return (
                f"Each error budget has a rate of its own: {shares}. It bounds the probability that even one FAIL in "
                f"that budget is false, and that even one PASS in it is ({how} method), whatever else was measured. "
                f"For the whole scan the rates add up to {text.percent(f.total_rate)}; that everything PASSes although "
                f"something lies beyond its bound has a probability of at most "
                f"{text.percent(max(budget.rate for budget in f.budgets))}. {means}"
            )
        case "by":
            return (
                f"Over the {judgements} of this scan, at most {rate} of the FAILs are expected to be false on average, "
                f"and at most {rate} of the PASSes, however the findings depend on each other (Benjamini and "
                "Yekutieli). That is weaker than a promise about each."
            )
        case "bh":
            return (
                f"Over the {judgements} of this scan, at most {rate} of the FAILs are expected to be false on average, "
                f"and at most {rate} of the PASSes (Benjamini and Hochberg), if the findings are independent or depend "
                "on each other positively. Nothing is promised otherwise."
            )
        case "none":
            return (
                f"Each of the {judgements} of this scan has its own {rate} risk of a false FAIL, and of a false PASS, "
                f"with no allowance for their number: about {f.m * f.error_rate:.2g} false ones are to be expected in "
                "the worst case."
            )


def warnings_of(report: AuditReport) -> list[str]:
    """What must not be overlooked by anyone who reads the verdict."""
    loud: list[str] = []
    if report.allow_inconclusive:
        loud.append(
            "INCONCLUSIVE findings were waived: this scan ran with --allow-inconclusive, so they do not change the "
            "exit code. They are not passes."
            + (
                " Those that a model passes which says the same to everybody were not."
                if any(f.vacuous and not f.vacuous.startswith(HIDDEN) for f in report.findings)
                else ""
            )
            + (" Those of an attack on a hidden gradient were not." if hidden_gradients(report) else "")
            + (" Those of rows that are copies were not." if any(f.doubtful for f in report.findings) else "")
        )
    if report.family.multiplicity in ("by", "bh", "none"):
        loud.append(
            f"No family-wise claim is made: with multiplicity “{report.family.multiplicity}” a single FAIL or PASS may "
            "well be false. See “What the error rates promise”."
        )
    near = [f.metric or f.probe for f in report.findings if f.alone is Outcome.FAIL]
    if near:
        loud.append(
            f"Alone, {', '.join(dict.fromkeys(near))} would FAIL: INCONCLUSIVE here because other questions share the "
            "error budget, and never waived by --allow-inconclusive."
        )
    perverse = [f.metric or f.probe for f in report.findings if f.padding.startswith("The ideal value itself")]
    if perverse:
        loud.append(
            f"{', '.join(dict.fromkeys(perverse))}: the ideal value itself does not meet what is required. A PASS of "
            "it is no merit."
        )
    padding = [f.metric or f.probe for f in report.findings if f.padding.startswith("Padding")]
    if padding:
        loud.append(
            f"Padding: {', '.join(dict.fromkeys(padding))} could hardly miss what is required. Such a PASS says "
            "little; it takes nothing from the other questions."
        )
    loud += hidden_gradients(report) + groups_left_out(report)
    if report.registration is not None and not report.registration.followed:
        loud.append(report.registration.describe())
    if report.looks is not None and (report.looks.repeated or report.looks.campaign is not None):
        loud.append(report.looks.describe())
    if report.training is not None and report.training.eventful:
        loud.append(report.training.describe())
    loud += [policy.old for policy in report.policies if policy.old]
    # What was accepted finding by finding is told of each finding, whoever signed it.
    return loud + [d.describe() for d in report.decisions if not d.one_by_one] + list(accepted_told(report))


def applies_to(criterion: CriterionRecord) -> str:
    """Which measurements a criterion is about."""
    parts = [
        f"probe {criterion.probe}" if criterion.probe else "",
        f"method {criterion.method}" if criterion.method else "",
        f"by {' × '.join(criterion.sensitive)}" if criterion.sensitive else "",
        ", ".join(f"{k} = {v}" for k, v in criterion.group.items()) if criterion.group else "",
        criterion.place,
    ]
    return ", ".join(p for p in parts if p) or "every measurement of it without a group"
