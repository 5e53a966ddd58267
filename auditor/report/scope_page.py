"""Page 2: the scope of the audit (auditor, model, system, rows), with empty lines for unstated facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from auditor.data.group_counts import MISSING
from auditor.judging.measurement import Outcome
from auditor.report.first_page_parts import LONGEST_NAME, group_name
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import About
from auditor.report.record.finding_text import answers
from auditor.report.record.representation import ERROR_RATE, Share, Standing, shares_of, why_dependent
from auditor.report.record.translations import Catalogue

MOST_GROUPS, MOST_HOLES = 12, 6
_LONGEST, _OF_DIGEST = 240, 16
# What audit.toml may say, by table; the record has the rest.
_STATED = {
    "document": ("organisation.name", "document.id", "document.version", "document.classification"),
    "model": ("model.id", "model.name", "model.version", "model.owner", "model.tier"),
    "system": ("system.purpose", "system.use", "system.decision", "system.affected"),
    "data": ("data.source", "data.population", "data.lineage"),
}


@dataclass(frozen=True)
class Line:
    """One line; ``key``: its key in audit.toml, "" if the audit provides it.

    An empty ``value`` is not known, and left to be filled in.
    """

    label: str
    value: str
    key: str = ""


@dataclass(frozen=True)
class Section:
    """Lines under a heading."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class GroupLine:
    """A group, its rows, and its share in words, beside the reference if any; else ``standing`` is None."""

    group: str
    n: str
    said: str
    standing: Standing | None


@dataclass(frozen=True)
class Groups:
    """The groups of one sensitive feature, and the number of other groups, in words."""

    feature: str
    lines: tuple[GroupLine, ...]
    more: str


@dataclass(frozen=True)
class Scope:
    """The whole page; ``absent``: the text for unstated lines.

    ``notes``: how sure the shares are, or why nothing is said of whom the rows stand for.
    """

    title: str
    lead: str
    absent: str
    sections: tuple[Section, ...]
    groups_title: str
    heads: tuple[str, str, str]
    groups: tuple[Groups, ...]
    notes: tuple[str, ...]


def scope_of(report: AuditReport, say: Catalogue | None = None) -> Scope:
    """The second page of a record, in its own language or in the words of ``say``."""
    about = report.about or About()
    writer = _Writer(report, about, report.catalogue(say))
    words = writer.say
    return Scope(
        title=words.say("scope.title"),
        lead=words.say("scope.lead"),
        absent=words.say("scope.absent"),
        sections=tuple(writer.sections()),
        groups_title=words.say("scope.groups"),
        heads=(words.say("scope.group"), words.say("scope.n"), words.say("scope.says")),
        groups=tuple(writer.groups()),
        notes=tuple(writer.notes()),
    )


@dataclass(frozen=True)
class _Writer:
    report: AuditReport
    about: About
    say: Catalogue

    # What was stated, and what the record knows beside it.

    def sections(self) -> Iterator[Section]:
        known: dict[str, Callable[[], list[Line]]] = {
            "document": self._origin_lines, "model": self._model, "system": list, "data": self._data,
        }  # fmt: skip
        for name, keys in _STATED.items():
            if name == "model" and self.report.rows_alone:
                continue
            stated = tuple(self._stated_line(key) for key in keys)
            yield Section(self.say.say(f"scope.{name}"), (*stated, *known[name]()))

    def _stated_line(self, key: str) -> Line:
        table, _, field = key.partition(".")
        value = str(getattr(getattr(self.about, table), field))
        return Line(
            self.say.say(f"scope.{table}_{field}"), number_text.shortened(value, _LONGEST), f"[{table}] {field}"
        )

    def _line(self, name: str, *parts: str) -> Line:
        return Line(self.say.say(f"scope.{name}"), ", ".join(part for part in parts if part))

    def _origin_lines(self) -> list[Line]:
        report = self.report
        tool = f"auditor {report.tool.get('version', '')}".strip()
        lines = [
            self._line(
                "made", report.created[:16].replace("T", " "), tool, f"{self.say.spelled(f'{report.duration_s:.1f}')} s"
            )
        ]
        if report.energy is not None:
            lines.append(Line(self.say.say("energy.title"), f"{report.energy.describe(self.say)}."))
        others = [file.describe(self.say, _OF_DIGEST) for file in report.obeyed if file.origin != "shipped"]
        if others:
            lines.append(Line(self.say.say("obeyed.title"), number_text.shortened("; ".join(others), 2 * _LONGEST)))
        if self.about.labels:
            words = (f"{key} “{word}”" for key, word in self.about.labels.items())
            lines.append(self._line("called", number_text.shortened("; ".join(words), 2 * _LONGEST)))
        return lines

    def _model(self) -> list[Line]:
        model = self.report.model
        n = model.n_parameters
        return [
            self._line("file", model.path or "", self._digest(model.sha256)),
            self._line("read_as", model.format, "" if n is None else self.say.say("scope.parameters", n=self._n(n))),
        ]

    def _data(self) -> list[Line]:
        data, say = self.report.data, self.say
        reference = self.about.data.reference.source
        lines = [
            Line(say.say("scope.data_reference"), number_text.shortened(reference, _LONGEST), "[data.reference] source")
        ]
        lines.append(self._line("file", data.path or "", self._digest(data.sha256)))
        if data.n_rows is not None:
            lines.append(self._line("rows", self._n(data.n_rows)))
        if data.target is not None:
            favourable = ""
            if data.positive is not None:
                favourable = say.say("scope.favourable", word=self._value(data.target, data.positive))
            lines.append(self._line("target", self.about.display_labels.column(data.target), favourable))
        if data.n_train_rows is not None or data.train_path is not None:
            n = say.say("scope.unknown") if data.n_train_rows is None else self._n(data.n_train_rows)
            lines.append(self._line("training", n, data.train_path or "", self._digest(data.train_sha256)))
        else:
            lines.append(self._line("training", say.say("scope.training_unknown")))
        lines.append(Line(say.say("scope.missing"), "; ".join(self._missing())))
        return [*lines, *self._labels()]

    def _digest(self, digest: str | None) -> str:
        known = self.say.say("scope.unknown") if digest is None else digest[:_OF_DIGEST]
        return f"{self.say.say('scope.digest')} {known}"

    def _n(self, n: int) -> str:
        return self.say.count(n)

    def _value(self, column: str | None, value: str) -> str:
        return number_text.shortened(self.about.display_labels.value(column, value), LONGEST_NAME)

    def _column(self, name: str) -> str:
        return number_text.shortened(self.about.display_labels.column(name), LONGEST_NAME)

    def _missing(self) -> Iterator[str]:
        """What rows lack, as far as it was counted."""
        data, say = self.report.data, self.say
        missing, of = data.missing, data.n_rows or 0
        if missing is None or not of:
            yield say.say("scope.unknown")
            return
        if missing.labels:
            yield say.say("scope.missing_labels", n=self._n(missing.labels), of=self._n(of))
        for feature, groups in (data.groups or {}).items():
            if groups.get(MISSING):
                named = self._column(feature)
                yield say.say("scope.missing_group", n=self._n(groups[MISSING]), of=self._n(of), feature=named)
        if missing.n_features is None:
            yield say.say("scope.missing_uncounted")
            return
        holes = list(missing.features.items())
        for name, n in holes[:MOST_HOLES]:
            share = say.percent(n / of)
            yield say.say(
                "scope.missing_feature", feature=self._column(name), n=self._n(n), of=self._n(of), share=share
            )
        more = len(holes) - MOST_HOLES + missing.more
        if more > 0:
            yield say.say("scope.missing_others", n=self._n(more))
        if not holes:
            yield say.say("scope.missing_none", n=self._n(missing.n_features))

    def _labels(self) -> Iterator[Line]:
        """What copies among the training rows say of the labels."""
        own = [f for f in self.report.findings if answers(self.report, f.probe, f.metric, "conflicts")]
        said = [self._conflict(f) for f in own if not f.other_kind]
        if said or not own:
            data = self.report.data
            given = data.n_train_rows is not None or data.train_path is not None
            unasked = self.say.say("scope.labels_unasked" if given else "scope.labels_unknown")
            yield Line(self.say.say("scope.labels"), "; ".join(said) or unasked)

    def _conflict(self, f: Finding) -> str:
        if f.value is None or f.outcome in (Outcome.NOT_RUN, Outcome.NOT_APPLICABLE):
            return number_text.shortened(f.reason, _LONGEST) or self.say.say("scope.unknown")
        share = self.say.percent(f.value)
        if f.estimate is None or f.estimate.kind != "exact":
            share += f" ({self.say.interval(f.interval, 'percent')})"
        copies = self.say.say(f"scope.copies_{'near' if f.at.get('copies') == 'near' else 'exact'}")
        return self.say.say("scope.labels_conflict", share=share, copies=copies)

    # Groups, and whom they stand for.

    def groups(self) -> Iterator[Groups]:
        shares = shares_of(self.report)
        for feature, sizes in (self.report.data.groups or {}).items():
            own = [share for share in shares if share.feature == feature]
            if own:
                lines = [self._group_line(share) for share in sorted(own, key=lambda share: -share.n)]
            else:
                known = {group: n for group, n in sizes.items() if group != MISSING}
                ranked = sorted(known.items(), key=lambda pair: -pair[1])
                lines = [self._alone(feature, group, n, sum(known.values())) for group, n in ranked]
            more = len(lines) - MOST_GROUPS
            said = self.say.say("scope.more_groups", n=self._n(more)) if more > 0 else ""
            yield Groups(self._column(feature), tuple(self._gravest(lines)[:MOST_GROUPS]), said)

    @staticmethod
    def _gravest(lines: Sequence[GroupLine]) -> list[GroupLine]:
        """Groups that are shown to be fewer before others where not all have room."""
        return list(lines) if len(lines) <= MOST_GROUPS else sorted(lines, key=lambda line: line.standing != "fewer")

    def _group(self, feature: str, group: str) -> str:
        return group_name(self.about.display_labels, self.say, feature, group)

    def _alone(self, feature: str, group: str, n: int, total: int) -> GroupLine:
        said = self.say.say("scope.of_rows", share=self.say.percent(n / total))
        return GroupLine(self._group(feature, group), self._n(n), said, None)

    def _group_line(self, share: Share) -> GroupLine:
        say = self.say
        own, reference = say.percent(share.share), "" if share.reference is None else say.percent(share.reference)
        interval = "" if share.low is None else say.interval((share.low, share.high), "percent")
        if not interval:
            said = say.say("scope.said_uncertain" if reference else "scope.of_rows", share=own, reference=reference)
        elif share.reference is None:
            said = say.say("scope.said_unnamed", share=own, interval=interval)
        else:
            said = say.say("scope.said", share=own, interval=interval, reference=reference)
            said += f"; {say.say(f'scope.{share.comparison}')}"
        return GroupLine(self._group(share.feature, share.group), self._n(share.n), said, share.comparison)

    def notes(self) -> Iterator[str]:
        report, shares = self.report, shares_of(self.report)
        if not report.data.groups:
            yield self.say.say("scope.none_compared")
        elif not shares:
            yield self.say.say("scope.no_reference")
        elif why := why_dependent(report):
            yield self.say.say(f"scope.dependent_{why}")
        else:
            level = self.say.percent(1.0 - ERROR_RATE)
            yield self.say.say("scope.together", n=self._n(len(shares)), level=level)
