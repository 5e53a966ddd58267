"""The first page of rows that are audited before there is a model: who is in them, what repeats, what gives away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from auditor.core.files import Number
from auditor.judging.measurement import Outcome
from auditor.report.first_page_parts import LONGEST_NAME, group_name
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import About
from auditor.report.record.finding_text import question_of
from auditor.report.record.translations import Catalogue

MOST_BARS, _MOST_FEATURES, _MOST_PROXIES = 7, 2, 2
_LONGEST = 160


@dataclass(frozen=True)
class Bar:
    """A share with its interval, all as parts of the panel's width, and in words."""

    label: str
    value: float
    low: float
    high: float
    found: str
    interval: str


@dataclass(frozen=True)
class Panel:
    """A question about the rows: ``unit``: what its bars are shares of; ``remarks``: sentences below them.

    ``pairs``: rows that are nearly copies, two by two, each by its place and by what differs.
    """

    question: str
    unit: str
    bars: tuple[Bar, ...]
    remarks: tuple[str, ...]
    more: str
    pairs: tuple[tuple[tuple[str, str], ...], ...] = ()


def panels_of(report: AuditReport, say: Catalogue) -> tuple[Panel, ...]:
    """The panels of a report of rows alone, and none of any other."""
    if not report.rows_alone or report.refusal is not None:
        return ()
    writer = _Writer(report, report.about or About(), say)
    return (writer.shares(), writer.missing(), writer.repeats(), writer.proxies(), writer.labels())


def remedies_of(report: AuditReport, judged: Sequence[Finding], say: Catalogue) -> list[str]:
    """What to do about rows, by the phrase that says it: that of the question of what FAILs, then of what is open."""
    found: dict[str, str] = {}
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        asked = [question_of(report, f.probe, f.metric) for f in judged if f.outcome is outcome]
        for question in asked:
            if question is not None and say.has(f"rows_alone.next_{question.id}"):
                found.setdefault(say.say(f"next.{question.id}"), question.id)
    return list(found.values())


@dataclass(frozen=True)
class _Writer:
    report: AuditReport
    about: About
    say: Catalogue

    def shares(self) -> Panel:
        """Groups and their shares, the smallest intersection, and who is short."""
        remarks = []
        smallest = [f for f in self._findings_of("smallest_group_rows") if f.detail]
        if smallest:
            least = max(smallest, key=lambda f: len(f.sensitive))
            group = least.detail.rpartition(", of ")[0]
            remarks.append(self.say.say("page.smallest", group=group, n=self.say.count(round(least.value or 0))))
        remarks += [self.say.say("page.short", detail=f.detail) for f in self._findings_of("representation_shortfall")]
        return self._panel("who", self._of_groups("group_share"), remarks)

    def missing(self) -> Panel:
        """Rows with a value missing, by group, and the column in which groups differ most."""
        details = [f.detail for f in self._findings_of("missing_rate_difference") if f.sensitive and f.value]
        return self._panel("absent", self._of_groups("missing_rate"), details[:_MOST_FEATURES])

    def repeats(self) -> Panel:
        """Rows with a copy, within the training rows and across the test rows."""
        told = [
            (self.say.say(f"page.of_{of}", copies=str(f.at["copies"])), f)
            for metric, of in (("duplicate_rate", "training"), ("overlap_rate", "test"))
            for f in self._findings_of(metric)
            if not f.group
        ]
        conflicts = [
            f.detail for f in self._findings_of("label_conflict_rate") if f.at.get("copies") == "exact" and f.value
        ]
        drawn = [text for f in self.report.figures if f.id == "data_leakage/copies" for text in f.texts]
        sides = [(text.title, ", ".join(text.words)) for text in drawn]
        panel = self._panel("repeats", told, [detail.partition(";")[0] for detail in conflicts])
        return replace(panel, pairs=tuple(zip(sides[::2], sides[1::2], strict=False)))

    def proxies(self) -> Panel:
        """How well all columns together, and the strongest alone, tell a group."""
        told: list[tuple[str, Finding]] = []
        own = [f for f in self._findings_of("proxy_auc") if f.value is not None]
        for feature in dict.fromkeys(f.sensitive for f in own):
            name = self._column(feature[0])
            of = [f for f in own if f.sensitive == feature]
            told += [(self.say.say("page.together", feature=name), f) for f in of if f.at.get("from") == "features"]
            alone = sorted((f for f in of if "feature" in f.at), key=lambda f: -(f.value or 0.0))[:_MOST_PROXIES]
            told += [
                (self.say.say("page.by_one", feature=name, column=self._column(str(f.at["feature"]))), f) for f in alone
            ]
        return self._panel("gives_away", told, [], whole=True)

    def labels(self) -> Panel:
        """Labels that look wrong, by group."""
        return self._panel("labels", self._of_groups("suspected_label_error_rate"), [])

    def _findings_of(self, metric: str) -> list[Finding]:
        return [f for f in self.report.findings if f.metric == metric]

    def _of_groups(self, metric: str) -> list[tuple[str, Finding]]:
        """A rate of each group of single features, the first features first."""
        told: Mapping[str, list[tuple[str, Finding]]] = {}
        for f in self._findings_of(metric):
            if len(f.group) == 1:
                (feature, level), *_ = f.group.items()
                name = group_name(self.about.display_labels, self.say, feature, level)
                told = {**told, feature: [*told.get(feature, []), (name, f)]}
        return [pair for pairs in list(told.values())[:_MOST_FEATURES] for pair in pairs]

    def _panel(
        self, name: str, told: Sequence[tuple[str, Finding]], remarks: Sequence[str], *, whole: bool = False
    ) -> Panel:
        """``whole``: an axis of all shares, else up to the largest."""
        known = [(label, f) for label, f in told if f.value is not None]
        ends = [x for _, f in known for x in (f.value, *(f.interval or ())) if x is not None]
        width = 1.0 if whole else max(ends, default=0.0) or 1.0
        kept = known[:MOST_BARS]
        more = len(known) - len(kept)
        return Panel(
            question=self.say.say(f"page.{name}"),
            unit=self.say.say(f"page.{name}_said" if known else "page.nothing_counted"),
            bars=tuple(self._bar(label, f, width) for label, f in kept),
            remarks=tuple(number_text.shortened(remark, _LONGEST) for remark in remarks),
            more=self.say.say("page.more_shown", n=self.say.count(more)) if more > 0 else "",
        )

    def _bar(self, label: str, f: Finding, width: float) -> Bar:
        exact = f.estimate is not None and f.estimate.kind == "exact"
        low, high = (f.value, f.value) if exact else f.interval or (None, None)

        def place(x: Number, missing: float) -> float:
            return missing if x is None else min(max(x / width, 0.0), 1.0)

        return Bar(
            label=number_text.shortened(label, LONGEST_NAME),
            value=place(f.value, 0.0),
            low=place(low, 0.0),
            high=place(high, 1.0),
            found=self.say.percent(f.value),
            interval=self.say.say("form.exact") if exact else self.say.interval(f.interval, "percent"),
        )

    def _column(self, name: str) -> str:
        return number_text.shortened(self.about.display_labels.column(name), LONGEST_NAME)


def bars_in_words(panels: Sequence[Panel]) -> Iterator[tuple[str, str]]:
    """Each panel's question, and what it shows, for a terminal."""
    for panel in panels:
        told = [f"{bar.label} {bar.found} ({bar.interval})" for bar in panel.bars]
        yield panel.question, "; ".join([*told, *([panel.more] if panel.more else []), *panel.remarks]) or panel.unit
