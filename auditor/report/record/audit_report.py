"""The audit record: requests, findings and unanswered questions, as typed, versioned JSON.

Undefined and infinite numbers are ``null``. The schema of these types is shipped as ``report.schema.json`` beside this
file and a test holds the two together.
"""

from __future__ import annotations

import dataclasses
import html
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from auditor.core.errors import Code, DataError
from auditor.core.files import LEFT_OUT, UNSAID, Closed, Number, fields_in, write_beside
from auditor.core.number_types import Count
from auditor.judging.budgets import ErrorRate, Family
from auditor.judging.criterion import CriterionRecord
from auditor.judging.figure_types import Figure
from auditor.judging.input_files import Roles
from auditor.judging.judgement import Judgement, Waivers, is_waived
from auditor.judging.measurement import AuditQuestion, Copies, Definition, Outcome, Pillar, Twins
from auditor.judging.training_looks import TrainingRecord
from auditor.models.format_names import EVALUATION_LOG, NO_MODEL
from auditor.report.record.configuration import About, ConfigurationFile, ConfigurationRecord
from auditor.report.record.control_record import ControlRecord, PolicyRecord
from auditor.report.record.earlier_audits import DecisionRecord, LooksRecord, RegistrationRecord
from auditor.report.record.energy import EnergyRecord
from auditor.report.record.group_sizes import Missing
from auditor.report.record.report_formats import format_of, render, show_page
from auditor.report.record.sandbox_state import SandboxState
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.significance_tests import Multiplicity

if TYPE_CHECKING:
    import pandas as pd

    from auditor.report.record.translations import Catalogue

SCHEMA_VERSION = "1.0"
# What two audits of the same things by the same seed differ in.
NOT_REPEATED = ("created", "duration_s", "energy")
# Of the rules by which outcomes follow from what was measured: 1 was one family of judgements for a whole scan, 2 left
# small groups out of every comparison, bounded calibration errors given the scores, and gaps of means by a corner.
RULE = 3
_COLUMNS = (
    "outcome", "probe", "method", "metric", "sensitive", "group", "at", "value", "low", "high", "required",
    "n_samples", "n_required", "reason", "id",
)  # fmt: skip

INTAKE = "intake"
FILES = "files"
MOST_UNREADABLE = 100
# Judgements of the tool's own work, and of the file: a model of which nothing else was judged has not been audited.
_NOT_OF_THE_MODEL = frozenset({"completeness_error", "faithfulness_gain", "method_agreement"})


class ExitCode(IntEnum):
    """Exit codes of the command line; precedence 2, 4, 1, 3, 0."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    REFUSED = 4


class ModelRecord(Closed):
    """The audited model: its origin, its files with their digests, and their loading methods.

    ``dtype``: the numbers that a language model was computed in. ``root_sha256``: of a folder in an evidence bundle,
    the root digest over all of its files, as the OpenSSF Model Signing specification has it. ``stated_name``: what the
    log of an evaluation calls the model, by the word of whoever ran it.
    """

    path: str | None = None
    sha256: str | None = None
    root_sha256: Annotated[str | None, UNSAID] = None
    format: str = "in memory"
    loaded_by: str = "the caller"
    size_bytes: int | None = None
    n_parameters: int | None = None
    dtype: Annotated[str | None, UNSAID] = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stated_name: Annotated[str | None, UNSAID] = None

    @property
    def display_name(self) -> str:
        """The file name without folders, or a server's full address; without a file, what its log calls it, or a
        description.
        """
        if self.path is None and self.stated_name:
            return f"{self.stated_name} (as its log states)"
        if self.path is None:
            return "a model in memory" if self.format == "in memory" else self.format
        # An address ends in the version of its interface, which says nothing of the model.
        return self.path if self.format == "endpoint" else re.split(r"[/\\]", self.path.rstrip("/\\"))[-1]

    @property
    def subject_sha256(self) -> str | None:
        """The digest by which a signed statement names it: of a folder the root digest where there is one."""
        return self.root_sha256 or self.sha256


class DataRecord(Closed):
    """The evaluation data, and the training data if given.

    ``rows_sha256``: of the evaluation rows in no order, by which a file is known again that was shuffled or saved anew;
    None where nothing was to be known again. ``n_unreadable``: files that were to be rows and could not be read;
    ``unreadable``: a sentence on the first of them. ``cluster``, ``weight``: the columns that say which
    rows belong together and what they weigh. ``effective_n``: how many clusters of one size, or rows of one weight,
    they count as. ``cluster_at_most``, ``weight_at_most``: the most rows of a cluster and the largest weight that there
    can be, by somebody's word. ``copies``: rows that repeat others, where there are any. ``groups_sha256``: of the
    groups of the evaluation rows in their order, by sensitive feature, wherever they came from. ``groups``: how many of
    them are in each group, by sensitive feature; ``missing``: how many of them lack what.
    """

    path: str | None = None
    sha256: str | None = None
    rows_sha256: Annotated[str | None, UNSAID] = None
    n_rows: int | None = None
    target: str | None = None
    positive: str | None = None
    sensitive: tuple[str, ...] = ()
    train_path: str | None = None
    train_sha256: str | None = None
    n_train_rows: int | None = None
    unreadable: Annotated[tuple[str, ...], Field(max_length=MOST_UNREADABLE)] = ()
    n_unreadable: Count = 0
    notes: tuple[str, ...] = ()
    cluster: Annotated[str | None, UNSAID] = None
    n_clusters: Annotated[int | None, UNSAID] = None
    weight: Annotated[str | None, UNSAID] = None
    design_effect: Annotated[float | None, UNSAID] = None
    effective_n: Annotated[float | None, UNSAID] = None
    cluster_at_most: Annotated[int | None, UNSAID] = None
    weight_at_most: Annotated[float | None, UNSAID] = None
    copies: Annotated[Copies | None, UNSAID] = None
    groups_sha256: Annotated[dict[str, str] | None, UNSAID] = None
    groups: Annotated[dict[str, dict[str, int]] | None, UNSAID] = None
    missing: Annotated[Missing | None, UNSAID] = None


class Environment(Closed):
    """The environment of the audit; ``sandbox``: None if it ran in the caller's own process."""

    python: str
    platform: str
    packages: dict[str, str]
    device: str
    seed: int
    limits: dict[str, str] = Field(default_factory=dict)
    sandbox: SandboxState | None = None
    command: str | None = None

    @model_serializer(mode="wrap")
    def _as_it_was(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Records of before there was a sandbox are spelled as they were, so that their digests stay."""
        said: dict[str, object] = handler(self)
        return said if self.sandbox is not None else {name: each for name, each in said.items() if name != "sandbox"}


class BudgetRecord(Closed):
    """An error budget: its ``rate`` bounds any false FAIL and any false PASS over its judgements."""

    name: str
    rate: float
    questions: int
    judgements: int


class FamilyRecord(Closed):
    """The error guarantee over m judgements: that of each budget, or of one family's ``error_rate`` if no budgets are
    listed.

    ``rule``: the version of the rules by which outcomes follow from what was measured.
    """

    error_rate: ErrorRate
    multiplicity: Multiplicity
    m: int
    budgets: Annotated[tuple[BudgetRecord, ...], LEFT_OUT] = ()
    rule: Annotated[int, Field(exclude_if=lambda rule: rule == 1)] = 1

    @property
    def other_rule(self) -> bool:
        """Whether this version judges by another rule, so that it cannot check the outcomes."""
        return self.rule != RULE

    @property
    def total_rate(self) -> float:
        """The sum of the budgets' rates: of any false FAIL, and of any false PASS, in the whole scan."""
        return math.fsum(budget.rate for budget in self.budgets)


class Finding(Closed):
    """One finding; ``estimate`` contains the sufficient statistics from which all its numbers can be recomputed.

    ``chance``: of a number that shows skill, what a model without any comes to. ``vacuous``: why a PASS would say
    nothing of this model, such as that it answers all rows the same, or "". ``doubtful``: why nothing is judged of its
    rows, such as that they are copies of each other, or ""; ``powerless``: why no value could FAIL of so few rows, and
    how many it takes, or "". ``tried``: of a search, which ways were tried, which were
    not, and why not; ``weak``: why that it found nothing says little, or "". ``planted``: what its probe said of twins
    of the model with a known fault and without one; ``blind``: why it is by these neither PASS nor FAIL, or "".
    """

    id: str
    probe: str
    method: str | None
    pillar: Pillar
    metric: str | None
    group: dict[str, str]
    sensitive: tuple[str, ...]
    at: dict[str, str | float]
    value: Number
    ideal: Number = None
    chance: Annotated[Number, UNSAID] = None
    interval: tuple[Number, Number] | None
    confidence: Number
    p_fail: Number
    p_pass: Number
    n_samples: int | None
    outcome: Outcome
    criterion: CriterionRecord | None
    minimum_detectable_effect: Number
    n_required: int | None
    citation: str
    detail: str
    reason: str
    vacuous: Annotated[str, LEFT_OUT] = ""
    doubtful: Annotated[str, LEFT_OUT] = ""
    powerless: Annotated[str, LEFT_OUT] = ""
    tried: Annotated[str, LEFT_OUT] = ""
    weak: Annotated[str, LEFT_OUT] = ""
    budget: Annotated[str, LEFT_OUT] = ""
    p_fail_adjusted: Annotated[Number, UNSAID] = None
    p_pass_adjusted: Annotated[Number, UNSAID] = None
    alone: Annotated[Outcome | None, UNSAID] = None
    padding: Annotated[str, LEFT_OUT] = ""
    other_kind: Annotated[bool, LEFT_OUT] = False
    planted: Annotated[Twins | None, UNSAID] = None
    blind: Annotated[str, LEFT_OUT] = ""
    estimate: AnyEstimate | None = None

    @property
    def is_weakly_tested(self) -> bool:
        """Whether it lies within its bound, and is INCONCLUSIVE only because no stronger test was made."""
        return self.outcome is Outcome.INCONCLUSIVE and bool(self.weak) and self.reason.startswith(self.weak)

    @classmethod
    def from_judgement(cls, judgement: Judgement) -> Finding:
        """The record of a judgement."""
        m, held = judgement.measurement, judgement.criterion
        own: dict[str, Any]
        if m is None:
            own = {
                "method": None,
                "group": {},
                "sensitive": (),
                "at": {},
                "value": None,
                "n_samples": None,
                "detail": "",
            }
        else:
            own = fields_in(cls, m) | {"method": m.method or None, "value": m.estimate.value}
        return cls(**own | fields_in(cls, judgement) | {"criterion": held and held.record})


class Summary(Closed):
    """Numbers of findings by each of the six outcomes."""

    passed: Annotated[int, Field(alias="pass")]
    fail: int
    inconclusive: int
    not_run: int
    not_applicable: int
    not_judged: int

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    @classmethod
    def from_outcomes(cls, outcomes: Iterable[Outcome]) -> Summary:
        """Counts of the outcomes."""
        all_of_them = list(outcomes)
        return cls(
            passed=all_of_them.count(Outcome.PASS),
            fail=all_of_them.count(Outcome.FAIL),
            inconclusive=all_of_them.count(Outcome.INCONCLUSIVE),
            not_run=all_of_them.count(Outcome.NOT_RUN),
            not_applicable=all_of_them.count(Outcome.NOT_APPLICABLE),
            not_judged=all_of_them.count(Outcome.NOT_JUDGED),
        )

    def count(self, outcome: Outcome) -> int:
        """The number of findings with this outcome."""
        return int(getattr(self, "passed" if outcome is Outcome.PASS else outcome.value.lower()))


class Refusal(Closed):
    """The reason why the model or the data were not accepted.

    ``code`` is which of them; ``reason_code`` the stable code of :data:`auditor.core.errors.Code`, None in records
    of before there were any.
    """

    code: str
    reason: str
    reason_code: Code | None = None

    @property
    def printed_code(self) -> str:
        """The code to print."""
        return self.reason_code or self.code

    @model_serializer(mode="wrap")
    def _as_it_was(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Records of before there were codes are spelled as they were, so that their digests stay."""
        said: dict[str, object] = handler(self)
        return {name: each for name, each in said.items() if each is not None}


class AuditReport(Closed):
    """The result of one audit: what was measured, what is allowed, and how each comparison ended.

    In a notebook the report shows itself. ``exit_code``: 0 passed, 1 failed, 3 not shown either way, 4 refused.
    ``failures``: the findings that FAIL; ``findings``: all; ``to_frame()``: all as a table. ``save(path)`` writes a
    file by its ending, ``show()`` opens the page, ``to_html()`` and ``to_json()`` return it as text.
    ``AuditReport.from_json(text)`` reads a report again, and ``auditor.compare(before, after)`` compares two.
    """

    schema_version: str = SCHEMA_VERSION
    created: str
    tool: dict[str, str]
    model: ModelRecord
    data: DataRecord
    environment: Environment
    family: FamilyRecord
    criteria: tuple[CriterionRecord, ...]
    findings: tuple[Finding, ...]
    figures: tuple[Figure, ...]
    summary: Summary
    refusal: Refusal | None
    allow_inconclusive: Waivers = False
    no_controls: Annotated[bool, LEFT_OUT] = False
    decisions: tuple[DecisionRecord, ...] = ()
    policies: tuple[PolicyRecord, ...] = ()
    controls: tuple[ControlRecord, ...] = ()
    registration: RegistrationRecord | None = None
    looks: Annotated[LooksRecord | None, UNSAID] = None
    training: Annotated[TrainingRecord | None, UNSAID] = None
    about: Annotated[About | None, UNSAID] = None
    roles: Annotated[Roles | None, UNSAID] = None
    configuration: Annotated[ConfigurationRecord | None, UNSAID] = None
    definitions: Annotated[tuple[Definition, ...], LEFT_OUT] = ()
    questions: Annotated[dict[str, tuple[AuditQuestion, ...]], LEFT_OUT] = Field(default_factory=dict)
    energy: Annotated[EnergyRecord | None, UNSAID] = None
    duration_s: float
    exit_code: int

    @property
    def obeyed(self) -> tuple[ConfigurationFile, ...]:
        """The files that determined the audit; unknown for older records."""
        return () if self.configuration is None else self.configuration.files

    @property
    def rows_alone(self) -> bool:
        """Whether rows were audited before there is a model."""
        return self.model.format == NO_MODEL

    @property
    def subject(self) -> str:
        """The audited file's name without its folders: of rows alone that of the training rows."""
        if not self.rows_alone:
            return self.model.display_name
        path = self.data.train_path or self.data.path
        return "rows in memory" if path is None else re.split(r"[/\\]", path.rstrip("/\\"))[-1]

    def catalogue(self, say: Catalogue | None = None) -> Catalogue:
        """The words in which it is told: ``say``, by default those of audit.toml; with what is said instead of rows
        without a model, of the log of an evaluation, and of a model that was asked without rows."""
        words = say or (self.about or About()).catalogue
        if self.rows_alone:
            return dataclasses.replace(words, instead="rows_alone")
        if self.model.format.startswith(EVALUATION_LOG):
            return dataclasses.replace(words, instead="of_log")
        return words if self.data.n_rows or self.refusal else dataclasses.replace(words, instead="without_rows")

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that are shown to exceed what is allowed."""
        return tuple(finding for finding in self.findings if finding.outcome is Outcome.FAIL)

    def to_json(self) -> str:
        """The record as indented JSON."""
        return self.model_dump_json(indent=2) + "\n"

    def to_html(self) -> str:
        """The report as one HTML page, which loads nothing else."""
        return render(self, "html").decode()

    def save(self, path: str | PathLike[str]) -> None:
        """Write the report in the format that the file's name ends in: .html, .json, .md, .pdf, .csv, .sarif,
        .junit.xml, .model-card.md, .model-card.json, .cdx.json or .eee.json.

        Raises UsageError for another ending, MissingExtraError where a format needs a package that is absent.
        """
        write_beside(fspath(path), render(self, format_of(fspath(path))))

    def show(self) -> None:
        """Show the page: below the cell in a notebook, else in the browser."""
        show_page(self.to_html())

    def __dir__(self) -> list[str]:
        """What a reader of reports uses, without the methods of the base class."""
        return sorted(
            {*type(self).model_fields, *(name for name in vars(AuditReport) if not name.startswith(("_", "model_")))}
        )

    def verdict(self, *, allow_inconclusive: Waivers = False) -> ExitCode:
        """The exit code derived from the findings, independent of the recorded one."""
        return exit_code(self.findings, was_refused=self.refusal is not None, allow_inconclusive=allow_inconclusive)

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame with one row per finding: measurement, location, interval, and outcome."""
        import pandas as pd

        rows = [_row(finding) for finding in self.findings]
        return pd.DataFrame(rows, columns=_COLUMNS)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, how often each outcome, and every finding that is judged or was lost."""
        counted = Counter(finding.outcome for finding in self.findings)
        said = ", ".join(f"{counted[outcome]} {outcome.value}" for outcome in Outcome)
        if self.refusal is not None:
            said = f"{self.refusal.reason} {said}"
        shown = [f for f in self.findings if f.criterion is not None or f.outcome is Outcome.NOT_RUN]
        rows = "".join(
            f"<tr><th scope='row'>{f.outcome.value}</th>"
            + "".join(f"<td>{html.escape(text)}</td>" for text in _in_short(f))
            + "</tr>"
            for f in sorted(shown, key=lambda f: list(Outcome).index(f.outcome))
        )
        head = "".join(f"<th scope='col'>{name}</th>" for name in ("outcome", "number", "value", "required", "why"))
        return (
            f"<p><strong>Exit code {int(self.exit_code)}</strong>: {html.escape(said)}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> AuditReport:
        """Read a record; DataError if it is none, or of a newer schema than this version supports."""
        try:
            report = cls.model_validate_json(text)
        except ValidationError as error:
            try:
                _Version.model_validate_json(text).check()
            except ValidationError:
                pass
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"]) or "the file"
            raise DataError(f"This is not a report of schema {SCHEMA_VERSION}: {where}: {first['msg']}.") from None
        _Version(schema_version=report.schema_version).check()
        return report


def _row(finding: Finding) -> tuple[object, ...]:
    """A finding as a row of :meth:`AuditReport.to_frame`, in the order of ``_COLUMNS``."""
    low, high = finding.interval or (None, None)
    return (
        finding.outcome.value,
        finding.probe,
        finding.method,
        finding.metric,
        " x ".join(finding.sensitive) or None,
        ", ".join(f"{k}={v}" for k, v in finding.group.items()) or None,
        ", ".join(f"{k}={v}" for k, v in finding.at.items()) or None,
        finding.value,
        low,
        high,
        finding.criterion.describe() if finding.criterion else None,
        finding.n_samples,
        finding.n_required,
        finding.reason,
        finding.id,
    )


def _in_short(finding: Finding) -> tuple[str, str, str, str]:
    of = ", ".join([*finding.sensitive, *(f"{k}={v}" for k, v in finding.group.items())])
    number = f"{finding.metric or finding.probe}{f' by {of}' if of else ''} ({finding.probe})"
    value = "undefined" if finding.value is None else f"{finding.value:.3g}"
    if finding.interval is not None:
        value += " [" + ", ".join("?" if end is None else f"{end:.3g}" for end in finding.interval) + "]"
    required = finding.criterion.describe() if finding.criterion is not None else ""
    return number, value if finding.metric is not None else "", required, finding.reason


class _Version(BaseModel):
    """The schema that a file says it follows, whatever else is in it."""

    schema_version: str

    def check(self) -> None:
        """Raises DataError where it is newer than this version knows."""
        if is_newer(self.schema_version):
            raise DataError(
                f"This report has schema {self.schema_version!r}, and this auditor reads schemas up to "
                f"{SCHEMA_VERSION}: read it with the auditor that wrote it, or a newer one."
            )


def is_newer(schema_version: str) -> bool:
    """Whether a record's schema is newer than this version supports."""
    return _numbers(schema_version) > _numbers(SCHEMA_VERSION)


def _numbers(version: str) -> tuple[int, ...]:
    """A version as numbers; what is none is newer than any."""
    try:
        return tuple(int(part) for part in version.split("."))
    except ValueError:
        return (sys.maxsize,)


def exit_code(
    findings: Sequence[Judgement | Finding], *, was_refused: bool, allow_inconclusive: Waivers = False
) -> ExitCode:
    """The exit code of a scan.

    4 where model or data were refused; else 1 where anything FAILed; else 3 where anything was INCONCLUSIVE or NOT_RUN,
    or where no probe's number was judged at all (checks of the file itself and of an explanation's own arithmetic do
    not count: a file that loads is not an audited model; nor do requirements that could hardly be missed, nor that a
    model knows something at all); else 0.
    ``allow_inconclusive`` forgives what :func:`is_waived` says.
    """
    if was_refused:
        return ExitCode.REFUSED
    if any(f.outcome is Outcome.FAIL for f in findings):
        return ExitCode.FAILED
    nothing_judged = not any(
        (f.outcome is Outcome.PASS or (is_waived(f, allow_inconclusive) and _could_tell(f)))
        and f.pillar != INTAKE
        and f.metric not in _NOT_OF_THE_MODEL
        and not f.padding
        and not _is_skill_alone(f)
        for f in findings
    )
    unsettled = any(
        f.outcome is Outcome.NOT_RUN or (f.outcome is Outcome.INCONCLUSIVE and not is_waived(f, allow_inconclusive))
        for f in findings
    )
    return ExitCode.INCONCLUSIVE if nothing_judged or unsettled else ExitCode.PASSED


def _could_tell(finding: Judgement | Finding) -> bool:
    """Whether an INCONCLUSIVE finding was judged at all: of what is not known in any way both p-values are 1."""
    known = {finding.p_fail, finding.p_pass} - {None}
    return finding.outcome is Outcome.INCONCLUSIVE and bool(known) and known != {1.0}


def _is_skill_alone(finding: Judgement | Finding) -> bool:
    """Whether no more is required than to be better than chance, which every other question takes for granted."""
    criterion = finding.criterion
    return finding.chance is not None and criterion is not None and criterion.bound == finding.chance


def family_record(family: Family) -> FamilyRecord:
    """The record of a family."""
    return FamilyRecord(
        error_rate=family.error_rate,
        multiplicity=family.multiplicity,
        m=family.m,
        budgets=tuple(BudgetRecord(**dataclasses.asdict(budget)) for budget in family.budgets),
        rule=RULE,
    )


def measurement_label(finding: Finding) -> str:
    """A finding's number in words, such as ``selection_rate, sex = female``."""
    parts = [finding.metric or "no measurement"]
    if finding.sensitive:
        parts.append("by " + " x ".join(finding.sensitive))
    parts += [f"{k} = {v}" for k, v in finding.group.items()]
    parts += [f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in finding.at.items()]
    return ", ".join(parts)
