"""The parts of a page that a probe's or a mitigation's class knows: question, needs, metrics, options, sources."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from auditor.judging.measurement import NO_IDEAL
from auditor.judging.profiles import DEFAULT_PROFILE
from auditor.run.mitigation import experience_of
from auditor.run.probe import declared_metrics, looks_at_rows
from cli.probe_tables import limits, options
from mitigations import MITIGATIONS
from probes import PROBES

# A chart of more bytes is left out.
MOST_BYTES = 15_360
_MARKUP = re.compile(r"([*_|`$<>\[\]])")


def plain(text: str) -> str:
    """A text in Markdown that is shown as it is."""
    return _MARKUP.sub(r"\\\1", text)


def from_docstring(text: str) -> str:
    """A piece of a docstring in Markdown: its literals as code, its cross references by the last part of their name."""
    text = re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"``\1``", text)
    parts = re.split(r"(``.+?``)", text)
    return "".join(f"`{part[2:-2]}`" if i % 2 else plain(part) for i, part in enumerate(parts))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table in Markdown, of cells that hold no bar of their own."""
    lines = [list(head), ["---"] * len(list(head)), *map(list, rows)]
    return ["", *(f"| {' | '.join(cells)} |" for cells in lines), ""]


def _needs(kind: Any) -> str:
    said = [f"{plain(need.what)} ({plain(need.how)})" if need.how else plain(need.what) for need in kind.needs]
    return "; ".join(said) or "nothing beyond the model; the text below says which kinds it applies to"


def _design(kind: Any) -> str:
    if not looks_at_rows(kind):
        return "not applicable: no evaluation rows are read"
    takes = getattr(kind, "takes", ())
    flags = [f"`--{part}`" for part in ("cluster", "weight")]
    return f"{' and '.join(flags)} are taken into account" if takes else f"NOT_APPLICABLE with {' or '.join(flags)}"


def probe_head(name: str) -> list[str]:
    """The question of a probe, and what it needs."""
    kind: Any = PROBES[name]
    methods = ", ".join(f"`{method}`" for method in kind.methods)
    return [
        "",
        f"> {plain(kind.goal)}",
        *table(
            (f"`{name}`", ""),
            (
                ("pillar", kind.pillar),
                ("needs", _needs(kind)),
                ("methods", methods),
                ("dependent or weighted rows", _design(kind)),
                ("select it", f'`--probes {name}`, or `probes=["{name}"]` in Python'),
            ),
        ),
    ]


def probe_tail(name: str) -> list[str]:
    """The metrics of a probe with units, ranges, ideals and limits; its options, its full definition, its sources."""
    kind: Any = PROBES[name]
    bound = limits(kind)
    metrics = [
        (
            f"`{each.metric}`",
            plain(each.formula),
            plain(each.range),
            "none" if each.ideal == NO_IDEAL else plain(each.ideal),
            bound.get(each.metric, "none"),
            plain(each.reading),
        )
        for each in declared_metrics(kind)
    ]
    return [
        "",
        "## Metrics",
        "",
        f"*Limit*: what the built-in profile `{DEFAULT_PROFILE}` requires. Without one a metric is NOT_JUDGED.",
        *table(("metric", "formula", "range and unit", "ideal", "limit", "how to read a value"), metrics),
        *_options(kind, f"--set {name}.OPTION=VALUE", f"[probes.{name}]"),
        *_definition(kind),
    ]


def _options(kind: Any, flag: str, section: str = "") -> list[str]:
    found = options(kind)
    if not found:
        return ["", "## Options", "", "None.", ""]
    where = f"`{flag}`, or `{section}` in `audit.toml`." if section else f"`{flag}`."
    rows = [(f"`{name}`", f"`{default}`", from_docstring(meaning)) for name, (default, meaning) in found.items()]
    return ["", "## Options", "", where, *table(("option", "default", "meaning"), rows)]


def _definition(kind: Any) -> list[str]:
    path = f"{kind.__module__}.{kind.__qualname__}"
    sources = [part.strip() for part in kind.citation.split(";")]
    return [
        "",
        "## Definition in full",
        "",
        "```{eval-rst}",
        f".. autoclass:: {path}",
        "```",
        "",
        "## Sources",
        "",
        *(f"- {plain(source)}" for source in sources),
        "",
    ]


def picture(name: str, folder: Path) -> list[str]:
    """A chart of a report on a model that was made to fail the probe, as the report draws it; none without a chart.

    ``folder``: an empty one for the files that such a model is read from.
    """
    from auditor.report.drawing.svg import svg_file
    from auditor.report.report_figures import pictures_of
    from auditor.run.run_audit import run_audit
    from tests.toys.benchmark_files import FILE_TOYS
    from tests.toys.models import TOYS

    if name not in {*TOYS, *FILE_TOYS}:
        return []
    toys = FILE_TOYS[name](folder) if name in FILE_TOYS else TOYS[name]
    chosen = toys.options | ({} if toys.scorer is None else {"scorer": toys.scorer()})
    rows = toys.violating_data or toys.data
    report = run_audit(toys.violating(), rows(), [PROBES[name](**chosen)], toys.criteria, seed=0)
    drawn = [(figure, svg_file(figure).encode()) for figure in (*report.figures, *pictures_of(report)[:1])]
    small = [(figure, svg) for figure, svg in drawn if len(svg) <= MOST_BYTES]
    if not small:
        return []
    figure, svg = small[0]
    source = f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
    return [
        "```{raw} html",
        f'<figure><img alt="{escape(figure.title)}" src="{source}"/>',
        f"<figcaption>{escape(figure.title)}, of a model that was made to fail.</figcaption></figure>",
        "```",
        "",
    ]


def mitigation_head(name: str) -> list[str]:
    """The goal of a mitigation, and what it needs."""
    kind: Any = MITIGATIONS[name]
    methods = ", ".join(f"`{method}`" for method in kind.methods)
    return [
        "",
        f"> {plain(kind.goal)}",
        *table(
            (f"`{name}`", ""),
            (
                ("stage", kind.stage),
                ("needs", plain(kind.needs)),
                ("methods", methods),
                ("use it", f"`auditor mitigate {name} MODEL --train FILE --data FILE`"),
            ),
        ),
    ]


def mitigation_tail(name: str) -> list[str]:
    """How a mitigation did on real data, its options, its definition in full, its sources."""
    kind: Any = MITIGATIONS[name]
    found = experience_of(kind)
    recorded = "No benchmark on these data sets is recorded for it." if found is None else found.describe() + "."
    return [
        "",
        "## Measured effect",
        "",
        plain(recorded),
        "",
        "[How this was measured](index.md#measured-effects).",
        *_options(kind, "--with OPTION=VALUE"),
        *_definition(kind),
    ]


def probe_index() -> list[str]:
    """All probes by pillar, with their questions."""
    lines: list[str] = []
    for pillar in dict.fromkeys(kind.pillar for kind in PROBES.values()):
        rows = [(f"[`{name}`]({name}.md)", plain(kind.goal)) for name, kind in PROBES.items() if kind.pillar == pillar]
        lines += ["", f"## {pillar.capitalize()}", *table(("probe", "question"), rows)]
    return lines


def mitigation_index() -> list[str]:
    """All mitigations, with stage, goal and source."""
    rows = [
        (f"[`{name}`]({name}.md)", kind.stage, plain(kind.goal), plain(kind.citation))
        for name, kind in MITIGATIONS.items()
    ]
    return table(("mitigation", "stage", "what it does", "source"), rows)


def completed(page: str, text: str) -> str:
    """The text of a page by its name, such as ``probes/bbq``, with what its class knows; others as they are."""
    folder, _, name = page.rpartition("/")
    if folder == "probes" and name in PROBES:
        return _between(text, probe_head(name), probe_tail(name))
    if folder == "mitigations" and name in MITIGATIONS:
        return _between(text, mitigation_head(name), mitigation_tail(name))
    for mark, lines in (("<!-- all probes -->", probe_index), ("<!-- all mitigations -->", mitigation_index)):
        if mark in text:
            text = text.replace(mark, "\n".join(lines()))
    return text


def _between(text: str, head: list[str], tail: list[str]) -> str:
    title, _, rest = text.partition("\n")
    return "\n".join([title, *head, rest, *tail])
