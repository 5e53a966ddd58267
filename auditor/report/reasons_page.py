"""Explanations of rows for reading: sections of sentences, equal in terminal and HTML page; and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from auditor.core.files import Closed
from auditor.judging.row_explanations import MOST_APART, ExplainedRow, Recourse
from auditor.report.html import content_policy, environment, resource
from auditor.report.record.audit_report import DataRecord, ModelRecord
from auditor.report.record.configuration import Labels
from auditor.report.record.number_text import number, percent

READING = (
    "Reasons are the model's, compared with typical rows as said under each; they are no causes in the world. Recourse "
    "is of this model as it is, with everything else of the row left as it is. Rows are counted from 1, without the "
    "header of the file; of other rows nothing but the number is told."
)
_METHODS = {
    "shap_linear": "exact Shapley values of a linear score",
    "shap_tree": "exact Shapley values of trees",
    "integrated_gradients": "integrated gradients",
    "shap_permutation": "Shapley values by permutations, of predictions alone",
}


class Explanation(Closed):
    """``explanation.json``: everything that was found of the rows. ``target``: the column whose values decisions are;
    ``labels``: the words they are told in."""

    schema_version: Literal["1"] = "1"
    tool: str
    created: str
    command: str
    seed: int
    model: ModelRecord
    data: DataRecord
    target: str | None
    labels: dict[str, str]
    rows: tuple[ExplainedRow, ...]
    exit_code: int


@dataclass(frozen=True)
class Section:
    """Sentences under a heading; ``loud``: a warning that must be visible.

    ``numbered``: they are in an order.
    """

    heading: str
    lines: tuple[str, ...]
    loud: bool = False
    numbered: bool = False


def title(row: ExplainedRow, labels: Labels, target: str | None) -> str:
    """The row and its decision."""
    kind = "favourable" if row.favourable else "unfavourable"
    decided = labels.value(target, row.decision)
    said = f"{labels.column(target)}: {decided}" if target is not None else decided
    return f"Row {row.row:,}: {said}, {kind} (favourable probability {number(row.probability)})"


def sections(row: ExplainedRow, labels: Labels) -> tuple[Section, ...]:
    """The explanation of a row, in the order of importance to the person concerned."""
    found = [_reasons(row, labels)]
    if row.sensitive:
        found.append(Section("Sensitive features", tuple(_sensitive_sentences(row, labels)), loud=True))
    found += [_recourse(row, labels), *_near(row)]
    found.append(Section("How this was found", _method_lines(row)))
    return tuple(part for part in found if part.lines)


def _reasons(row: ExplainedRow, labels: Labels) -> Section:
    heading = "Reasons for the favourable decision" if row.favourable else "Principal reasons for the refusal"
    if row.faithfulness.refused:
        why = row.faithfulness.refused
        return Section(heading, (f"REFUSED, and no reasons are shown: {why}.",), loud=True)
    lines = []
    for i, reason in enumerate(row.reasons):
        of = f" = {labels.value(reason.feature, reason.value)}" if row.kind == "feature" else ""
        mark = " (SENSITIVE)" if reason.sensitive else ""
        share = f"{_nth(i + 1)} in {reason.at_rank:,} of {row.n_draws:,} draws"
        lines.append(
            f"{labels.column(reason.feature)}{of}{mark}: contributes {number(reason.contribution)} "
            f"[{number(reason.low)}, {number(reason.high)}]; {share}"
        )
    if row.left_out:
        lines.append(f"and {row.left_out:,} more, with less weight")
    return Section(heading, tuple(lines), numbered=True)


def _nth(rank: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth")
    return words[rank - 1] if rank <= len(words) else f"at rank {rank}"


def _sensitive_sentences(row: ExplainedRow, labels: Labels) -> list[str]:
    found = []
    for line in row.sensitive:
        for name in labels.words:
            for before in ("sensitive feature", "the reason"):
                line = line.replace(f"{before} {name} ", f"{before} {labels.column(name)} ")
        found.append(f"{line[0].upper()}{line[1:]}.")
    return found


def _recourse(row: ExplainedRow, labels: Labels) -> Section:
    search, heading = row.recourse, "What would change the decision"
    if search.none:
        return Section(heading, (f"Not searched for: {search.none}.",))
    if not search.found:
        said = (
            f"None found among {search.asked:,} rows that the model was asked about, which does not say that there is "
            "none."
        )
        if search.exact:
            said = (
                f"None found: of all combinations of at most {search.searched:,} changes, {search.asked:,} rows, none "
                "flips the decision; more changes at once were not all asked about."
            )
        return Section(heading, (said, *_fixed_features(row, labels)))
    lines = [_change(found, labels) for found in search.found]
    nearest = (
        f"No combination of at most {search.searched} changes lies nearer"
        if search.exact
        else "Nearer ones may exist: not every value was asked about"
    )
    lines.append(f"{nearest}; the model was asked about {search.asked:,} rows, and about each of these again.")
    return Section(heading, (*lines, *_fixed_features(row, labels)))


def _change(recourse: Recourse, labels: Labels) -> str:
    changes = " and ".join(
        f"{labels.column(c.feature)} from {labels.value(c.feature, c.now)} to {labels.value(c.feature, c.then)}"
        for c in recourse.changes
    )
    return f"{changes} (distance {number(recourse.distance)}; favourable probability {number(recourse.probability)})"


def _fixed_features(row: ExplainedRow, labels: Labels) -> tuple[str, ...]:
    if not row.recourse.fixed:
        return ()
    return (f"Left as they are: {', '.join(map(labels.column, row.recourse.fixed))}.",)


def _near(row: ExplainedRow) -> list[Section]:
    if not (row.same or row.other):
        return []
    lines = []
    for words, near in (("the same decision", row.same), ("the other decision", row.other)):
        rows = ", ".join(f"{each.row:,} (distance {number(each.distance)})" for each in near)
        lines.append(f"With {words}: {rows or 'none'}.")
    return [Section("The nearest rows", tuple(lines))]


def _method_lines(row: ExplainedRow) -> tuple[str, ...]:
    graded = row.faithfulness
    lines = [
        f"By {_METHODS.get(row.method, row.method)}, of {row.explained}, compared with {row.compared_with}; intervals "
        f"hold the middle 95 % of {row.n_draws:,} draws."
    ]
    if graded.moved is not None and not graded.refused:
        least = "" if graded.moved_low is None else f", at least {number(graded.moved_low)}"
        lines.append(
            f"With these reasons made typical the score moves by {number(graded.moved)}{least}, with as many random "
            f"features by {number(graded.random)}; {percent(graded.beaten)} of random orders move it no further."
        )
    if graded.real is not None and not graded.refused:
        lines.append(
            "Real rows are decided as the mixed ones that were asked about: what is learned of the decisions from real "
            f"rows is right about {number(graded.real)} more of them than what is learned from mixed ones (at least "
            f"{number(graded.real_low)}; a share, refused above {MOST_APART})."
        )
    return (*lines, *(f"Note: {note}." for note in row.notes))


def as_text(row: ExplainedRow, labels: Labels, target: str | None) -> list[tuple[str, int, bool]]:
    """Lines for a terminal: the text, its indentation, and whether it is loud."""
    found = [(title(row, labels, target), 0, False)]
    for part in sections(row, labels):
        found.append((part.heading, 2, False))
        for i, line in enumerate(part.lines, 1):
            numbered = part.numbered and not line.startswith("and ")
            found.append((f"{i}. {line}" if numbered else line, 4, part.loud))
    return found


def render_explanation(explanation: Explanation) -> str:
    """The page, self-contained: styles inline, no script, nothing fetched."""
    labels = Labels(explanation.labels)
    style = resource("report.css")
    return (
        environment()
        .get_template("explanation.html.j2")
        .render(
            explanation=explanation,
            policy=content_policy(style, "", pictures=False),
            style=_markup(style),
            reading=READING,
            rows=[(title(row, labels, explanation.target), sections(row, labels)) for row in explanation.rows],
        )
    )


def _markup(text: str) -> object:
    from markupsafe import Markup

    return Markup(text)
