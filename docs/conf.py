"""The documentation as a site: ``make docs`` builds it into build/docs, offline; every warning is an error."""

from __future__ import annotations

import inspect
import sys
import tempfile
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from docutils import nodes
from docutils.statemachine import StringList
from docutils.utils.math.latex2mathml import tex2mathml
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from reference_pages import completed, picture  # noqa: E402

import auditor  # noqa: E402  (the checkout that these pages are about)

project = "auditor"
author = "the authors of auditor"
version = release = auditor.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"auditor {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
myst_enable_extensions = ["colon_fence", "dollarmath"]
# Formulas become MathML, which browsers show by themselves: the site needs no network and no script.
html_math_renderer = "mathml"
exclude_patterns = ["reference_pages.py"]
myst_heading_anchors = 3
# Two hyphens are a flag, and straight quotes are code.
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
toc_object_entries_show_parents = "hide"
add_module_names = False
python_maximum_signature_line_length = 88
pygments_style, pygments_dark_style = "friendly", "monokai"

# Public names that are data; their values are tables of classes with pages of their own.
TABLES = {"PROBES": "The table of probes by name.", "MITIGATIONS": "The table of mitigations by name."}
# Public names outside of ``auditor.__all__``.
CALLBACKS = (
    "auditor.run.while_training.trainer_callback.AuditCallback",
    "auditor.run.while_training.trainer_callback.add_to",
    "auditor.run.while_training.trainer_callback.text_classifier",
    "auditor.run.while_training.lightning_callback.AuditCallback",
    "auditor.training.interim.trackers.TensorBoard",
    "auditor.training.interim.trackers.WeightsAndBiases",
    "auditor.training.interim.trackers.MLflow",
    "auditor.training.interim.trackers.trackers_of",
)


def _loaded(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _autodoc(path: str) -> list[str]:
    """The directive that documents the object at a dotted path, with the members of a class that have docstrings."""
    name = path.rpartition(".")[2]
    if name in TABLES:
        return [f".. py:data:: {path}", "", f"   {TABLES[name]}", ""]
    if name.startswith("__"):
        return [f".. py:data:: {path}", "", "   The version of this package.", ""]
    if not isinstance(_loaded(path), type):
        return [f".. autofunction:: {path}", ""]
    members = "   :members:"
    if issubclass(_loaded(path), BaseException | tuple):
        members = ""
    lines = [
        f".. autoclass:: {path}",
        *([members, "   :exclude-members: model_config, model_post_init"] if members else []),
    ]
    return [*lines, "", *(f"   {line}" for line in _fields(_loaded(path))), ""]


def _fields(kind: type) -> list[str]:
    """The constructor arguments of a class, or the members of an enumeration, which have no docstrings to list."""
    if issubclass(kind, Enum):
        return ["Members: " + ", ".join(f"``{member.name}``" for member in kind) + "."]
    if issubclass(kind, BaseModel):
        types = {name: field.annotation for name, field in kind.model_fields.items()}
    elif is_dataclass(kind):
        types = {field.name: field.type for field in fields(kind) if field.init}
    else:
        return []
    arguments = [f"``{name}: {_written(types[name])}``" for name in types if name != "kind"]
    return ["Arguments: " + ", ".join(arguments) + "."] if arguments else []


def _written(annotation: object) -> str:
    """A type as written in code, without validation limits."""
    origin, within = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, str) or origin is None:
        return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "...")
    if origin is Annotated:
        return _written(within[0])
    if origin in (Union, UnionType):
        return " | ".join("None" if part is NoneType else _written(part) for part in within)
    if origin is Literal:
        return " | ".join(map(repr, within))
    return f"{origin.__name__}[{', '.join('...' if part is Ellipsis else _written(part) for part in within)}]"


class PublicNames(SphinxDirective):
    """``.. public-names::`` documents every name of ``auditor.__all__``, in its order."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, [line for name in auditor.__all__ for line in _autodoc(f"auditor.{name}")])


class Documented(SphinxDirective):
    """``.. documented:: what`` documents a list of this file or of the code: ``callbacks``, ``estimates``."""

    required_arguments = 1
    lists: ClassVar[tuple[str, ...]] = ("callbacks", "estimates")

    def run(self) -> list[nodes.Node]:
        return _parsed(self, [line for path in _paths(self.arguments[0]) for line in _autodoc(path)])


class Flags(SphinxDirective):
    """``.. flags:: COMMAND`` documents a command of the command line: what it does, its arguments and its flags."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        from typer.main import get_command

        from cli.commands import app
        from cli.help_pages import leaf_commands

        command: Any = dict(leaf_commands(get_command(app)))[self.arguments[0]]
        lines = [*inspect.cleandoc(command.help or "").replace("*", r"\*").splitlines(), ""]
        if all(parameter.name == "help" for parameter in command.params):
            return _parsed(self, lines)
        lines += [".. list-table::", "   :widths: 30 70", "   :header-rows: 1", "", "   * - flag", "     - meaning"]
        for parameter in command.params:
            if parameter.name == "help":
                continue
            flag = parameter.param_type_name == "option"
            names = ", ".join([*parameter.opts, *parameter.secondary_opts] if flag else [parameter.name.upper()])
            text = getattr(parameter, "help", None) or ""
            shown = parameter.default is not None and parameter.default is not False and not callable(parameter.default)
            if flag and shown and str(parameter.default) and getattr(parameter, "show_default", False):
                text += f" Default: ``{parameter.default}``."
            lines += [f"   * - ``{names}``", f"     - {text}"]
        return _parsed(self, lines)


def _paths(what: str) -> list[str]:
    if what == "callbacks":
        return list(CALLBACKS)
    from auditor.statistics.estimate import Estimate, Power
    from auditor.statistics.estimate_kinds import AnyEstimate
    from auditor.statistics.rates import RateTable

    kinds: list[Any] = [Estimate, Power, RateTable, *get_args(get_args(AnyEstimate)[0])]
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]


def _parsed(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    container = nodes.container()
    directive.state.nested_parse(StringList(lines, source="docs/conf.py"), directive.content_offset, container)
    return container.children


def _without_noise(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """A record's fields stand below it one by one; its constructor, which is not called directly, would repeat them."""
    from pydantic import BaseModel

    if what == "class" and isinstance(obj, type) and issubclass(obj, BaseModel):
        return "", None
    return None


def _with_what_the_class_knows(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = completed(page, source[0])
    folder, _, name = page.partition("/")
    if folder == "probes":
        with tempfile.TemporaryDirectory() as scratch:
            chart = "\n".join(["## Chart", "", *lines, ""]) if (lines := picture(name, Path(scratch))) else ""
        source[0] = source[0].replace("## Reading the result", f"{chart}## Reading the result", 1)


def _mathml(translator: Any, node: Any) -> None:
    translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("documented", Documented)
    app.add_directive("flags", Flags)
    app.connect("autodoc-process-signature", _without_noise)
    app.connect("source-read", _with_what_the_class_knows)
    app.add_html_math_renderer("mathml", inline_renderers=(_mathml, None), block_renderers=(_mathml, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
