"""The first page of a report: the model's effect on groups, its uncertainty, and next steps, from a catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from shlex import quote

from auditor.core.files import Number
from auditor.judging.criterion import load_criteria
from auditor.judging.measurement import Form, Outcome
from auditor.report import report_view
from auditor.report.first_page_parts import (
    FALSE_ALARMS,
    LONGEST_NAME,
    LONGEST_REASON,
    MOST_NAMED,
    WRONGLY_NAMED,
    Axis,
    axis_of,
    decisions_of,
    excess,
    favourable_of,
    group_name,
    interval_text,
    limits_of,
    names_rows,
    needed_in_all,
    next_of_unbounded,
    private_training_of,
    reach,
    registration_of,
    repair_of,
    rows_of_rate,
    seen_plants,
    unbounded_findings,
    verdict_note,
    what_is_sure,
    who_set,
    withstood,
    worst_subgroup,
)
from auditor.report.record import number_text
from auditor.report.record.audit_report import INTAKE, AuditReport, ExitCode, Finding
from auditor.report.record.configuration import About
from auditor.report.record.finding_text import form_of, question_of, question_text
from auditor.report.record.summary_lines import uncompared_share
from auditor.report.record.translations import Catalogue
from auditor.report.report_view import language_tag, own_words
from auditor.report.rows_page import Panel, panels_of, remedies_of
from auditor.statistics.attack_estimates import StrongestAttack

_JUDGED = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
_ORDER = (Outcome.FAIL, Outcome.NOT_RUN, Outcome.INCONCLUSIVE, Outcome.PASS)
MOST_LINES, MOST_OF_ONE, MOST_SHOWN, MOST_NEXT, MOST_NOT_ASKED, _LONGEST_LOST = 9, 3, 3, 3, 3, 200
_KEPT = {"followed": "registered", "deviates": "deviates", "unproven": "unproven"}
# Checks of a file or of an explanation's own arithmetic say nothing of what a model does to anybody.
_OWN_ARITHMETIC = "none"


@dataclass(frozen=True)
class Line:
    """One row of the table: the field's term for a check and its question, its groups, the result, and the outcome.

    ``name`` and ``question`` are "" where they are those of the row above.
    """

    name: str
    question: str
    about: str
    found: str
    interval: str
    outcome: Outcome
    verdict: str
    small: str
    anchor: str
    axis: Axis | None = None
    allowed: str = ""


@dataclass(frozen=True)
class Told:
    """A notable result without a limit."""

    sentence: str
    anchor: str


@dataclass(frozen=True)
class Action:
    """A next step, with the command or setting for it, ready to copy."""

    sentence: str
    by: str
    command: str = ""


@dataclass(frozen=True)
class FirstPage:
    """All contents of the first page."""

    language: str
    say: Catalogue
    organisation: str
    document: str
    title: str
    subtitle: tuple[str, ...]
    outcome: Outcome
    headline: str
    effect: str
    lines: tuple[Line, ...]
    more_lines: int
    sure: str
    withstood: str
    shown: tuple[Told, ...]
    nothing_shown: str
    more_shown: int
    actions: tuple[Action, ...]
    must_show: str
    last: tuple[str, ...]
    recorded: str = ""  # the record's own language, where these words are others
    panels: tuple[Panel, ...] = ()

    @property
    def spans(self) -> tuple[int, ...]:
        """How many rows each check has, at its first row; 0 at the others."""
        starts = [i for i, line in enumerate(self.lines) if line.name]
        n_of = dict(pairwise([*starts, len(self.lines)]))
        return tuple(n_of.get(i, i) - i for i in range(len(self.lines)))

    @property
    def fallback(self) -> str:
        """The note on phrases missing in the language, after all others are written; "" if it has them all."""
        missing = len(self.say.missing)
        return self.say.say("page.fallback", n=missing, language=self.say.language) if missing else ""

    @property
    def retold(self) -> str:
        """The note on a page worded differently from its record; "" if they agree."""
        if not self.recorded:
            return ""
        return self.say.say("page.retold", recorded=self.recorded, language=self.say.language)

    @property
    def own_words(self) -> str:
        """The note, always in English, on wording that is not the tool's own; "" if it is."""
        return own_words(self.say, later=bool(self.recorded))


def first_page(report: AuditReport, say: Catalogue | None = None) -> FirstPage:
    """The first page of a record, in its own language or in the words of ``say``."""
    own = (report.about or About()).catalogue
    say = report.catalogue(say)
    writer = _writer(report, say)
    # Of what was refused nothing was measured, and that is all there is to say.
    refused = report.refusal is not None
    lines, shown = ([], []) if refused else (writer.lines(), writer.unbounded_findings())
    verdict = report_view.verdict_of(report, say)
    return FirstPage(
        language=language_tag(say.language),
        say=say,
        organisation=writer.about.organisation.name,
        document=writer.document(),
        title=writer.title(),
        subtitle=writer.subtitle(),
        outcome=verdict.outcome,
        headline=writer.headline(verdict.headline),
        effect=writer.effect(verdict.sentence),
        lines=tuple(lines[:MOST_LINES]),
        more_lines=0 if refused else max(0, writer.n_checks + report.summary.not_run - len(lines[:MOST_LINES])),
        sure=writer.sure(),
        withstood=withstood(writer._judged_findings(), say, writer._name),
        shown=tuple(shown[:MOST_SHOWN]),
        nothing_shown=writer.nothing_shown(),
        more_shown=max(0, len(shown) - MOST_SHOWN),
        actions=() if refused else tuple(writer.actions())[:MOST_NEXT],
        must_show=writer.must_show(),
        last=writer.last(),
        recorded="" if dict(say.own) == dict(own.own) else own.language,
        panels=panels_of(report, say),
    )


def in_its_words(report: AuditReport, say: Catalogue, findings: Sequence[Finding]) -> list[Line]:
    """Findings in the form of the first page."""
    writer = _writer(report, say)
    return [writer._line(f, 0.0) for f in findings]


def unbounded_of(report: AuditReport) -> list[Finding]:
    """Findings without a limit for the first page, and those that are only counted there."""
    return _writer(report, report.catalogue())._unbounded()


def _writer(report: AuditReport, say: Catalogue) -> _Writer:
    anchors = {id(row.finding): row.anchor for row in report_view.rows_of(report.findings)}
    return _Writer(report, report.about or About(), say, anchors)


@dataclass(frozen=True)
class _Writer:
    """A record, and the words to tell of it in."""

    report: AuditReport
    about: About
    say: Catalogue
    anchors: dict[int, str]

    def title(self) -> str:
        model = self.about.model
        if model.name:
            version = self.say.say("page.version", version=model.version) if model.version else ""
            return self.say.say("page.title", model=", ".join(part for part in (model.name, version) if part))
        return self.say.say("page.title", model=self.report.subject)

    def document(self) -> str:
        own = self.about.document
        version = self.say.say("page.version", version=own.version) if own.version else ""
        parts = (f"{self.say.say('page.kind')} {own.id}".strip(), version, own.classification)
        return ", ".join(part for part in parts if part)

    def subtitle(self) -> tuple[str, ...]:
        say, report = self.say, self.report
        # What nobody measured is said to be somebody's word.
        system = self.about.system
        stated = [part for part in (system.purpose or system.decision, system.affected) if part]
        parts = (
            [say.say("page.stated", words="; ".join(stated))]
            if stated
            else decisions_of(report, self.about.display_labels, say)
        )
        if n_rows := (report.data.n_train_rows if report.rows_alone else None) or report.data.n_rows:
            parts.append(say.say("page.rows", n=say.count(n_rows)))
        if report.data.sensitive:
            named = ", ".join(self._column(name) for name in report.data.sensitive)
            parts.append(say.say("page.groups", features=named))
        positive = report.data.positive
        if positive is not None and f"{report.data.target}.{positive}" not in self.about.labels:
            parts.append(say.say("page.unlabelled", word=self._favourable()))
        plan = report.registration
        parts.append(say.say("page.unregistered" if plan is None else f"page.{_KEPT[plan.adherence]}"))
        # Who set a bound is anybody's word; that it is the tool's own is known of those that it ships.
        own = [c.record for c in load_criteria()]
        others = [c for c in report.criteria if c not in own]
        if not report.criteria:
            parts.append(say.say("page.no_bounds"))
        elif not others:
            parts.append(say.say("page.convention"))
        else:
            parts.append(say.say("page.bounds", who="; ".join(dict.fromkeys(who_set(c, say) for c in others))))
        return tuple(part for part in parts if part)

    def headline(self, plain: str) -> str:
        report, say = self.report, self.say
        judged = self._judged_findings()
        if report.exit_code == ExitCode.FAILED and judged:
            if any(f.outcome is Outcome.FAIL for f in judged):
                if self.n_checks == 1:
                    return say.say("headline.failed_only")
                return say.count_text("headline.failed", report.summary.fail, m=say.count(self.n_checks))
        if report.exit_code == ExitCode.INCONCLUSIVE and judged:
            return say.say("headline.unsettled")
        if report.exit_code == ExitCode.PASSED and judged:
            waived = report.allow_inconclusive and report.summary.inconclusive
            if not waived and (share := uncompared_share(report)):
                return say.say("headline.passed_but", share=say.percent(share))
            return say.say("headline.waived" if waived else "headline.passed")
        return plain

    def effect(self, plain: str) -> str:
        """One sentence of effect: the worst of what was judged, in numbers of people where it can be."""
        judged = sorted(self._judged_findings(), key=_rank)
        if not judged or self.report.refusal is not None:
            return plain
        worst = judged[0]
        if worst.outcome is Outcome.PASS:
            return self.say.count_text("effect.none", self.n_checks)
        said = self._gap(worst) or self._plainly(worst)
        also = self._listed((self._name(f), f) for f in judged[1:] if f.outcome is Outcome.FAIL)
        return f"{said} {self.say.say('effect.also', names=also)}" if also else said

    @property
    def n_checks(self) -> int:
        """How many numbers were judged, checks of the file included."""
        s = self.report.summary
        return s.passed + s.fail + s.inconclusive

    def must_show(self) -> str:
        """What the next audit must show of that which did not pass."""
        open_ = [f for f in sorted(self._judged_findings(), key=_rank) if f.outcome is not Outcome.PASS]
        if not open_ or self.report.refusal is not None:
            return ""
        limits = self._listed((f"{self._name(f)} {self._bound_text(f)}", f) for f in open_)
        return self.say.say("next.show", limits=limits)

    def _listed(self, findings: Iterable[tuple[str, Finding]]) -> str:
        """Findings by their names, each with its groups in parentheses; the others are counted."""
        named: dict[str, list[str]] = {}
        for name, f in findings:
            named.setdefault(name, []).append(self._about(f) if f.sensitive or f.group or FALSE_ALARMS in f.at else "")
        said = [name + f" ({', '.join(filter(None, of))})" * any(of) for name, of in named.items()]
        if len(said) > MOST_NAMED:
            said[MOST_NAMED:] = [self.say.say("page.more_shown", n=len(said) - MOST_NAMED)]
        return "; ".join(said)

    def sure(self) -> str:
        """How sure the intervals of the table are, and what planted controls say of the probes."""
        levels = [f.confidence for f in self._judged_findings() if f.interval is not None and f.confidence is not None]
        sure = self.say.say("page.sure", level=self.say.percent(min(levels))) if levels else ""
        return f"{sure} {seen_plants(self.report, self.say)}".strip()

    def _gap(self, f: Finding) -> str:
        """A gap between two groups in the rates of both; "" where the record does not hold them."""
        rates = _RATES.get(f.metric or "")
        if rates is None or not f.sensitive or f.criterion is None or f.criterion.direction != "at_most":
            return ""
        pairs = ((rate, *pair) for rate in rates for pair in permutations(self._of_groups(f, rate), 2))
        # Groups that are too small to be compared may lie further apart than it says.
        nearest = min(pairs, key=lambda p: abs((p[2].value or 0) - (p[1].value or 0) - (f.value or 0)), default=None)
        if nearest is None:
            return ""
        rate, low, high = nearest
        key = "selection" if rate == "selection_rate" else f"errors_{rate}"
        n_low = rows_of_rate(low)
        said = self.say.say(
            f"effect.{key}",
            who=self._group(low),
            others=self._group(high),
            favourable=self._favourable(),
            low=self.say.percent(low.value),
            high=self.say.percent(high.value),
            n_low=self.say.count(n_low),
            n_high=self.say.count(rows_of_rate(high)),
        )
        hurt = round(((high.value or 0.0) - (low.value or 0.0)) * n_low)
        shown = f.interval is not None and f.interval[0] is not None and f.interval[0] > 0.0
        if shown and hurt and rate != "false_positive_rate":
            n, of = self.say.count(hurt), self.say.count(n_low)
            said += " " + self.say.say("effect.hurt", n=n, of=of)
        return f"{said} {self._how_sure(f)}"

    def _how_sure(self, f: Finding) -> str:
        bound = self.say.value(_number(f.criterion.bound if f.criterion else None), "points")
        if f.outcome is Outcome.FAIL:
            return self.say.say("effect.shown", bound=bound)
        if f.interval is None or f.interval[0] is None or f.interval[0] <= 0.0:
            return self.say.say("effect.unknown")
        if f.alone is Outcome.FAIL and f.p_fail is not None:
            p = self.say.number(f.p_fail)
            return self.say.say("effect.unsettled_alone", bound=bound, m=self.say.count(self.n_checks), p=p)
        return self.say.say("effect.unsettled", bound=bound)

    def _plainly(self, f: Finding) -> str:
        form = form_of(self.report, f.probe, f.metric)
        said = self.say.say(
            "effect.other",
            name=self._name(f),
            found=self._finding_text(f),
            interval=self._interval(f, form) or self.say.say("form.no_bounds"),
            where=self._location_text(f),
            bound=self._bound_text(f),
        )
        return f"{said} {what_is_sure(f, self.say)}"

    def _of_groups(self, f: Finding, rate: str) -> list[Finding]:
        """A rate of each group of a finding."""
        return [
            g
            for g in self.report.findings
            if (g.probe, g.metric, tuple(g.group)) == (f.probe, rate, f.sensitive) and g.value is not None and not g.at
        ]

    def _judged_findings(self) -> list[Finding]:
        """What says something of the model itself, and was judged."""
        return [
            f
            for f in self.report.findings
            if f.outcome in _JUDGED
            and f.criterion is not None
            and f.pillar != INTAKE
            and (_OWN_ARITHMETIC not in (f.budget, f.criterion.budget) or f.outcome is Outcome.FAIL)
        ]

    def _told_of(self) -> list[Finding]:
        told = self._judged_findings()
        told += [f for f in self.report.findings if f.outcome is Outcome.NOT_RUN]
        told += [
            f
            for f in self.report.findings
            if f.outcome is Outcome.FAIL and f.pillar == INTAKE and not any(f is known for known in told)
        ]
        return told

    def lines(self) -> list[Line]:
        """The checks that were judged or lost, the worst first, each with its rows together."""
        told = self._told_of()
        asked: dict[str, list[Finding]] = {}
        for f in told:
            asked.setdefault(self._name(f), []).append(f)
        ranked = sorted(asked.values(), key=lambda own: min(map(_rank, own)))
        largest = {
            form: max((reach(f) for f in told if form_of(self.report, f.probe, f.metric) == form), default=0.0)
            for form in _SHARES
        }
        width = max(largest.values(), default=0.0)
        found = []
        for own in ranked:
            own.sort(key=_rank)
            # Of what passes one row speaks for its check: that which came nearest to its bound.
            kept = [f for i, f in enumerate(own) if not i or f.outcome is not Outcome.PASS][:MOST_OF_ONE]
            rows = [self._line(f, width) for f in kept]
            found += [rows[0], *(replace(row, name="", question="") for row in rows[1:])]
        return found

    def _line(self, f: Finding, width: float) -> Line:
        form = form_of(self.report, f.probe, f.metric)
        name, question = self._name(f), self._question(f)
        return Line(
            name=name,
            question=question if question != name else "",
            about=self._about(f),
            found=self._finding_text(f) if f.metric is not None else number_text.shortened(f.reason, LONGEST_REASON),
            interval=self._interval(f, form),
            outcome=f.outcome,
            verdict=self.say.say(f"verdict.{f.outcome.value.lower()}"),
            small=verdict_note(self.report, f, self.say),
            anchor=self.anchors[id(f)],
            axis=self._axis(f, width if form in _SHARES else None),
            allowed=self._bound_text(f),
        )

    def _axis(self, f: Finding, width: float | None) -> Axis | None:
        form, (low, high) = form_of(self.report, f.probe, f.metric), f.interval or (None, None)
        alt = self.say.say(
            "page.axis_alt",
            low=self.say.figure(low, form),
            high=self.say.figure(high, form),
            value=self.say.figure(f.value, form),
            bound=self._bound_text(f),
        )
        return axis_of(f, width, alt)

    # What else is shown, and what to do.

    def _unbounded(self) -> list[Finding]:
        return unbounded_findings(self.report, on_page={f.probe for f in self._told_of()})

    def unbounded_findings(self) -> list[Told]:
        """The few things that are shown, and that nobody set a bound for."""
        return [Told(self._unbounded_sentence(f), self.anchors[id(f)]) for f in self._unbounded()]

    def nothing_shown(self) -> str:
        """What is said where nothing without a limit is shown: that no row was named only where that was tried."""
        tried = any(f.pillar == "privacy" and WRONGLY_NAMED in f.at and f.value == 0.0 for f in self.report.findings)
        return self.say.say("page.none_named" if tried else "page.nothing_shown")

    def _unbounded_sentence(self, f: Finding) -> str:
        if names_rows(f):
            wrong = self.say.percent(_number(f.at[WRONGLY_NAMED]))
            return self.say.count_text("shown.named", round(f.value or 0.0), wrong=wrong)
        question, form = question_of(self.report, f.probe, f.metric), form_of(self.report, f.probe, f.metric)
        where = self._location_text(f) or (f", {self._about(f)}" if f.at else "")
        worst = self._worst_subgroup(f)
        return self.say.either(
            f"shown.{question.id if question else ''}",
            "shown.any",
            name=self._name(f),
            found=self._finding_text(f),
            value=self.say.figure(f.value, form),
            interval=interval_text(f, form, self.say),
            where=where,
            worst=worst or self.say.say("form.undefined"),
            favourable=self._favourable(),
        )

    def _worst_subgroup(self, f: Finding) -> str:
        return worst_subgroup(self.report, f, self.say, column=self._column, level=self._level)

    def actions(self) -> Iterator[Action]:
        """What follows, the most pressing first."""
        report, judged = self.report, self._judged_findings()
        lost = next((f for f in report.findings if f.outcome is Outcome.NOT_RUN), None)
        if lost is not None:
            yield self._rerun(lost)
        gaps = [f for f in judged if f.pillar == "fairness" and f.outcome is not Outcome.PASS and f.sensitive]
        unbounded = self._unbounded()
        failed = any(f.pillar == "privacy" and f.outcome is Outcome.FAIL for f in judged)
        remedies = [self._action(key) for key in remedies_of(report, judged, self.say)] if report.rows_alone else []
        if gaps and not report.rows_alone:
            remedies.append(self._action(*repair_of(report)))
        if (failed and not report.rows_alone) or any(map(names_rows, unbounded)):
            remedies.append(self._action("private", private_training_of(report)))
        # As the headline, which names the worst failure.
        worst = min(judged, key=_rank, default=None)
        private = worst is not None and worst.pillar == "privacy" and not report.rows_alone
        yield from reversed(remedies) if private else remedies
        # A bound of what can only be shown would change nothing.
        for f in [f for f in unbounded if not (names_rows(f) and f.reason)][:1]:
            yield self._action(*next_of_unbounded(report, f, self.say), name=self._name(f), **limits_of(report))
        if more := needed_in_all(report, judged):
            yield self._action("rows" if report.data.n_rows else "samples", n=self.say.count(more))
        if report.registration is None and judged:
            yield self._action("register", registration_of(report))

    def _rerun(self, lost: Finding) -> Action:
        if lost.metric is None and (held := lost.criterion) is not None:
            return self._action("unmeasured", f"auditor probes {quote(held.metric)}", metric=held.metric)
        why = number_text.shortened(lost.reason.rstrip("."), _LONGEST_LOST)
        return self._action("not_run", probe=lost.probe, reason=why)

    def _action(self, key: str, command: str = "", **words: str) -> Action:
        return Action(self.say.say(f"next.{key}", **words), self.say.say(f"next.{key}_by"), command)

    def last(self) -> tuple[str, ...]:
        """What was not asked, what is for other kinds of model, and how many numbers stand below."""
        say = self.say
        absent = [f for f in self.report.findings if f.outcome is Outcome.NOT_APPLICABLE]
        asked = {self._name(f) for f in self.report.findings if f.outcome is not Outcome.NOT_APPLICABLE}
        open_ = [q for q in dict.fromkeys(self._name(f) for f in absent if not f.other_kind) if q not in asked]
        said = []
        if open_:
            more = len(open_) - MOST_NOT_ASKED
            named = ", ".join([*open_[:MOST_NOT_ASKED], *([say.say("page.more_shown", n=more)] if more > 0 else [])])
            said.append(say.say("page.not_asked", names=named))
        numbers = sum(f.outcome is Outcome.NOT_JUDGED for f in self.report.findings)
        if numbers:
            said.append(say.say("page.numbers", n=say.count(numbers)))
        return tuple(said)

    def _name(self, f: Finding) -> str:
        return question_text(self.report, f.probe, f.metric, self.say, section="subject")

    def _question(self, f: Finding) -> str:
        return question_text(self.report, f.probe, f.metric, self.say)

    def _finding_text(self, f: Finding) -> str:
        if names_rows(f):
            return self.say.count_text("found.named", round(f.value or 0.0))
        if f.value is None:
            return self.say.say("found.no_number")
        question = question_of(self.report, f.probe, f.metric)
        return self.say.either(
            f"found.{question.id if question else ''}",
            "found.any",
            value=self.say.value(f.value, form_of(self.report, f.probe, f.metric)),
            metric="AUC" if f.metric == "roc_auc" else (f.metric or f.probe).replace("_", " "),
        )

    def _interval(self, f: Finding, form: Form) -> str:
        worst = self._worst_subgroup(f)
        return self.say.say("page.worst", who=worst) if worst else interval_text(f, form, self.say)

    def _bound_text(self, f: Finding) -> str:
        if f.criterion is None:
            return ""
        form, bound = form_of(self.report, f.probe, f.metric), f.criterion.bound
        if isinstance(bound, tuple | list):
            low, high = (self.say.value(x, form) for x in bound)
            return self.say.say("bound.within", low=low, high=high)
        return self.say.say(f"bound.{f.criterion.direction}", bound=self.say.value(bound, form))

    def _column(self, name: str) -> str:
        return number_text.shortened(self.about.display_labels.column(name), LONGEST_NAME)

    def _level(self, feature: str, level: str) -> str:
        return group_name(self.about.display_labels, self.say, feature, level)

    def _group(self, f: Finding) -> str:
        return self.say.say("ended.and").join(self._level(feature, level) for feature, level in f.group.items())

    def _about(self, f: Finding) -> str:
        if set(f.at) != {FALSE_ALARMS}:
            return self._who(f)
        rate = self.say.say("page.at_false_alarms", rate=self.say.percent(_number(f.at[FALSE_ALARMS])))
        return f"{self._who(f)}, {rate}" if f.sensitive or f.group else rate

    def _who(self, f: Finding) -> str:
        if f.group:
            return self._group(f)
        if len(f.sensitive) == 1 and isinstance(f.estimate, StrongestAttack):
            # A part is named by its attack and the group that this found most members of.
            return self._level(f.sensitive[0], f.estimate.strongest.partition(", ")[2])
        if len(f.sensitive) > 1 and f.sensitive == tuple(self.report.data.sensitive):
            return self.say.say("page.both" if len(f.sensitive) == 2 else "page.all")
        if len(f.sensitive) > 1:
            first = ", ".join(self._column(name) for name in f.sensitive[:-1])
            return self.say.say("page.together", first=first, second=self._column(f.sensitive[-1]))
        if f.sensitive:
            return self._column(f.sensitive[0])
        at = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in f.at.items()).replace("_", " ")
        return number_text.shortened(at, LONGEST_NAME) or self.say.say("page.everybody")

    def _location_text(self, f: Finding) -> str:
        if "test" in f.at:
            return f", {number_text.shortened(' '.join(filter(None, (f.method, str(f.at['test'])))), LONGEST_NAME)}"
        return f", {self._about(f)}" if f.sensitive or f.group else ""

    def _favourable(self) -> str:
        return favourable_of(self.report, self.about.display_labels, self.say)


_SHARES: tuple[Form, ...] = ("points", "percent")
_RATES = {
    "demographic_parity_difference": ("selection_rate",),
    "equal_opportunity_difference": ("true_positive_rate",),
    "equalized_odds_difference": ("true_positive_rate", "false_positive_rate"),
}
_GAPS = {name: i for i, name in enumerate(_RATES)}


def _number(bound: object) -> Number:
    return float(bound) if isinstance(bound, int | float) else None


def _rank(f: Finding) -> tuple[int, int, int, float]:
    """The worst first: by outcome, gaps (decisions, then errors), single features before those together, by excess."""
    return _ORDER.index(f.outcome), _GAPS.get(f.metric or "", len(_GAPS)), len(f.sensitive), -excess(f)
