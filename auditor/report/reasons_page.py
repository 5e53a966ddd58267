"""Explanations of rows for reading: a sentence for the person concerned, sections, a chart of the reasons; and as JSON.

Words are those of a catalogue; what the audited process recorded of a row is English in every language.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup
from pydantic import Field

from auditor.core.files import Closed
from auditor.judging.figure_types import Figure, Series
from auditor.judging.row_explanations import (
    MOST_APART,
    Change,
    ExplainedRow,
    ReasonCode,
    Recourse,
    SensitiveNote,
    Value,
)
from auditor.report.html import content_policy, environment, figure_svg, moment, resource
from auditor.report.record.audit_report import DataRecord, ModelRecord
from auditor.report.record.configuration import About, Labels, spelled
from auditor.report.record.number_text import number, percent
from auditor.report.record.translations import Catalogue
from auditor.report.report_view import drawn_as, language_tag

# Whole numbers of these centuries in a column of such a name are written without separators.
_YEAR = re.compile(r"year|jahr", re.IGNORECASE)
_METHODS = ("shap_linear", "shap_tree", "integrated_gradients", "shap_permutation")


class Explanation(Closed):
    """``explanation.json``: everything that was found of the rows. ``target``: the column whose values decisions are;
    ``labels``, ``about``: the display names and the language they are reported in."""

    schema_version: Literal["2"] = "2"
    tool: str
    created: str
    command: str
    seed: int
    model: ModelRecord
    data: DataRecord
    target: str | None
    labels: dict[str, str]
    about: About = Field(default_factory=About)
    rows: tuple[ExplainedRow, ...]
    exit_code: int


@dataclass(frozen=True)
class Section:
    """Sentences under a heading; ``loud``: a warning that must be visible.

    ``shares``: of numbered lines, the length of each one's bar, 1 for the longest.
    """

    heading: str
    lines: tuple[str, ...]
    loud: bool = False
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Wording:
    """What rows are told in: a catalogue, display names, the column of the decisions, and the favourable one."""

    say: Catalogue
    labels: Labels
    target: str | None
    favourable: str | None

    @classmethod
    def of_explanation(cls, explanation: Explanation) -> Wording:
        """The wording that an explanation names."""
        return cls(
            explanation.about.catalogue, Labels(explanation.labels), explanation.target, explanation.data.positive
        )

    def number(self, x: float) -> str:
        """A number with three digits."""
        return self.say.spelled(number(x))

    def value(self, column: str | None, value: Value) -> str:
        """A value of a column: its display name, or a number with commas, a fraction with at most six digits."""
        if value is None:
            return self.say.say("explain.missing")
        if not self.is_number(column, value) or isinstance(value, str):
            return self.labels.value(column, value)
        if 1900 <= value <= 2100 and value == int(value) and _YEAR.search(column or ""):
            return str(int(value))
        # Six digits would round it to a million or more, which they write as a power of ten.
        whole = isinstance(value, int) or 999_999.5 <= abs(value) < 1e15
        return self.say.spelled(f"{value:,.0f}" if whole else f"{value:,.6g}")

    def required_value(self, change: Change) -> str:
        """The value that a change asks for, in all its digits: rounded, it might not flip the decision."""
        shown = self.value(change.feature, change.then)
        if not self.is_number(change.feature, change.then) or isinstance(change.then, str | bool | int | None):
            return shown
        if change.then.is_integer() and abs(change.then) < 1e15:
            return shown
        return self.say.spelled(f"{change.then:,}")

    def is_number(self, column: str | None, value: Value) -> bool:
        """Whether a value is shown as a number."""
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return plain and f"{column}.{spelled(value)}" not in self.labels.words

    def named(self, feature: str, value: Value) -> str:
        """A column and its value."""
        return f"{self.labels.column(feature)} = {self.value(feature, value)}"


def reading(say: Catalogue) -> str:
    """What an explanation is and is not."""
    return say.say("explain.reading")


def title(row: ExplainedRow, words: Wording) -> str:
    """The row and its decision."""
    say, decided = words.say, words.value(words.target, row.decision)
    return say.say(
        "explain.title",
        n=say.count(row.row) + (f" ({row.named_by})" if row.named_by else ""),
        decision=decided if words.target is None else f"{words.labels.column(words.target)}: {decided}",
        kind=say.say("explain.is_favourable" if row.favourable else "explain.is_unfavourable"),
        probability=words.number(row.probability),
    )


def person_sentence(row: ExplainedRow, words: Wording) -> str:
    """What counted most, and what would have changed the decision, as one may tell the person concerned.

    The change is one that the model was asked about; of several, the one of what counted most.
    """
    say, first = words.say, (row.reasons[0] if row.reasons else None)
    if first is None:
        reason = say.say("person.refused")
    elif row.kind == "word":
        reason = say.say("person.word", feature=first.feature)
    else:
        reason = say.say(
            "person.number" if words.is_number(first.feature, first.value) else "person.entry",
            feature=words.labels.column(first.feature),
            value=words.value(first.feature, first.value),
        )
    if row.favourable or row.kind == "word":
        return f"{reason}." if first is None else say.say("person.alone", reason=reason)
    return say.say(
        "person.both", reason=reason, change=_what_flips(row, None if first is None else first.feature, words)
    )


def _what_flips(row: ExplainedRow, leading: str | None, words: Wording) -> str:
    found = row.recourse.found
    own = next((r for r in found if [c.feature for c in r.changes] == [leading]), None)
    chosen = own or next(iter(found), None)
    if chosen is None:
        return words.say.say("person.none")
    changes = []
    for change in chosen.changes:
        plain = words.is_number(change.feature, change.then)
        then, now = words.required_value(change), words.value(change.feature, change.now)
        key = f"person.{'own' if own else 'other'}_{'number' if plain else 'entry'}"
        blanks = {"then": then} if own else {"feature": words.labels.column(change.feature), "then": then, "now": now}
        changes.append(words.say.say(key, **blanks))
    answer = words.value(words.target, words.favourable or "")
    return words.say.say("person.change", changes=words.say.say("person.and").join(changes), decision=answer)


def sections(row: ExplainedRow, words: Wording) -> tuple[Section, ...]:
    """The explanation of a row, in the order of importance to the person concerned."""
    say = words.say
    found = [Section(say.say("explain.sentence"), (person_sentence(row, words),)), _reasons(row, words)]
    if row.sensitive:
        lines = tuple(_sensitive_sentence(note, words) for note in row.sensitive)
        found.append(Section(say.say("explain.sensitive"), lines, loud=True))
    found += [_recourse(row, words), *_near(row, words)]
    found.append(Section(say.say("explain.how"), _method_lines(row, words)))
    return tuple(part for part in found if part.lines)


def _reasons(row: ExplainedRow, words: Wording) -> Section:
    say = words.say
    heading = say.say("explain.for_favourable" if row.favourable else "explain.for_refusal")
    if row.faithfulness.refused:
        return Section(heading, (say.say("explain.refused", why=row.faithfulness.refused),), loud=True)
    lines = []
    for i, reason in enumerate(row.reasons, 1):
        lines.append(
            say.say(
                "explain.contributes",
                what=_what(row, reason, words) + (f" ({say.say('explain.mark')})" if reason.sensitive else ""),
                value=words.number(reason.contribution),
                low=words.number(reason.low),
                high=words.number(reason.high),
                rank=say.count(i),
                times=say.count(reason.at_rank),
                n=say.count(row.n_draws),
            )
        )
    if row.left_out:
        lines.append(say.count_text("explain.left_out", row.left_out))
    longest = max((reason.contribution for reason in row.reasons), default=1.0)
    return Section(heading, tuple(lines), shares=tuple(reason.contribution / longest for reason in row.reasons))


def _what(row: ExplainedRow, reason: ReasonCode, words: Wording) -> str:
    return words.named(reason.feature, reason.value) if row.kind == "feature" else reason.feature


def reasons_figure(row: ExplainedRow, words: Wording) -> Figure | None:
    """The reasons as bars with their intervals; None where none is shown."""
    if not row.reasons:
        return None
    names = tuple(_what(row, reason, words) for reason in row.reasons)
    ends = [(reason.low, reason.high) for reason in row.reasons]
    said = [
        f"{name}: {words.number(reason.contribution)} ({words.say.ends(both)})"
        for name, reason, both in zip(names, row.reasons, ends, strict=True)
    ]
    series = Series(
        name=words.say.say("explain.axis"),
        x=names,
        y=tuple(reason.contribution for reason in row.reasons),
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
    )
    return Figure(
        id=f"row-{row.row}",
        probe="explain",
        kind="bars",
        title=words.say.say("explain.chart", n=words.say.count(row.row)),
        series=(series,),
        alt="; ".join(said),
        y_label=words.say.say("explain.axis"),
        caption=words.say.say("explain.caption"),
    )


def _sensitive_sentence(note: SensitiveNote, words: Wording) -> str:
    say, name = words.say, words.labels.column(note.feature)
    share = say.percent(note.share)
    match note.effect:
        case "proxy":
            proxy = words.labels.column(note.proxy)
            return say.say("sensitive.proxy", reason=proxy, feature=name, strength=words.number(note.strength))
        case "unknown":
            return say.say("sensitive.unknown", feature=name)
        case "little":
            return say.say("sensitive.little", feature=name, share=say.percent(0.01))
        case _:
            value = words.value(note.feature, note.value)
            # "Being male" is read as a sentence, "being yes" and "being 1" are not.
            wordy = not words.is_number(note.feature, note.value) and value.casefold() not in _BARE
            who = say.say("sensitive.being" if wordy else "sensitive.value", feature=name, value=value)
            said = say.say(f"sensitive.{note.effect}", who=who, share=share)
            return f"{said} {say.say('sensitive.reason')}" if note.is_reason else said


_BARE = ("yes", "no", "true", "false", "ja", "nein", "missing", "")


def _recourse(row: ExplainedRow, words: Wording) -> Section:
    say, search, heading = words.say, row.recourse, words.say.say("explain.recourse")
    if search.none:
        return Section(heading, (say.say("explain.not_searched", why=search.none),))
    if not search.found:
        key = "explain.none_exact" if search.exact else "explain.none_found"
        said = say.say(key, n=say.count(search.asked), **({"most": say.count(search.searched)} if search.exact else {}))
        return Section(heading, (said, *_fixed_features(row, words)))
    lines = [_change(found, words) for found in search.found]
    nearest = (
        say.say("explain.nearest", most=say.count(search.searched))
        if search.exact
        else say.say("explain.perhaps_nearer")
    )
    lines.append(f"{nearest} {say.say('explain.asked', n=say.count(search.asked))}")
    return Section(heading, (*lines, *_fixed_features(row, words)))


def _change(recourse: Recourse, words: Wording) -> str:
    changes = words.say.say("person.and").join(
        words.say.say(
            "explain.from_to",
            feature=words.labels.column(c.feature),
            now=words.value(c.feature, c.now),
            then=words.required_value(c),
        )
        for c in recourse.changes
    )
    return words.say.say(
        "explain.change",
        changes=changes,
        distance=words.number(recourse.distance),
        probability=words.number(recourse.probability),
    )


def _fixed_features(row: ExplainedRow, words: Wording) -> tuple[str, ...]:
    if not row.recourse.fixed:
        return ()
    return (words.say.say("explain.fixed", names=", ".join(map(words.labels.column, row.recourse.fixed))),)


def _near(row: ExplainedRow, words: Wording) -> list[Section]:
    if not (row.same or row.other):
        return []
    say, lines = words.say, []
    for key, near in (("explain.same", row.same), ("explain.other", row.other)):
        rows = ", ".join(
            say.say("explain.at", n=say.count(each.row), distance=words.number(each.distance)) for each in near
        )
        lines.append(say.say(key, rows=rows or say.say("explain.nobody")))
    return [Section(say.say("explain.near"), tuple(lines))]


def _method_lines(row: ExplainedRow, words: Wording) -> tuple[str, ...]:
    say, graded = words.say, row.faithfulness
    method = say.say(f"explain.{row.method}") if row.method in _METHODS else row.method
    lines = [
        say.say(
            "explain.by", method=method, score=row.explained, rows=row.compared_with, n=say.count(row.n_draws),
            share=say.percent(0.95),
        )
    ]  # fmt: skip
    if graded.moved is not None and not graded.refused:
        least = "" if graded.moved_low is None else say.say("explain.at_least", low=words.number(graded.moved_low))
        lines.append(
            say.say(
                "explain.moved",
                moved=words.number(graded.moved) + least,
                random=say.spelled(number(graded.random)),
                share=say.spelled(percent(graded.beaten)),
            )
        )
    if graded.real is not None and not graded.refused:
        lines.append(
            say.say(
                "explain.real",
                more=words.number(graded.real),
                low=say.spelled(number(graded.real_low)),
                most=words.number(MOST_APART),
            )
        )
    return (*lines, *(say.say("explain.note", note=note) for note in row.notes))


def render_explanation(explanation: Explanation) -> str:
    """The page, self-contained: styles inline, no script, nothing fetched."""
    style, words = resource("report.css"), Wording.of_explanation(explanation)
    figures = [reasons_figure(row, words) for row in explanation.rows]
    return (
        environment()
        .get_template("explanation.html.j2")
        .render(
            explanation=explanation,
            language=language_tag(words.say.language),
            say=words.say,
            policy=content_policy(style, "", pictures=False),
            style=Markup(style),
            created=moment(explanation.created, words.say),
            svg=figure_svg,
            rows=[
                (title(row, words), sections(row, words), None if drawn is None else drawn_as(i, drawn, words.say))
                for i, (row, drawn) in enumerate(zip(explanation.rows, figures, strict=True), 1)
            ],
        )
    )
