"""``auditor new-probe``: a working skeleton of a user's own probe."""

from __future__ import annotations

import keyword
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from auditor.core.errors import UsageError
from cli.flags import Tracebacks
from cli.output_guard import Writes

# Where the skeleton takes its names from: the one place to change when they move.
_PROBE_IMPORTS = """\
from auditor import AuditData, AuditedModel, Measurement, Need, Pillar
from auditor.judging.definition import define_metrics
from auditor.statistics.estimate import Power
from auditor.statistics.rates import Proportion
"""
_TEST_IMPORTS = """\
from auditor import AuditData, AuditedModel, Criterion, check_probe
"""
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
    key = name.replace("-", "_")
    _check_name(key, name)
    folder = Path(key)
    if folder.exists():
        raise UsageError(f"{folder} is there already: name another, or take it away.")
    for path in write_skeleton(folder, key):
        typer.echo(path)
    class_name = class_of(key)
    typer.echo(f"""
It works as it stands. Put your own question in {folder / key}.py, then:

  cd {folder}
  python -m pytest
  auditor scan MODEL --data FILE --target COLUMN --probe {key}:{class_name}

Or install it, and ask it by its name:

  pip install -e .
  auditor scan MODEL --data FILE --target COLUMN --probes {key}""")


def class_of(key: str) -> str:
    """The class's name of a probe's."""
    return "".join(part.capitalize() for part in key.split("_"))


def write_skeleton(folder: Path, key: str) -> list[Path]:
    """Write all files or none; return their paths."""
    from jinja2 import Environment, StrictUndefined

    from auditor.core.files import write_beside
    from auditor.core.writable_paths import claim

    known = {"name": key, "class_name": class_of(key), "distribution": key.strip("_").replace("_", "-")}
    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, autoescape=False)
    written = []
    try:
        (folder / "tests").mkdir(parents=True)
        for source, target, imports in (
            ("pyproject.toml.j2", "pyproject.toml", ""),
            ("probe.py.j2", f"{key}.py", _PROBE_IMPORTS),
            ("test_probe.py.j2", f"tests/test_{key}.py", _TEST_IMPORTS),
        ):
            text = (files("cli.skeletons") / source).read_text(encoding="utf-8")
            claim(folder / target, target, irreplaceable_kind="probe")
            write_beside(folder / target, made.from_string(text).render(known, imports=imports).encode())
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


def _check_name(key: str, name: str) -> None:
    """Raises UsageError for what cannot be the name of a module, a class and a probe."""
    if not (key.isidentifier() and key.isascii() and key == key.lower()) or not key.strip("_") or len(key) > _LONGEST:
        raise UsageError(f"{name!r} is no name for a probe: write it in snake_case, such as unsure_share.")
    if keyword.iskeyword(key) or keyword.issoftkeyword(key):
        raise UsageError(f"{name!r} is a word of Python's own: name the probe otherwise.")
    from probes import PROBES

    if key in PROBES:
        raise UsageError(f"There is a built-in probe {key!r}: name yours otherwise.")
    # What lies in the working folder is no reason to refuse: that is where the new module goes.
    elsewhere = [part for part in sys.path if part and Path(part).resolve() != Path.cwd().resolve()]
    if key in sys.stdlib_module_names or _is_module(key, elsewhere):
        raise UsageError(f"There is a module {key!r} already, which yours would hide: name the probe otherwise.")


def _is_module(key: str, path: list[str]) -> bool:
    from importlib.machinery import PathFinder

    return PathFinder.find_spec(key, path) is not None or key in sys.modules
