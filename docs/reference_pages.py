"""The parts of a page that a probe's or a mitigation's class knows: question, needs, metrics, options, sources."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from importlib import import_module
from itertools import zip_longest
from typing import Any

from auditor.judging.criterion import DEFAULT_PROFILE, load_criteria
from auditor.judging.measurement import NO_IDEAL
from auditor.run.mitigation import experience_of
from auditor.run.probe import declared_metrics, looks_at_rows
from mitigations import MITIGATIONS
from probes import PROBES

# Options that many probes share; a docstring that says more goes before.
SHARED = {
    "answer_by": "``likelihood``, ``letter``, or ``auto``, by likelihood where the model gives any",
    "batch_size": "rows in a step; None means the recipe's",
    "benchmarks": "the benchmark's file or folder, which ``--benchmark NAME=PATH`` gives",
    "chat": "``auto`` uses the chat template of a model that has one, ``on`` requires it, ``off`` is plain text",
    "column": "the column of a table of texts",
    "embedder": "a function or an encoder that returns one vector a row, which ``--embedder`` gives",
    "learning_rate": "None means the recipe's",
    "max_new_tokens": "tokens at most of one continuation",
    "n_queries": "queries at most for each row",
    "n_steps": "steps of the gradient attack",
    "reference": "the earlier model to compare with, which ``--reference`` gives",
    "system": "path of a file that holds the system message",
    "temperature": "of sampling",
    "top_p": "of nucleus sampling: the smallest set of tokens with this probability is sampled from",
}
IN_TEXT = "see the definition in full below"
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


def options(kind: type) -> dict[str, tuple[str, str]]:
    """The options of a class: default, and meaning by ``name: ...`` in its docstrings; "" where they do not have it."""
    parameters = {
        name: p for name, p in inspect.signature(kind).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    meanings: dict[str, str] = {}
    for text in _texts(kind):
        for names, meaning in _entries(text, tuple(parameters)):
            for name in names:
                meanings.setdefault(name, meaning)
    own = inspect.getdoc(kind) or ""
    rest = {name: SHARED.get(name) or (IN_TEXT if name in own else "") for name in parameters}
    return {name: (str(p.default), meanings.get(name) or rest[name]) for name, p in parameters.items()}


def _texts(kind: type) -> list[str]:
    """The docstrings of a class, of its bases, and of what they refer to for further options, and these again."""
    texts = [inspect.cleandoc(base.__doc__) for base in kind.__mro__ if base.__doc__ and base is not object]
    seen: set[str] = set()
    for text in texts:
        for path in re.findall(r":(?:class|func):`~?([\w.]+)`", re.sub(r"\n *", "", text)):
            module, _, name = path.rpartition(".")
            if path not in seen and module:
                seen.add(path)
                found = getattr(import_module(module), name, None) if not name.islower() else None
                texts += [inspect.cleandoc(found.__doc__)] if isinstance(found, type) and found.__doc__ else []
    return texts


def _entries(text: str, names: tuple[str, ...]) -> Iterable[tuple[list[str], str]]:
    """The entries ``name, name: meaning`` of paragraphs, each up to the next one."""
    if not names:
        return
    known = "|".join(map(re.escape, names))
    start = re.compile(rf"(?:^|(?<=[.;:] )|(?<=\) ))((?:{known})(?:, (?:{known}))*): ")
    for paragraph in re.split(r"\n\n", text):
        joined = " ".join(paragraph.split())
        found = list(start.finditer(joined))
        for at, following in zip_longest(found, found[1:]):
            meaning = joined[at.end() : following.start() if following else None]
            yield at[1].split(", "), re.split(r" (?=Raises |Sources?: )", meaning)[0].strip()


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


def limits(name: str) -> dict[str, str]:
    """What the built-in profile asks of a probe's metrics, by metric."""
    told: dict[str, list[str]] = {}
    for each in load_criteria(DEFAULT_PROFILE):
        declared = {definition.metric for definition in declared_metrics(PROBES[name])}
        if each.probe == name or (each.probe is None and each.metric in declared):
            bound = f"{each.direction.replace('_', ' ')} {each.bound}"
            where = ", ".join(f"{key} {value}" for key, value in (each.at or {}).items())
            told.setdefault(each.metric, []).append(f"{bound} (at {where})" if where else bound)
    return {metric: "; ".join(bounds) for metric, bounds in told.items()}


def probe_tail(name: str) -> list[str]:
    """The metrics of a probe with units, ranges, ideals and limits; its options, its full definition, its sources."""
    kind: Any = PROBES[name]
    bound = limits(name)
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
