"""Shared parts of all renderings: opening, closing and wording of a report."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from auditor.judging.criterion import CriterionRecord
from auditor.judging.figure_types import RANKS, ColouredText, Figure, Series, Swarm
from auditor.judging.judgement import HIDDEN
from auditor.judging.measurement import Outcome, Pillar
from auditor.report.drawing.figure_data import in_words, scale_of, strength
from auditor.report.record import finding_text, number_text
from auditor.report.record.audit_report import (
    INTAKE,
    AuditReport,
    BudgetRecord,
    ExitCode,
    Finding,
)
from auditor.report.record.configuration import About, Labels
from auditor.report.record.severity_and_acceptance import acceptance_sentences
from auditor.report.record.summary_lines import groups_left_out, hidden_gradients, uncompared_share
from auditor.report.record.translations import ENGLISH, SHIPPED, Catalogue, shipped


def own_words(say: Catalogue, *, later: bool = False) -> str:
    """The note that a user's catalogue provides this page's wording, with its digest to detect manipulation.

    ``later``: not that of the record, but one that was named when the page was made of it.
    """
    if say.language in SHIPPED and dict(say.own) == dict(shipped(say.language)):
        return ""
    spelled = json.dumps(dict(sorted(say.own.items())), ensure_ascii=False)
    digest = hashlib.sha256(spelled.encode()).hexdigest()[:16]
    whose = "named when this page was made, and not in its record" if later else "of the signer's own"
    return (
        f"The words of this page, but for what was recorded, are those of a catalogue {whose}, {say.language} "
        f"({digest}), and not of the tool. Colours, marks and the exit code are the tool's."
    )


def language_tag(language: str) -> str:
    """The language tag of a page for browsers and screen readers; for a file, from its name."""
    stem = re.split(r"[/\\]", language)[-1].removesuffix(".toml")
    return stem if re.fullmatch(r"[a-z]{2,3}(-[A-Z]{2})?", stem) else ENGLISH


_SECTION, _PLACE = "titled.", "{feature}"


def titled(title: str, say: Catalogue) -> str:
    """The title in the wording of a catalogue; a title of another form is unchanged."""
    for key, phrase in shipped(ENGLISH).items():
        head, place, _ = phrase.partition(_PLACE)
        if not key.startswith(_SECTION) or not title.startswith(head):
            continue
        if place:
            return say.say(key, feature=title.removeprefix(head))
        if title == phrase:
            return say.say(key)
    return title


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
PILLARS: tuple[str, ...] = get_args(Pillar)

_LIMITS = ("one_number", "rows", "not_covered", "attacks", "attributions", "profile")


def limits_of(say: Catalogue | None = None) -> tuple[str, ...]:
    """The general limits of every report."""
    say = say or Catalogue.for_language(ENGLISH)
    return tuple(say.say(f"limit.{name}") for name in _LIMITS)


@dataclass(frozen=True)
class Verdict:
    """The exit code in words: one outcome's colour, a headline and a sentence."""

    outcome: Outcome
    headline: str
    sentence: str


@dataclass(frozen=True)
class Row:
    """A finding as printed; ``anchor``: its position in the page.

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
    """A column of the table behind a figure; ``numeric`` ones are set to the right, ``code`` ones as names.

    ``recorded``: whether its name is the record's and not the catalogue's.
    """

    name: str
    numeric: bool = False
    code: bool = False
    recorded: bool = False


@dataclass(frozen=True)
class ShownWord:
    """A coloured word: ``level`` -4 to 4, and its value in words."""

    word: str
    level: int
    value: str


@dataclass(frozen=True)
class ShownText:
    """A coloured text; ``space`` separates its words."""

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
    title: str = ""

    @property
    def recorded(self) -> bool:
        """Whether its title is the recorded one."""
        return self.title == self.figure.title


MOST_POINTS = 60


@dataclass(frozen=True)
class Count:
    """The number of findings with an outcome, and the outcome's meaning."""

    outcome: Outcome
    n: int
    meaning: str


def counts_of(report: AuditReport, say: Catalogue | None = None) -> tuple[Count, ...]:
    """The six counts, without questions for other kinds of model, which no input would make applicable."""
    say = report.catalogue(say or Catalogue.for_language(ENGLISH))
    apart = {Outcome.NOT_APPLICABLE: n_for_other_kinds(report)}
    return tuple(
        Count(o, report.summary.count(o) - apart.get(o, 0), say.say(f"counted.{o.value.lower()}")) for o in COUNTED
    )


def n_for_other_kinds(report: AuditReport) -> int:
    """The number of findings whose question is for another kind of model or data."""
    return sum(f.other_kind for f in report.findings)


def for_other_kinds(report: AuditReport, say: Catalogue | None = None) -> str:
    """That count in words; "" for zero."""
    say, n = report.catalogue(say or Catalogue.for_language(ENGLISH)), n_for_other_kinds(report)
    return say.say("counted.elsewhere", n=say.count(n)) if n else ""


def counts_in_words(report: AuditReport) -> str:
    """``3 PASS, 0 FAIL, ...``, with those for other kinds of model separately."""
    counted = [f"{number_text.count(c.n)} {c.outcome.words}" for c in counts_of(report)]
    return ", ".join([*counted, *filter(None, [for_other_kinds(report)])])


def document_id(report: AuditReport) -> str:
    """SHA-256 of the record's JSON, equal to the digest of the ``report.json`` beside the rendering."""
    return hashlib.sha256(report.to_json().encode()).hexdigest()


def rows_of(findings: Sequence[Finding], labels: Labels | None = None, say: Catalogue | None = None) -> list[Row]:
    """Every finding as printed, in the order of the record; ``labels``: display names of columns and values.

    ``say``: the words and the numbers' language, English by default.
    """
    say = say or Catalogue.for_language(ENGLISH)
    by = say.open("page.by")
    named = [(_name(f), finding_text.label(f, labels, by)) for f in findings]
    alike, by_method = Counter(named), Counter((*n, f.method) for n, f in zip(named, findings, strict=True))
    return [
        _row(
            say,
            i,
            f,
            where,
            _method_text(f, alone=alike[name, where] == 1, unique_method=by_method[name, where, f.method] == 1),
        )
        for i, (f, (name, where)) in enumerate(zip(findings, named, strict=True), 1)
    ]


def shown_rows(report: AuditReport, say: Catalogue | None = None) -> list[Row]:
    """Every finding of a report, with display names of columns and values from ``[labels]``."""
    return rows_of(report.findings, (report.about or About()).display_labels, say)


def _name(f: Finding) -> str:
    return f.metric or (f.criterion.metric if f.criterion else f.probe)


def _method_text(f: Finding, *, alone: bool, unique_method: bool) -> str:
    if alone or f.metric is None:
        return ""
    # What is found by several methods together names none of them.
    return f.method or "" if unique_method else ", ".join(part for part in (f.probe, f.method) if part)


def _row(say: Catalogue, i: int, f: Finding, where: str, source: str) -> Row:
    exact = f.estimate is not None and f.estimate.kind == "exact"
    return Row(
        anchor=f"finding-{i}",
        finding=f,
        name=_name(f),
        where=where,
        value=say.spelled(finding_text.value(f)),
        interval=say.say("form.exact") if exact else say.ends(f.interval),
        confidence="" if exact or f.interval is None else say.spelled(number_text.confidence(f.confidence)),
        must_be=say.required(f.criterion) if f.criterion else "",
        p_fail="" if exact else number_text.p_value(f.p_fail),
        p_pass="" if exact else number_text.p_value(f.p_pass),
        adjusted=_adjusted(f),
        n="" if f.n_samples is None else say.count(f.n_samples),
        rank=ORDER.index(f.outcome),
        by=source,
    )


def _adjusted(f: Finding) -> str:
    if f.p_fail_adjusted is None or f.p_pass_adjusted is None:
        return ""
    fail, ok = number_text.p_value(f.p_fail_adjusted), number_text.p_value(f.p_pass_adjusted)
    return f"adjusted {fail} and {ok}, in the {f.budget} budget"


def is_detail(finding: Finding) -> bool:
    """Whether a number is only a detail: one of many groups, features or levels, without a requirement."""
    return finding.outcome is Outcome.NOT_JUDGED and bool(finding.group or finding.at)


def drawn_as(i: int, figure: Figure, say: Catalogue) -> Drawn:
    """A figure with the table behind it; ``i`` is its number in the report."""
    columns, rows = _table_behind(figure, say)
    kept, left_out = _thinned(figure, rows) if figure.series and figure.kind != "forest" else (rows, 0)
    scale = scale_of(figure.texts)
    return Drawn(
        figure=figure,
        dom_id=f"figure-{i}",
        columns=columns,
        rows=tuple(kept),
        left_out=left_out,
        texts=tuple(_shown_text(t, scale, say) for t in figure.texts),
        scale=say.spelled(number_text.number(scale)) if scale else "",
        title=titled(figure.title, say),
    )


def _shown_text(t: ColouredText, scale: float, say: Catalogue) -> ShownText:
    words = tuple(
        ShownWord(word, strength(value, scale), say.spelled(number_text.signed(value)) if value or scale else "")
        for word, value in zip(t.words, t.values, strict=True)
    )
    return ShownText(title=t.title, words=words, space=" " if t.spaced else "", left_out=t.left_out)


def _table_behind(figure: Figure, say: Catalogue) -> tuple[tuple[Column, ...], list[tuple[str, ...]]]:
    """What a figure shows as a table, for those who read rather than look; a table of grades is one already."""
    match figure.kind:
        case "text":
            rows: list[tuple[str, ...]] = [
                (t.title or say.say("column.untitled", n=i), word, say.spelled(number_text.signed(value)))
                for i, t in enumerate(figure.texts, 1)
                for word, value in zip(t.words, t.values, strict=True)
            ]
            if all(value is None for t in figure.texts for value in t.values):
                return _columns(say, "text", "word"), [row[:2] for row in rows]
            return _columns(say, "text", "word", "#contribution"), rows
        case "heatmap":
            return _columns(say, "picture", "#lowest_value", "#highest_value", "where"), [
                (h.title, say.spelled(number_text.number(h.low)), say.spelled(number_text.number(h.high)), h.detail)
                for h in figure.heatmaps
            ]
        case "beeswarm":
            return _columns(say, "feature", "#dots", "#lowest", "#median", "#highest", "by_value"), [
                (s.feature, say.count(len(s.values)), *map(say.spelled, _spread(s)), _ends_of(s, say))
                for s in figure.swarms
            ]
        case "table":
            return (), []
        case _:
            names = (
                Column(figure.x_label or "x", recorded=True),
                Column(figure.y_label or "y", numeric=True, recorded=True),
                *_columns(say, "#interval"),
            )
            series = Column(say.say("column.series"), code=True)
            return (series, *names), [row for s in figure.series for row in _points_of(s, say)]


def _columns(say: Catalogue, *names: str) -> tuple[Column, ...]:
    return tuple(Column(say.say(f"column.{name.removeprefix('#')}"), numeric=name.startswith("#")) for name in names)


def _points_of(series: Series, say: Catalogue) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for k, x in enumerate(series.x):
        y, low, high = (v[k] if k < len(v) else None for v in (series.y, series.low, series.high))
        known = low is not None or high is not None
        place = x if isinstance(x, str) else say.spelled(number_text.number(x))
        rows.append((series.name, place, say.spelled(number_text.number(y)), say.ends((low, high)) if known else ""))
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
        return (number_text.UNDEFINED,) * 3
    middle = (swarm.values[(len(swarm.values) - 1) // 2] + swarm.values[len(swarm.values) // 2]) / 2.0
    return number_text.signed(swarm.values[0]), number_text.signed(middle), number_text.signed(swarm.values[-1])


def _ends_of(swarm: Swarm, say: Catalogue) -> str:
    """How the contributions of rows with high values compare with those of rows with low ones, in words."""
    highest, lowest = ([v for v, r in zip(swarm.values, swarm.ranks, strict=True) if r == k] for k in (RANKS - 1, 0))
    if not highest or not lowest:
        return ""
    high, low = (sum(v) / len(v) for v in (highest, lowest))
    return say.say("column.ends", high=say.spelled(number_text.signed(high)), low=say.spelled(number_text.signed(low)))


def verdict_of(report: AuditReport, say: Catalogue | None = None) -> Verdict:
    """The meaning of the exit code, for readers who do not know exit codes."""
    say = report.catalogue(say or Catalogue.for_language(ENGLISH))
    s = report.summary
    match report.exit_code:
        case ExitCode.REFUSED:
            return _verdict(say, Outcome.FAIL, "refused")
        case ExitCode.FAILED:
            return Verdict(Outcome.FAIL, say.count_text("ended.failed", s.fail), say.say("ended.failed_said"))
        case ExitCode.INCONCLUSIVE:
            return _unsettled(report, say)
        case ExitCode.PASSED if report.allow_inconclusive and s.inconclusive:
            sentence = say.count_text("ended.waived_said", s.inconclusive)
            return Verdict(Outcome.INCONCLUSIVE, say.say("ended.waived"), sentence)
        case ExitCode.PASSED:
            share = uncompared_share(report)
            said = say.say("headline.passed_but", share=say.percent(share)) if share else say.say("ended.passed")
            return Verdict(Outcome.PASS, said, say.count_text("ended.passed_said", s.passed))
        case _:
            return _verdict(say, Outcome.NOT_RUN, "not_run")


def _verdict(say: Catalogue, outcome: Outcome, key: str) -> Verdict:
    return Verdict(outcome, say.say(f"ended.{key}"), say.say(f"ended.{key}_said"))


def _unsettled(report: AuditReport, say: Catalogue) -> Verdict:
    s = report.summary
    judged = {Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL}
    if not any(f.outcome in judged and f.pillar != INTAKE for f in report.findings):
        return _verdict(say, Outcome.INCONCLUSIVE, "unjudged")
    counted = (("inconclusive", s.inconclusive), ("stopped", s.not_run))
    open_ = [say.count_text(f"ended.{name}", n) for name, n in counted if n]
    if not open_:
        padded = any(f.padding for f in report.findings)
        return _verdict(say, Outcome.INCONCLUSIVE, "padding" if padded else "own_file")
    sentence = f"{say.say('ended.and').join(open_)}. {say.say('ended.no_pass')}"
    return Verdict(Outcome.INCONCLUSIVE, say.say("ended.unsettled"), sentence)


def promise_of(report: AuditReport, say: Catalogue | None = None) -> str:
    """The guarantee given by this scan's error rates, in words."""
    say, f = report.catalogue(say or Catalogue.for_language(ENGLISH)), report.family
    if f.m == 0:
        return say.say("promise.none")
    rate, judgements = say.spelled(number_text.percent(f.error_rate)), say.count_text("promise.judgements", f.m)
    match f.multiplicity:
        case "bonferroni" | "holm":
            how = say.say(f"promise.{f.multiplicity}")
            means = say.say("promise.means")
            if not f.budgets:
                return f"{say.say('promise.together', judgements=judgements, rate=rate, how=how)} {means}"
            shares = "; ".join(_share(budget, say) for budget in f.budgets)
            total, most = (
                say.spelled(number_text.percent(share))
                for share in (f.total_rate, max(budget.rate for budget in f.budgets))
            )
            whole = say.say("promise.whole", total=total, most=most)
            return f"{say.say('promise.budgets', shares=shares, how=how)} {whole} {means}"
        case "by" | "bh":
            return say.say(f"promise.{f.multiplicity}", judgements=judgements, rate=rate)
        case "none":
            n = say.spelled(f"{f.m * f.error_rate:.2g}")
            return say.say("promise.alone", judgements=judgements, rate=rate, n=n)


def _share(budget: BudgetRecord, say: Catalogue) -> str:
    more = budget.judgements > budget.questions
    return say.say(
        f"promise.share{'_more' * more}",
        budget=say.pillar(budget.name),
        rate=say.spelled(number_text.percent(budget.rate)),
        questions=say.count_text("promise.questions", budget.questions),
        **({"n": say.count(budget.judgements)} if more else {}),
    )


def rule_warning(report: AuditReport, say: Catalogue | None = None) -> str:
    """The warning that the outcomes follow a rule that this version does not use; "" if it does."""
    if not report.family.other_rule:
        return ""
    say, version = say or Catalogue.for_language(ENGLISH), report.tool.get("version")
    return say.say("warning.rule", rule=report.family.rule, version=version)


def warnings_of(report: AuditReport, say: Catalogue | None = None) -> list[str]:
    """Warnings for every reader of the verdict."""
    say = report.catalogue(say or Catalogue.for_language(ENGLISH))
    loud = [warning] if (warning := rule_warning(report, say)) else []
    loud += _waiver_warnings(report, say)
    if report.family.multiplicity in ("by", "bh", "none"):
        title = say.say("rest.promise")
        loud.append(say.say("warning.no_family", rule=report.family.multiplicity, title=title))
    loud += _metric_warnings(report, say)
    loud += hidden_gradients(report) + groups_left_out(report)
    loud += _record_warnings(report)
    loud += [policy.old for policy in report.policies if policy.old]
    # What was accepted finding by finding is told of each finding, whoever signed it.
    return loud + [d.describe() for d in report.decisions if not d.one_by_one] + list(acceptance_sentences(report))


def _waiver_warnings(report: AuditReport, say: Catalogue) -> list[str]:
    """That inconclusive findings are allowed, and what that may hide."""
    if not report.allow_inconclusive:
        return []
    kept = (
        ("same", any(f.vacuous and not f.vacuous.startswith(HIDDEN) for f in report.findings)),
        ("hidden", hidden_gradients(report)),
        ("copies", any(f.doubtful for f in report.findings)),
        ("powerless", any(f.powerless for f in report.findings)),
    )
    hidden = (say.say(f"warning.waived_{name}") for name, there in kept if there)
    # Records of before waivers had names waived all.
    names = PILLARS if isinstance(report.allow_inconclusive, bool) else report.allow_inconclusive
    return [" ".join([say.say("warning.waived", names=", ".join(map(_waiver_text, names))), *hidden])]


def _waiver_text(waiver: str) -> str:
    name, _, why = waiver.partition("=")
    return f"{name.strip()} ({why.strip()})" if why.strip() else name.strip()


def _metric_warnings(report: AuditReport, say: Catalogue) -> list[str]:
    """Metrics that would FAIL alone, and criteria that can hardly be missed."""
    named = (
        ("alone", [f for f in report.findings if f.alone is Outcome.FAIL]),
        ("perverse", [f for f in report.findings if f.padding.startswith("The ideal value itself")]),
        ("padding", [f for f in report.findings if f.padding.startswith("Padding")]),
    )
    return [
        say.say(f"warning.{key}", metrics=", ".join(dict.fromkeys(in_words(f.metric or f.probe) for f in own)))
        for key, own in named
        if own
    ]


def _record_warnings(report: AuditReport) -> list[str]:
    """What is unusual in how the audit came about: its plan, repeated audits, its training."""
    warnings = []
    if report.registration is not None and not report.registration.followed:
        warnings.append(report.registration.describe())
    if report.looks is not None and (report.looks.repeated or report.looks.campaign is not None):
        warnings.append(report.looks.describe())
    if report.training is not None and report.training.eventful:
        warnings.append(report.training.describe())
    return warnings


def applies_to(criterion: CriterionRecord, say: Catalogue | None = None) -> str:
    """The measurements to which a criterion applies."""
    say = say or Catalogue.for_language(ENGLISH)
    parts = [
        say.say("rest.applies_probe", name=criterion.probe) if criterion.probe else "",
        say.say("rest.applies_method", name=criterion.method) if criterion.method else "",
        say.say("page.by", feature=" × ".join(criterion.sensitive)) if criterion.sensitive else "",
        ", ".join(f"{k} = {v}" for k, v in criterion.group.items()) if criterion.group else "",
        criterion.place,
    ]
    return ", ".join(p for p in parts if p) or say.say("rest.applies_all")
