"""The parts of a dossier from the record itself: model, data, criteria, error rate and tables of rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from auditor.judging.policy import RecordPart
from auditor.report import report_view
from auditor.report.document import (
    Block,
    Span,
    Table,
    bullets,
    code,
    external_text,
    facts,
    paragraph,
    strong,
    table,
)
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import About, Labels
from auditor.report.record.severity_and_acceptance import acceptance_sentences
from auditor.statistics.rates import Proportion

NOT_MEASURED = "NOT MEASURED"
_NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Place:
    """One record, and the names of its findings in the dossier."""

    report: AuditReport
    link: Callable[[str], Span]


def not_measured(subject: str, remedy: str) -> Block:
    """A note that a number was not measured, and how to measure it."""
    return paragraph(strong(NOT_MEASURED, "not-run"), f": {subject}. How: {remedy}.")


def fields(pairs: Mapping[str, str | None]) -> Table:
    """A table of names and values; None is omitted, empty means unknown."""
    return facts(list(pairs.items()), unknown=_NOT_KNOWN)


def _model(place: Place) -> list[Block]:
    model = place.report.model
    return [
        fields(
            {
                "File": model.path or "in memory",
                "SHA-256": model.sha256 or "",
                "Format": model.format,
                "Loaded by": model.loaded_by,
                "Size": None if model.size_bytes is None else f"{model.size_bytes:,} bytes",
                "Parameters": None if model.n_parameters is None else f"{model.n_parameters:,}",
                "Computed in": model.dtype,
                "Classes": ", ".join(model.classes) or None,
                "Notes": " ".join(model.notes) or None,
            }
        )
    ]


def _data(place: Place) -> list[Block]:
    data = place.report.data
    if data.path is None and data.n_rows is None:
        return [not_measured("no evaluation data were given", "add --data FILE")]
    return [
        fields(
            {
                "Evaluation data": data.path or "in memory",
                "SHA-256": data.sha256 or "",
                "Rows": "" if data.n_rows is None else f"{data.n_rows:,}",
                "Target": data.target,
                "Favourable": data.positive,
                "Groups compared": ", ".join(data.sensitive) or "none was named",
                "Training data": data.train_path or "none were given",
                "SHA-256 of the training data": data.train_sha256,
                "Training rows": None if data.n_train_rows is None else f"{data.n_train_rows:,}",
                "Notes": " ".join(data.notes) or None,
            }
        )
    ]


def _environment(place: Place) -> list[Block]:
    report = place.report
    here = report.environment
    return [
        fields(
            {
                "Tool": f"auditor {report.tool.get('version', '')}, record schema {report.schema_version}",
                "Platform": f"{here.platform}, Python {here.python}, device {here.device}",
                "Packages": ", ".join(f"{name} {version}" for name, version in here.packages.items()),
                "Seed": str(here.seed),
                "Limits": ", ".join(f"{name} {limit}" for name, limit in here.limits.items()) or "none",
                "Sandbox": None if here.sandbox is None else here.sandbox.describe(),
                "Command": here.command,
                "Seconds": f"{report.duration_s:.1f}",
            }
        )
    ]


def _criteria(place: Place) -> list[Block]:
    report = place.report
    if not report.criteria:
        return [paragraph("No criterion was set: nothing could pass or fail.")]
    heads = ("Metric", "Must be", "Applies to", "Source", "Set by", "Set at")
    rows: list[Sequence[str | Span]] = [
        [code(c.metric), c.describe(), *map(external_text, (report_view.applies_to(c), c.source, c.set_by, c.set_at))]
        for c in report.criteria
    ]
    return [table(heads, rows, "llllll")]


def _promise(place: Place) -> list[Block]:
    return [paragraph(external_text(report_view.promise_of(place.report)))]


def _registration(place: Place) -> list[Block]:
    registration = place.report.registration
    if registration is None:
        return [
            paragraph(
                "NOT REGISTERED: this run followed no registration, so nothing here shows that metrics and "
                "thresholds were set before results were seen. auditor evidence register audit.toml makes one for "
                "the next run."
            )
        ]
    told: list[Block] = [paragraph(external_text(registration.describe()))]
    if registration.deviations:
        told.append(bullets(map(external_text, registration.deviations)))
    return told


def _decisions(place: Place) -> list[Block]:
    report = place.report
    if not report.decisions:
        return [paragraph("No decision about an earlier audit of this model is in the record.")]
    told = [*(decision.describe() for decision in report.decisions), *acceptance_sentences(report)]
    return [bullets(map(external_text, told))]


# ---- impact tables ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Category:
    """One line: total number, number selected, and the ratio of its rate to the largest.

    ``ratio``: None where the category was left out of the ratios; its value is None where it is undefined.
    ``finding``: id of the rate's.
    """

    names: tuple[str, ...]
    n: int
    selected: int
    ratio: Finding | None
    note: str
    finding: str

    @property
    def rate(self) -> float | None:
        """selected / n; None if the category is empty."""
        return self.selected / self.n if self.n else None


@dataclass(frozen=True)
class ImpactTable:
    """The categories of one feature, or of an intersection; ``unknown`` rows belong to none, None where not counted."""

    features: tuple[str, ...]
    categories: tuple[Category, ...]
    unknown: int | None


def impact_tables(findings: Sequence[Finding], method: str) -> list[ImpactTable]:
    """The tables of impact ratios; ``method``: ``selection_rate`` or ``scoring_rate``."""
    own = [f for f in findings if f.method == method]
    unknown = {f.sensitive: int(f.value) for f in own if f.metric == "unknown_count" and f.value is not None}
    ratios = {tuple(f.group.items()): f for f in reversed(own) if f.metric == "impact_ratio"}
    tables: dict[tuple[str, ...], dict[tuple[str, ...], Category]] = {}
    for f in own:
        if f.metric != method or not f.group or not isinstance(f.estimate, Proportion):
            continue
        ratio, names = ratios.get(tuple(f.group.items())), tuple(f.group.values())
        note = f.detail if ratio is None else ratio.detail
        made = Category(names, f.estimate.n, f.estimate.successes, ratio, note, f.id)
        tables.setdefault(tuple(f.group), {}).setdefault(names, made)
    return [
        ImpactTable(features, tuple(categories.values()), unknown.get(features))
        for features, categories in tables.items()
    ]


def _impact(place: Place, method: str, selected: str, rate: str) -> list[Block]:
    tables = impact_tables(place.report.findings, method)
    if not tables:
        return [not_measured(f"no table of {rate}s", "--probes adverse_impact with --sensitive COLUMN")]
    blocks: list[Block] = []
    called = (place.report.about or About()).display_labels
    for own in tables:
        features = [called.column(name) for name in own.features]
        heads = ["Number", selected, rate.capitalize(), "Impact ratio", "Interval", "Note", "Finding"]
        people = _NOT_KNOWN if own.unknown is None else number_text.count(own.unknown)
        rows = (_category(category, own.features, place, called) for category in own.categories)
        blocks += [
            paragraph("By ", external_text(" x ".join(features)), ":"),
            table((*map(external_text, features), *heads), rows, "l" * len(own.features) + "rrrrlll"),
            paragraph(f"Category not known, and in no line above: {people}."),
        ]
    if len({len(table.features) for table in tables}) == 1 and len(tables[0].features) == 1:
        blocks.append(not_measured("the intersection", "name both columns with --sensitive"))
    return blocks


def _category(category: Category, features: Sequence[str], place: Place, labels: Labels) -> Sequence[str | Span]:
    ratio = category.ratio
    interval = (
        "" if ratio is None else f"{number_text.interval(ratio.interval)} at {number_text.confidence(ratio.confidence)}"
    )
    return (
        *(external_text(_labelled(*pair, labels)) for pair in zip(features, category.names, strict=True)),
        number_text.count(category.n),
        number_text.count(category.selected),
        number_text.number(category.rate),
        "left out" if ratio is None else number_text.number(ratio.value),
        interval,
        external_text(category.note),
        place.link(category.finding if ratio is None else ratio.id),
    )


def _labelled(feature: str, level: str, labels: Labels) -> str:
    """A category by its label, with the value that it stands for; without one the value alone."""
    word = labels.value(feature, level)
    return level if word == level else f"{word} ({level})"


@dataclass(frozen=True)
class Part:
    """One part of the record: its title and its content."""

    title: str
    blocks: Callable[[Place], list[Block]]


PARTS: dict[RecordPart, Part] = {
    "model": Part("The model", _model),
    "data": Part("The data", _data),
    "environment": Part("With what it was tested", _environment),
    "criteria": Part("Criteria, and who set them", _criteria),
    "promise": Part("How often these judgements may be wrong", _promise),
    "registration": Part("Registration", _registration),
    "decisions": Part("Decisions about earlier audits", _decisions),
    "selection rates": Part(
        "Selection rates and impact ratios", lambda p: _impact(p, "selection_rate", "Selected", "selection rate")
    ),
    "scoring rates": Part(
        "Scoring rates and impact ratios", lambda p: _impact(p, "scoring_rate", "Above the median", "scoring rate")
    ),
}
