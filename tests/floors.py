"""Write the lowest versions that pyproject.toml allows as a constraints file, for ``make test-floors``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

_FLOOR = re.compile(r"(?P<name>[\w.-]+)(\[[\w,-]+\])?>=(?P<version>[\w.]+)")


def floors(requirements: Iterable[str]) -> dict[str, str]:
    """The lowest version of each package; where two ranges differ, the higher one."""
    found: dict[str, str] = {}
    for requirement in requirements:
        match = _FLOOR.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement} has no floor")
        name, version = match["name"].lower(), match["version"]
        found[name] = max(found.get(name, version), version, key=_numbers)
    return found


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def main() -> None:
    """Print a line for each package of the project, its extras and its tests."""
    told = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    project, groups = told["project"], told["dependency-groups"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for name, version in sorted(floors([*project["dependencies"], *extras, *groups["test"]]).items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
