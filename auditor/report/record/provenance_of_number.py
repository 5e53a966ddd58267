"""Provenance of a number in a report: the details under a finding, identical in every format."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel

from auditor.core.errors import UsageError, did_you_mean
from auditor.judging.criterion import CriterionRecord, load_criteria
from auditor.judging.measurement import Definition, definition_of
from auditor.report.record import finding_text, number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.translations import Catalogue

MOST_CONTROLS = 12
_MOST_PARTS, _MOST_GROUPS, _MOST_NUMBERS = 3, 8, 4
_LONGEST_STATISTIC = 300
# Flags by which code runs that is not auditor's: who copies a command of somebody else's report is to know.
RUNS_CODE = (
    "--probe", "--architecture", "--predict", "--generate", "--decoder", "--embedder", "--allow-code", "--trust-pickle",
    "--allow-unsandboxed",
)  # fmt: skip
# Where paper may break a name; text that is copied off it has it in it.
_BREAK = "\u200b"
# Of these the value says it all, or the reason.
_WITHOUT = ("exact", "undefined")


# What its probe, its estimate or a paper calls it.
_RECORDED = ("statistic", "test", "method", "source", "formula", "controls")


@dataclass(frozen=True)
class Part:
    """One line of a trace: its label, its content, and whether it is to be copied literally.

    ``recorded``: whether it is told as it was recorded, in English, whatever the language of its label.
    """

    label: str
    said: str
    code: bool = False
    recorded: bool = False


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The provenance of one finding; "" for unknown parts.

    ``place``: a JSON pointer into the record, which is ``report.json`` beside the report and ``record.json`` in the
    evidence bundle. ``command``: what makes the numbers again, or why there is none
    ``to_copy``; ``caution``: that code would run by it. ``controls``: of rule packs, which the finding serves.
    """

    finding: str
    definition: Definition | None
    formula: str
    statistic: str
    value: str
    interval: str
    test: str
    p_values: str
    criterion: str
    set_by: str
    standing: str
    method: str
    citation: str
    place: str
    command: str
    to_copy: bool
    caution: str
    controls: tuple[str, ...]
    say: Catalogue

    @property
    def parts(self) -> tuple[Part, ...]:
        """The lines for every format, in order, without empty ones."""
        labelled = (
            ("id", self.finding, True),
            ("formula", self.formula, False),
            ("statistic", self.statistic, False),
            ("value", self.value, False),
            ("interval", self.interval, False),
            ("test", self.test, False),
            ("p_values", self.p_values, False),
            ("criterion", self.criterion, False),
            ("set_by", self.set_by, False),
            ("standing", self.standing, False),
            ("controls", "; ".join(self.controls), False),
            ("method", self.method, False),
            ("source", self.citation, False),
            ("place", self.place, True),
            ("command", self.command, self.to_copy),
            ("caution", self.caution, False),
        )
        return tuple(
            Part(self.say.say(f"trace.{name}"), said, code, name in _RECORDED) for name, said, code in labelled if said
        )


def traces_of(report: AuditReport, say: Catalogue | None = None) -> list[Trace]:
    """The traces of all findings, in the order of the record; ``say``: its words, those of the record by default."""
    of = _Of(report, say)
    return [of.trace(i, finding) for i, finding in enumerate(report.findings)]


def trace_of(report: AuditReport, finding: Finding) -> Trace:
    """The trace of one finding of a record."""
    i = next(i for i, each in enumerate(report.findings) if each is finding or each == finding)
    return _Of(report).trace(i, finding)


def finding_named(report: AuditReport, name: str) -> Finding:
    """The finding with that id, the only one with that id suffix, or the only one of that metric.

    Raises UsageError where there is none, or several.
    """
    ids = [f.id for f in report.findings]
    name = off_paper(name, ids)
    exact = [f for f in report.findings if f.id == name]
    ending = exact or [f for f in report.findings if _ends(f.id, name)]
    of_metric = [] if ending else [f for f in report.findings if f.metric == name]
    if len(ending or of_metric) == 1:
        return (ending or of_metric)[0]
    if of_metric:
        some = ", ".join(number_text.visible(f.id) for f in of_metric[:5])
        raise UsageError(f"{len(of_metric)} findings are of the metric {name!r}: {some}. Give the whole id.")
    if ending:
        some = ", ".join(number_text.visible(f.id) for f in ending[:5])
        raise UsageError(f"{len(ending)} findings end in {name!r}: {some}. Give the whole id.")
    near = did_you_mean(name, ids) or "."
    raise UsageError(f"The report has no finding {name!r}{near} Its ids stand in the report, and in report.json.")


def off_paper(name: str, ids: Sequence[str]) -> str:
    """A name as in an id, without page line-break characters (U+200B, white space)."""
    if any(_ends(i, name) for i in ids):
        return name
    bare = _unbroken(name)
    # The part of an id that the name is, with the white space that is the id's own.
    ends = {"/".join(i.split("/")[at:]) for i in ids for at in range(i.count("/") + 1)} if bare != name else set()
    found = [end for end in ends if _unbroken(end) == bare]
    return found[0] if len(found) == 1 else name.replace(_BREAK, "")


def _ends(finding: str, name: str) -> bool:
    return finding == name or finding.endswith(f"/{name}")


def _unbroken(name: str) -> str:
    return "".join(name.replace(_BREAK, "").split())


def short_name(report: AuditReport, finding: Finding) -> str:
    """The shortest unique suffix of a finding's id after a slash, else the complete id."""
    parts = finding.id.split("/")
    ends = ["/".join(parts[i:]) for i in range(len(parts) - 1, 0, -1)]
    ids = [f.id for f in report.findings]
    return next((end for end in ends if sum(i == end or i.endswith(f"/{end}") for i in ids) == 1), finding.id)


class _Of:
    """What all traces of a record share."""

    def __init__(self, report: AuditReport, say: Catalogue | None = None) -> None:
        self.report = report
        self.say = report.catalogue(say)
        said = report.environment.command
        self.made_again = _reproduced_by(said)
        self.command = self.made_again or self.say.say("trace.foreign_command" if said else "trace.no_command")
        self.caution = caution_of(self.made_again, self.say)
        self.plan = self._plan()
        self.controls: dict[str, dict[str, None]] = {}
        for control in report.controls:
            for cell in control.cells:
                for name in cell.findings:
                    self.controls.setdefault(name, {})[f"{control.policy} {control.id}"] = None

    def trace(self, i: int, f: Finding) -> Trace:
        """The trace of the i-th finding."""
        say = self.say
        definition = None if f.metric is None else definition_of(self.report.definitions, f.probe, f.metric)
        formula = "" if f.metric is None else f"{f.metric}: " + (definition.formula if definition else "")
        undefined = f.metric is not None and definition is None
        controls = [*self.controls.get(f.id, ())]
        if len(controls) > MOST_CONTROLS:
            controls[MOST_CONTROLS:] = [say.say("trace.more", n=say.count(len(controls) - MOST_CONTROLS))]
        return Trace(
            finding=f.id,
            definition=definition,
            formula=f"{f.metric}: {say.say('trace.undefined')}" if undefined else formula,
            statistic=statistic_of(f.estimate),
            value=say.spelled(finding_text.value(f)),
            interval=_interval(f, say),
            test="" if f.estimate is None or f.interval is None else f.estimate.interval_test,
            p_values=_p_values(f, say),
            criterion=self._required(f.criterion),
            set_by=self._set_by(f.criterion),
            standing=self.plan if f.criterion is not None else "",
            method=", ".join(part for part in (f.probe, f.method) if part),
            citation=(definition.citation if definition else "") or f.citation,
            place=f"report.json#/findings/{i}",
            command=self.command,
            to_copy=bool(self.made_again),
            caution=self.caution,
            controls=tuple(controls),
            say=say,
        )

    def _required(self, criterion: CriterionRecord | None) -> str:
        if criterion is None:
            return self.say.say("trace.no_criterion")
        return " ".join(part for part in (criterion.metric, self.say.required(criterion), criterion.place) if part)

    def _set_by(self, criterion: CriterionRecord | None) -> str:
        """Who is said to have set a bound; that it is the tool's own is known only of those that it ships."""
        if criterion is None:
            return ""
        key = "trace.built_in" if criterion in _built_in() else "trace.own"
        return self.say.say(key, who=criterion.set_by, when=criterion.set_at, source=criterion.source)

    def _plan(self) -> str:
        plan = self.report.registration
        if plan is None:
            return self.say.say("trace.unregistered")
        return self.say.say(f"trace.{plan.adherence}", when=plan.registered)


@cache
def _built_in() -> Sequence[CriterionRecord]:
    return [criterion.record for criterion in load_criteria()]


def to_copy(command: str | None) -> str:
    """A record's command for a shell; "" if it is not a command of this toolkit.

    Whoever wrote the record may have written another: of what is copied, no word is more to a shell than a word.
    """
    words = _words(command)
    return shlex.join(words) if words[:1] == ["auditor"] else ""


def caution_of(command: str, say: Catalogue) -> str:
    """The warning that a command to copy would run code, in words; "" if it would not."""
    runs = runs_code(_words(command))
    return say.say("trace.runs_code", flags=", ".join(runs)) if runs else ""


def runs_code(words: Sequence[str]) -> list[str]:
    """The flags of a command that run code other than auditor's."""
    given = {word.partition("=")[0] for word in words}
    return [flag for flag in RUNS_CODE if flag in given]


def _words(command: str | None) -> list[str]:
    try:
        return shlex.split(command or "")
    except ValueError:
        return []


def _reproduced_by(command: str | None) -> str:
    """The command that makes a record's numbers again: of its evidence where the audit wrote some, else its own."""
    copied = to_copy(command)
    words = _words(copied)
    for i, word in enumerate(words):
        if word == "--bundle" and i + 1 < len(words):
            return shlex.join(["auditor", "evidence", "reproduce", words[i + 1]])
        if word.startswith("--bundle="):
            return shlex.join(["auditor", "evidence", "reproduce", word.removeprefix("--bundle=")])
    return copied


def _interval(f: Finding, say: Catalogue) -> str:
    if f.estimate is not None and f.estimate.kind == "exact":
        return say.say("trace.exact")
    if f.interval is None:
        return ""
    level = say.spelled(number_text.confidence(f.confidence))
    return f"{say.ends(f.interval)} {say.say('form.level', level=level)}"


def _p_values(f: Finding, say: Catalogue) -> str:
    if f.p_fail is None or f.p_pass is None or (f.estimate is not None and f.estimate.kind == "exact"):
        return ""
    said = f"FAIL {say.spelled(number_text.p_value(f.p_fail))}, PASS {say.spelled(number_text.p_value(f.p_pass))}"
    if f.p_fail_adjusted is None or f.p_pass_adjusted is None:
        return said
    fail, ok = (say.spelled(number_text.p_value(p)) for p in (f.p_fail_adjusted, f.p_pass_adjusted))
    budget = say.say("trace.in_budget", budget=say.pillar(f.budget)) if f.budget else ""
    return f"{said}; {say.say('trace.adjusted', fail=fail, ok=ok)}{budget}"


def statistic_of(estimate: BaseModel | None) -> str:
    """The sufficient statistics of an estimate in a line, k of n by group where there are groups."""
    if estimate is None or getattr(estimate, "kind", "") in _WITHOUT:
        return ""
    return number_text.shortened("; ".join(_statistic_lines(estimate)), _LONGEST_STATISTIC)


def _statistic_lines(part: BaseModel) -> Iterator[str]:
    named = {name: getattr(part, name) for name in type(part).model_fields if name != "kind"}
    label = named.pop("rate", "")
    counted = _k_of_n(named.get("successes"), named.get("n"))
    if counted:
        yield f"{label}: {counted}" if label else counted
        named = {name: value for name, value in named.items() if name not in ("successes", "n")}
    for name, value in named.items():
        words = name.replace("_", " ")
        match value:
            case BaseModel():
                yield from _statistic_lines(value)
            case tuple() if value and isinstance(value[0], BaseModel):
                for each in value[:_MOST_PARTS]:
                    yield ", ".join(_statistic_lines(each))
                if len(value) > _MOST_PARTS:
                    yield f"and {len(value) - _MOST_PARTS:,} more {words}"
            case tuple() if value and len(value) <= _MOST_NUMBERS:
                yield f"{words} " + ", ".join(_number(each) for each in value)
            case tuple() if value:
                yield f"{len(value):,} {words}"
            case bool() | None | "":
                pass
            case _ if not isinstance(value, tuple):
                yield f"{words} {_number(value)}"


def _k_of_n(k: object, n: object) -> str:
    """``45 of 112``, or so of each of several; "" where they are no such counts."""
    if isinstance(k, int) and isinstance(n, int):
        return f"{k:,} of {n:,}"
    if not (isinstance(k, tuple) and isinstance(n, tuple) and len(k) == len(n) and k):
        return ""
    shown = ", ".join(f"{a:,} of {b:,}" for a, b in zip(k[:_MOST_GROUPS], n, strict=False))
    return shown + (f" and {len(k) - _MOST_GROUPS:,} more" if len(k) > _MOST_GROUPS else "")


def _number(value: object) -> str:
    if isinstance(value, int):
        return number_text.count(value)
    return number_text.number(value) if isinstance(value, float) else str(value)
