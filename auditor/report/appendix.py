"""All numbers of a report in one table: judged ones row by row, those without limit grouped by question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from auditor.judging.measurement import Outcome
from auditor.report.record import finding_text, number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.question_texts import question_text
from auditor.report.record.report_metadata import About
from auditor.report.record.translations import Catalogue
from auditor.report.report_view import ORDER, PILLARS, Row

_FOLDED = (Outcome.NOT_JUDGED, Outcome.NOT_APPLICABLE)
_LONGEST = 80


@dataclass(frozen=True)
class Choice:
    """One choice of a filter: ``key`` as in the rows, and its display name."""

    key: str
    word: str


@dataclass(frozen=True)
class Entry:
    """A finding with its own row: its question, its groups, and its filter keys."""

    row: Row
    question: str
    keys: str


@dataclass(frozen=True)
class Number:
    """A number without a limit; ``level``: its level, ``by``: the method if relevant."""

    row: Row
    level: str
    by: str


@dataclass(frozen=True)
class Line:
    """All numbers of one question about one group."""

    about: str
    numbers: tuple[Number, ...]
    keys: str


@dataclass(frozen=True)
class Fold:
    """A question, the remark on all of its numbers, and its lines by group."""

    question: str
    about: str
    lines: tuple[Line, ...]

    @property
    def n(self) -> int:
        """The number of its numbers."""
        return sum(len(line.numbers) for line in self.lines)


@dataclass(frozen=True)
class Filter:
    """A row filter: its display name, and its choices."""

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Appendix:
    """The table: ``entries`` judged or failed, ``folds`` all else; other kinds of model separately."""

    entries: tuple[Entry, ...]
    folds: tuple[Fold, ...]
    elsewhere: tuple[Row, ...]
    filters: tuple[Filter, ...]

    @property
    def n(self) -> int:
        """The number of findings in the table."""
        return len(self.entries) + sum(fold.n for fold in self.folds)


def appendix_of(report: AuditReport, rows: Sequence[Row], say: Catalogue) -> Appendix:
    """The table of a report's rows, in the wording of a catalogue; pillars in order, worst first."""
    keys = _Keys(report, report.about or About(), say)
    place = {name: i for i, name in enumerate(PILLARS)}
    ordered = sorted(rows, key=lambda r: place.get(r.finding.pillar, len(place)))
    told = [r for r in ordered if not r.finding.other_kind]
    own = sorted((r for r in told if r.outcome not in _FOLDED), key=lambda r: r.rank)
    entries = tuple(Entry(r, keys.question(r.finding), keys.keys_of(r.finding)) for r in own)
    absent = _absent([r for r in told if r.outcome is Outcome.NOT_APPLICABLE], keys)
    folds = _folds([r for r in told if r.outcome is Outcome.NOT_JUDGED], keys)
    return Appendix(
        entries=entries,
        folds=(*absent, *folds),
        elsewhere=tuple(r for r in ordered if r.finding.other_kind),
        filters=keys.filters(told),
    )


def _absent(rows: Sequence[Row], keys: _Keys) -> tuple[Fold, ...]:
    """What lacked an input, in one fold, a line a question."""
    asked: dict[str, list[Row]] = {}
    for row in rows:
        asked.setdefault(keys.question(row.finding), []).append(row)
    lines = tuple(_line(question, own, keys) for question, own in asked.items())
    say = keys.say
    return (Fold(say.say("rest.to_absent"), say.count_text("rest.lacking", len(rows)), lines),) if rows else ()


def _folds(rows: Iterable[Row], keys: _Keys) -> tuple[Fold, ...]:
    asked: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        f = row.finding
        about = finding_text.place(f, keys.about.display_labels, keys.say.open("page.by")) or keys.say.say(
            "page.everybody"
        )
        asked.setdefault((keys.question(f), f.pillar), {}).setdefault(about, []).append(row)
    return tuple(
        Fold(
            question,
            f"{keys.say.pillar(pillar).capitalize()}, "
            f"{keys.say.count_text('rest.unbounded', sum(map(len, lines.values())))}",
            tuple(_line(about, own, keys) for about, own in lines.items()),
        )
        for (question, pillar), lines in asked.items()
    )


def _line(about: str, rows: Sequence[Row], keys: _Keys) -> Line:
    lacking = rows[0].outcome is Outcome.NOT_APPLICABLE
    levels = [row.where if lacking else finding_text.level(row.finding, keys.about.display_labels) for row in rows]
    alike = Counter((row.name, level) for row, level in zip(rows, levels, strict=True))
    numbers = tuple(
        Number(row, level, row.by if alike[row.name, level] > 1 else "")
        for row, level in zip(rows, levels, strict=True)
    )
    together = dict.fromkeys(key for row in rows for key in keys.keys_of(row.finding).split())
    return Line(about, numbers, " ".join(together))


@dataclass
class _Keys:
    """Short keys of features and groups, which may be called anything, in the order in which they come."""

    report: AuditReport
    about: About
    say: Catalogue
    features: dict[str, str] = field(default_factory=dict)
    groups: dict[tuple[str, str], str] = field(default_factory=dict)

    def question(self, f: Finding) -> str:
        """What a finding answers."""
        return question_text(self.report, f.probe, f.metric, self.say)

    def keys_of(self, f: Finding) -> str:
        """The keys of a finding."""
        named = [*f.sensitive, *f.group, *([str(f.at["feature"])] if "feature" in f.at else [])]
        own = [f.outcome.slug, f"p-{f.pillar}"]
        own += [self.features.setdefault(name, f"f{len(self.features)}") for name in named]
        own += [self.groups.setdefault(level, f"g{len(self.groups)}") for level in f.group.items()]
        return " ".join(own)

    def filters(self, rows: Sequence[Row]) -> tuple[Filter, ...]:
        """What the rows can be chosen by, once all of them have their keys."""
        called = self.about.display_labels
        outcomes, pillars = {r.outcome for r in rows}, {str(r.finding.pillar) for r in rows}
        by = (
            ("outcome", [(o.slug, o.words) for o in ORDER if o in outcomes]),
            ("pillar", [(f"p-{name}", self.say.pillar(name).capitalize()) for name in PILLARS if name in pillars]),
            ("feature", [(key, called.column(name)) for name, key in self.features.items()]),
            ("group", [(key, called.group(c, v)) for (c, v), key in self.groups.items()]),
        )
        return tuple(
            Filter(name, tuple(Choice(key, number_text.shortened(word, _LONGEST)) for key, word in choices))
            for name, choices in by
            if choices
        )
