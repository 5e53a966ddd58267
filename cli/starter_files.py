"""``auditor probes new``, ``auditor mitigate new``, ``auditor probes examples``: what one's own code starts from."""

from __future__ import annotations

import ast
import keyword
import sys
from collections.abc import Container, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import typer

from auditor.core.errors import UsageError, did_you_mean
from auditor.core.files import write_beside
from auditor.core.writable_paths import claim
from cli.flags import Tracebacks, Writes
from cli.terminal import print_table

# Where the skeleton takes its names from: the one place to change when they move.
_PROBE_IMPORTS = """\
from auditor import (
    AuditData,
    AuditedModel,
    Measurement,
    Need,
    NotApplicableError,
    Pillar,
)
from auditor.judging.measurement import define_metrics
from auditor.models.twin_model import TwinModel
from auditor.statistics.estimate import Power
from auditor.statistics.rates import Proportion
"""
_TEST_IMPORTS = """\
from auditor import AuditData, AuditedModel, Criterion, check_probe
"""
_MITIGATION_IMPORTS = """\
import numpy.typing as npt
from auditor import AuditData, AuditedModel, Pillar
from auditor.core.errors import DataError, UsageError
from auditor.models.postprocessing import (
    GroupRule,
    PostprocessedModel,
    Postprocessing,
    Steps,
)
from auditor.run.mitigation import Mitigated, Stage, Training
"""
_MITIGATION_TEST_IMPORTS = """\
from auditor import AuditData, AuditedModel, check_mitigation
from auditor.run.mitigation import Training
from probes import PROBES
"""
_KINDS: Mapping[str, Mapping[str, str]] = {
    "probe": {
        "imports": _PROBE_IMPORTS,
        "test_imports": _TEST_IMPORTS,
        "description": "A probe for auditor: on how many rows is the model unsure of its answer?",
        "group": "probes",
        "listed": "auditor probes",
        "example": "unsure_share",
    },
    "mitigation": {
        "imports": _MITIGATION_IMPORTS,
        "test_imports": _MITIGATION_TEST_IMPORTS,
        "description": "A mitigation for auditor: approve the same share of every group",
        "group": "mitigations",
        "listed": "auditor mitigate list",
        "example": "same_share",
    },
}
_LONGEST = 60


def new_probe(
    name: Annotated[
        str,
        typer.Argument(help="Name of the probe and its folder, in snake_case."),
        Writes(itself=True, lost="probe"),
    ],
    debug: Tracebacks = False,
) -> None:
    """Write a probe of your own to start from: a folder with code, tests and an entry point."""
    key, folder = _write_new(name, "probe")
    class_name = class_of(key)
    typer.echo(f"""
It works as it stands. Put your own question in {folder / key}.py, then:

  cd {folder}
  python -m pytest
  auditor scan MODEL --data FILE --target COLUMN --probe {key}:{class_name}

Or install it, and ask it by its name:

  pip install -e .
  auditor scan MODEL --data FILE --target COLUMN --probes {key}""")


def new_mitigation(
    name: Annotated[
        str,
        typer.Argument(help="Name of the mitigation and its folder, in snake_case."),
        Writes(itself=True, lost="mitigation"),
    ],
    debug: Tracebacks = False,
) -> None:
    """Write a mitigation of your own to start from: a folder with code, tests and an entry point."""
    key, folder = _write_new(name, "mitigation")
    typer.echo(f"""
It works as it stands. Put your own repair in {folder / key}.py, then:

  cd {folder}
  python -m pytest
  pip install -e .
  auditor mitigate {key} MODEL --train FILE --data FILE --target COLUMN --positive LABEL --sensitive COLUMN""")


def _write_new(name: str, kind: str) -> tuple[str, Path]:
    """The key and the folder of a skeleton that was written, each file of which is printed."""
    key = name.replace("-", "_")
    _check_name(key, name, kind)
    folder = Path(key)
    if folder.exists():
        raise UsageError(f"{folder} is there already: name another, or take it away.")
    for path in write_skeleton(folder, key, kind):
        typer.echo(path)
    return key, folder


def class_of(key: str) -> str:
    """The class's name of a probe's or mitigation's."""
    return "".join(part.capitalize() for part in key.split("_"))


def write_skeleton(folder: Path, key: str, kind: str = "probe") -> list[Path]:
    """Write all files of a ``probe`` or ``mitigation``, or none; return their paths."""
    from jinja2 import Environment, StrictUndefined

    from auditor.core.files import write_beside
    from auditor.core.writable_paths import claim

    known = {"name": key, "class_name": class_of(key), "distribution": key.strip("_").replace("_", "-"), **_KINDS[kind]}
    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, autoescape=False)
    written = []
    try:
        (folder / "tests").mkdir(parents=True)
        for source, target, imports in (
            ("pyproject.toml.j2", "pyproject.toml", ""),
            (f"{kind}.py.j2", f"{key}.py", _KINDS[kind]["imports"]),
            (f"test_{kind}.py.j2", f"tests/test_{key}.py", _KINDS[kind]["test_imports"]),
        ):
            text = (files("cli.skeletons") / source).read_text(encoding="utf-8")
            claim(folder / target, target, irreplaceable_kind=kind)
            write_beside(folder / target, made.from_string(text).render(known | {"imports": imports}).encode())
            written.append(folder / target)
    except (OSError, UsageError) as error:
        for path in written:
            path.unlink(missing_ok=True)
        for path in (folder / "tests", folder):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{folder} cannot be written: {why}.") from None
    return written


def _check_name(key: str, name: str, kind: str) -> None:
    """Raises UsageError for what cannot be the name of a module, a class and a probe or mitigation."""
    if not (key.isidentifier() and key.isascii() and key == key.lower()) or not key.strip("_") or len(key) > _LONGEST:
        example = _KINDS[kind]["example"]
        raise UsageError(f"{name!r} is no name for a {kind}: write it in snake_case, such as {example}.")
    if keyword.iskeyword(key) or keyword.issoftkeyword(key):
        raise UsageError(f"{name!r} is a word of Python's own: name the {kind} otherwise.")
    if key in _built_in(kind):
        raise UsageError(f"There is a built-in {kind} {key!r}: name yours otherwise.")
    # What lies in the working folder is no reason to refuse: that is where the new module goes.
    elsewhere = [part for part in sys.path if part and Path(part).resolve() != Path.cwd().resolve()]
    if key in sys.stdlib_module_names or _is_importable(key, elsewhere):
        raise UsageError(f"There is a module {key!r} already, which yours would hide: name the {kind} otherwise.")


def _built_in(kind: str) -> Container[str]:
    if kind == "probe":
        from probes import PROBES

        return PROBES
    from mitigations import MITIGATIONS

    # These are commands of their own beside the names of mitigations.
    return {*MITIGATIONS, "list", "new"}


def _is_importable(key: str, path: list[str]) -> bool:
    from importlib.machinery import PathFinder

    return PathFinder.find_spec(key, path) is not None or key in sys.modules


def examples(
    do: Annotated[
        Literal["copy"] | None, typer.Argument(help="copy, or nothing to list them.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Argument(help="Example to copy; all by default.", show_default=False)] = None,
    to: Annotated[
        Path, typer.Option(help="Folder to copy into."), Writes(itself=True, lost="script", only_with="do")
    ] = Path("examples"),
    debug: Tracebacks = False,
) -> None:
    """List the examples of audits during training, or copy them; existing files are never overwritten."""
    sources = _sources()
    scripts = {stem: text for stem, text in sources.items() if "__main__" in text}
    if do is None:
        print_table(("name", "what"), [(stem, _first_line(text)) for stem, text in scripts.items()])
        return
    if name is not None and name not in scripts:
        near = did_you_mean(name, scripts) or f": there are {', '.join(scripts)}."
        raise UsageError(f"There is no example {name!r}{near}")
    wanted = (
        sources if name is None else {stem: sources[stem] for stem in ("__init__", *_required_modules(name, sources))}
    )
    new = {to / f"{stem}.py": text for stem, text in wanted.items() if not _is_there(to / f"{stem}.py", text)}
    for place in new:
        claim(place, str(place), irreplaceable_kind="script")
    for place, text in new.items():
        write_beside(place, text.encode())
        typer.echo(place)
    if name is not None and _is_module_path(to):
        typer.echo(f"\nRun it from here:  python -m {'.'.join((*to.parts, name))} OUT")


def _sources() -> Mapping[str, str]:
    """Their texts by the names of their modules."""
    found = (file for file in files("cli.examples").iterdir() if file.name.endswith(".py"))
    return {file.name.removesuffix(".py"): file.read_text(encoding="utf-8") for file in sorted(found, key=str)}


def _required_modules(name: str, sources: Mapping[str, str]) -> list[str]:
    """The example, and those modules beside it that it imports."""
    beside = [n.module for n in ast.walk(ast.parse(sources[name])) if isinstance(n, ast.ImportFrom) and n.level == 1]
    return [name, *(module for module in beside if module is not None)]


def _is_there(place: Path, text: str) -> bool:
    return place.is_file() and place.read_bytes() == text.encode()


def _is_module_path(folder: Path) -> bool:
    return not folder.is_absolute() and all(part.isidentifier() for part in folder.parts)


def _first_line(text: str) -> str:
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
