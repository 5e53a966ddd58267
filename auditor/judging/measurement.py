"""Measurements of a probe, before any judgement: metric definitions, outcomes, doubts about duplicate rows.

A probe states those of its metrics in its class attribute ``metrics``, as text of one entry each, whose further lines
are indented::

    metrics = define_metrics(
        '''
        name, other_name: formula; [low, high], ideal value; how to read a value; source
        '''
    )

Names may hold ``*`` where they are made of others, such as ``accuracy_under_*``. "no ideal" stands where no value is
better than another; without a source it is the probe's own.
"""

from __future__ import annotations

import inspect
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from auditor.core.files import LEFT_OUT, UNSAID, Closed
from auditor.core.number_types import Count, PositiveCount
from auditor.judging.figure_types import Figure
from auditor.statistics.estimate_kinds import AnyEstimate

NO_IDEAL = "no ideal"
_ENTRY = re.compile(r"([\w*]+(?:, [\w*]+)*): (.+?); ([\[({].*?), ((?:no )?ideal.*?); (.+?)(?:; (.+))?")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One metric of one probe; ``metric`` may contain ``*`` for the variable part of its names."""

    probe: str
    metric: str
    formula: str
    range: str
    ideal: str
    reading: str
    citation: str

    def fits(self, probe: str, metric: str) -> bool:
        """Whether the definition applies to a probe's metric."""
        return probe == self.probe and (metric == self.metric or fnmatchcase(metric, self.metric))


def definition_of(definitions: Sequence[Definition], probe: str, metric: str) -> Definition | None:
    """The definition of a number: by exact name, else the first matching pattern; None without one."""
    fitting = [each for each in definitions if each.fits(probe, metric)]
    return next((each for each in fitting if each.metric == metric), fitting[0] if fitting else None)


def define_metrics(text: str, *shared: Definition) -> tuple[Definition, ...]:
    """The definitions that a text states, then ``shared`` ones; ValueError for an entry of another form."""
    definitions: list[Definition] = []
    for entry in re.sub(r"\n +", " ", inspect.cleandoc(text)).splitlines():
        parts = _ENTRY.fullmatch(entry)
        if parts is None:
            raise ValueError(
                "Write a definition as 'name: formula; [low, high], ideal value; how to read a value; source', "
                f"not as {entry!r}."
            )
        names, formula, span, ideal, reading, source = parts.groups(default="")
        definitions += [
            Definition(
                probe="",
                metric=metric,
                formula=formula,
                range=span,
                ideal=ideal.removeprefix("ideal "),
                reading=reading,
                citation=source,
            )
            for metric in names.split(", ")
        ]
    return (*definitions, *shared)


def select_definitions(
    probe: str, citation: str, declared: Iterable[Definition], metrics: Iterable[str]
) -> tuple[Definition, ...]:
    """The declared definitions of those metrics, each once, as the probe's; the first of several wins.

    ``citation``: of the probe, for a definition that names no source of its own.
    """
    known = [replace(each, probe=probe, citation=each.citation or citation) for each in declared]
    found = (definition_of(known, probe, metric) for metric in dict.fromkeys(metrics))
    return tuple(dict.fromkeys(each for each in found if each is not None))


# Of all rows; fewer may be chance, and widen nothing that anybody would see.
MOST_COPIES = 0.01
_BY_ACCIDENT = 1e-6
_OCCUR, _EXPECTED = 0.25, 0.5


class Copies(Closed):
    """The number of ``n`` rows that repeat an earlier one in all columns of the file.

    ``combinations``: how many different rows the values of each column allow for, n + 1 for any more than n.
    ``divisor``: what the number of copies of every different row is a multiple of, or of all but a few.
    ``expected``: of columns of few values each, how many different rows there would be if these were related in pairs
    alone, which is more than there are where more of them are related; 0 of other columns. ``but_for``: of near copies,
    what they differ in, in words.
    """

    n: Count
    copies: Count
    combinations: Count
    divisor: PositiveCount = 1
    expected: Annotated[Count, LEFT_OUT] = 0
    but_for: Annotated[str, LEFT_OUT] = ""

    @property
    def share(self) -> float:
        """Copies among all rows; 0 of none."""
        return self.copies / self.n if self.n else 0.0

    @property
    def by_chance(self) -> bool:
        """Whether repeated rows are expected of what their columns hold, without pasted copies.

        There are more rows than possible ones, of which a quarter occurs; or all columns have few values, and there are
        more than half as many different rows as are expected. Of rows drawn again and again from a few, values go
        together that need not. Numbers of copies are all multiples of d by accident with a probability of about
        ``d^-k`` for k different rows.
        """
        different = self.n - self.copies
        pasted = different * math.log(self.divisor) > -math.log(_BY_ACCIDENT)
        possible = self.combinations <= self.n and different >= _OCCUR * self.combinations
        likely = self.expected > 0 and different >= _EXPECTED * self.expected
        return (possible or likely) and not pasted


def why_doubtful(copies: Copies | None) -> str:
    """The reason why numbers on these rows are not judged, with advice; "" if they may be.

    More than 1 % of copies: a file pasted twelve times has the rows of one, and its intervals are 3.5 times too narrow.
    Rows of a few columns with a few values each repeat of themselves: nothing is said there unless all do alike.
    """
    if copies is None or not copies.share > MOST_COPIES or copies.by_chance:
        return ""
    which = "exact copies of other rows"
    if copies.but_for:
        which = (
            f"near copies of other rows, which differ in {copies.but_for} alone, and too many occur {copies.divisor:,} "
            "times for chance"
        )
    return (
        f"{copies.copies:,} of {copies.n:,} rows ({copies.share:.1%}) are {which}, and intervals "
        "take rows as independent. Leave the copies out, or name the column that says which rows belong together with "
        "--cluster COLUMN; if they are of different people who only happen to agree, say --copies-are-real."
    )


Pillar = Literal["performance", "fairness", "language", "attribution", "privacy", "robustness", "deepfake", "intake"]
# Which of a model's answers: the class or number it decides on, the scores behind it, or scores of texts as far as they
# tell what makes sense.
Answer = Literal["decisions", "scores", "sense"]
# How a number is read: as so many points of a share, a share, a share of pairs, a ratio, a count, or as it stands.
Form = Literal["points", "percent", "pairs", "ratio", "count", "number"]


class Outcome(StrEnum):
    """The six possible outcomes of a finding; the first three are judgements."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_RUN = "NOT_RUN"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    NOT_JUDGED = "NOT_JUDGED"

    @property
    def words(self) -> str:
        """The outcome as printed: ``NOT RUN``."""
        return self.value.replace("_", " ")

    @property
    def slug(self) -> str:
        """The outcome in templates, styles and scripts: ``not-run``."""
        return self.value.lower().replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number with its uncertainty and its location, without judgement.

    ``metric``: the field's name in snake_case. ``n_samples``: rows of the file that the number is about, of a per-group
    number those of the group: texts, prompts or pairs where those are its rows. A rate is often taken over fewer, such
    as those with the favourable label; they stand in the estimate, and ``detail`` says so. ``ideal``: the value of a
    model without fault, None where none is better.
    ``sensitive``: the features a headline compares groups of. ``group``: the group a per-group number belongs to.
    ``at``: the other coordinates, such as ``{"feature": "age"}`` or ``{"noise": 0.1}``. ``too_few``: why the number may
    be shown but not judged, or "".
    ``ideal_when_same``: which of the model's answers, by being the same for all rows, bring the number to its ideal, so
    that a PASS needs a model that tells rows apart (:mod:`auditor.judging.judgement`); None stands for "decisions" in a
    headline that compares groups, and for "nothing" in any other number. ``chance``: of a number that shows skill, what
    a model without any comes to; there is skill where the number is shown to lie above it. ``skill_of``: the answers
    whose skill it is, None for those of both kinds. ``smallest``: rows of the smallest group that a headline compares,
    where it leaves out smaller ones, else 0. ``masked``: of what an attack found, by which signs the model hides its
    gradient, in words, so that what it did not find says nothing; "" where there is none.
    ``part``: whether another number of the probe answers the question with this one as a part of it, so that it is
    judged only where its method is named. ``tried``: of a search, which ways were tried, which were not, and why not;
    of other numbers what they take as given. ``weak``: why finding nothing would say little, in a sentence, so that a
    PASS is INCONCLUSIVE; else "".
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    metric: str
    estimate: AnyEstimate
    n_samples: int
    method: str = ""
    ideal: float | None = None
    sensitive: tuple[str, ...] = ()
    group: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, str | float] = field(default_factory=dict)
    detail: str = ""
    too_few: str = ""
    n_needed: int | None = None
    figure: Figure | None = None
    ideal_when_same: Annotated[Answer | Literal["nothing"] | None, LEFT_OUT] = None
    chance: Annotated[float | None, UNSAID] = None
    skill_of: Annotated[Answer | None, UNSAID] = None
    smallest: Annotated[int, LEFT_OUT] = 0
    masked: Annotated[str, LEFT_OUT] = ""
    part: Annotated[bool, LEFT_OUT] = False
    tried: Annotated[str, LEFT_OUT] = ""
    weak: Annotated[str, LEFT_OUT] = ""

    @property
    def rests_on(self) -> Answer | None:
        """The answers that must differ between rows for a meaningful number; None if none must."""
        if self.ideal_when_same is None:
            return "decisions" if self.sensitive else None
        return None if self.ideal_when_same == "nothing" else self.ideal_when_same


@dataclass(frozen=True)
class AuditQuestion:
    """A question that some of a probe's numbers answer; its wording is in the catalogues under ``id``.

    ``metrics``: those that answer it, as patterns; the first question that fits a number is its question. ``headline``:
    those of them that are told on the first page where nobody set a bound and the interval leaves the ideal out.
    """

    id: str
    metrics: tuple[str, ...] = ("*",)
    form: Form = "number"
    headline: Annotated[tuple[str, ...], LEFT_OUT] = ()

    def fits(self, metric: str) -> bool:
        """Whether a number of the probe answers the question."""
        return any(fnmatchcase(metric, name) for name in self.metrics)


@dataclass(frozen=True, kw_only=True)
class Alike:
    """Rows with identical model answers: all ``n`` of a ``group``, or of the data if it is empty.

    A group is listed for its decisions alone, and only where they are not simply right: a group whose rows truly are of
    one class may get one answer.
    """

    answer: Answer
    n: int
    group: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Twins of the audited model in which the true value of a number is known: which of them were shown to FAIL.

    ``value``: planted in ``planted`` of them, of which ``seen`` FAILed; of the ``clean`` ones, at the ideal,
    ``alarmed`` did. ``rows``: how many of the audit's rows each of them has, where that is not all. ``why``: why there
    are none, or "".
    """

    value: Annotated[float | None, UNSAID] = None
    seen: Count = 0
    planted: Count = 0
    alarmed: Count = 0
    clean: Count = 0
    rows: Annotated[Count, LEFT_OUT] = 0
    why: Annotated[str, LEFT_OUT] = ""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """The planted controls of one judged number, against one ``bound``, at the significance ``level`` of its FAIL."""

    metric: str
    method: str
    sensitive: tuple[str, ...]
    group: Mapping[str, str]
    at: Mapping[str, str | float]
    bound: float | tuple[float, float]
    level: float
    twins: Twins

    def is_about(self, measurement: Measurement) -> bool:
        """Whether it is about that number."""
        return all(
            getattr(self, name) == getattr(measurement, name)
            for name in ("metric", "method", "sensitive", "group", "at")
        )


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The result of one probe: its measurements, or the reason for their absence.

    ``other_kind``: whether it is not applicable since it asks about another kind of model or rows, which no input
    mends. ``by_default``: whether nobody asked for the probe by name. ``alike``: which rows the model answers alike,
    where a measurement rests on their differing. ``copies``: how many of the rows it looked at repeat others, where
    somebody counted them. ``definitions``: of its measurements, as far as the probe declares them. ``questions``: as
    the probe declares them. ``cpu_s``, ``flops``, ``flops_by``: what it took, as in
    :class:`auditor.report.record.energy.EnergyRecord`. ``by_code``: whether code of the user's measured it, in a
    process of its own that had the labels. ``planted``: the planted controls of its judged numbers.
    """

    probe: str
    pillar: Pillar
    citation: str
    measurements: tuple[Measurement, ...] = ()
    not_run: str = ""
    not_applicable: str = ""
    other_kind: Annotated[bool, LEFT_OUT] = False
    by_default: Annotated[bool, LEFT_OUT] = False
    alike: Annotated[tuple[Alike, ...], LEFT_OUT] = ()
    copies: Annotated[Copies | None, UNSAID] = None
    definitions: Annotated[tuple[Definition, ...], LEFT_OUT] = ()
    questions: Annotated[tuple[AuditQuestion, ...], LEFT_OUT] = ()
    duration_s: float = 0.0
    cpu_s: Annotated[float, Field(ge=0.0, exclude_if=operator.not_)] = 0.0
    flops: Annotated[float | None, Field(ge=0.0, exclude_if=lambda flops: flops is None)] = None
    flops_by: Annotated[Literal["", "counted", "estimated"], LEFT_OUT] = ""
    by_code: Annotated[bool, LEFT_OUT] = False
    planted: Annotated[tuple[Planted, ...], LEFT_OUT] = ()
