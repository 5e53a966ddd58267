"""The oldest versions that ``make test-floors`` installs are those of pyproject.toml."""

from __future__ import annotations

import re

import pytest

from tests import ROOT
from tests.floors import floors, main
from tests.quantifiers import all_of


def test_a_floor_is_the_highest_of_a_package() -> None:
    assert floors(["a>=1.9", "A[x,y]>=1.10", "b_c>=2"]) == {"a": "1.10", "b_c": "2"}
    with pytest.raises(ValueError, match="b has no floor"):
        floors(["a>=1", "b"])


def test_no_floor_is_above_what_the_tests_passed_with(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    lowest = dict(line.split("==") for line in capsys.readouterr().out.splitlines())
    passed = dict(re.findall(r"^([\w.-]+)==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    newest = {name.lower().replace("_", "-"): version for name, version in passed.items()}

    def numbers(version: str) -> list[int]:
        return [int(part) for part in version.rstrip(".").split(".")]

    shared = [name for name in lowest if name.replace("_", "-") in newest]
    assert len(shared) > 40 and {"torch", "numpy", "transformers"} <= {*shared}
    assert all_of(numbers(lowest[name]) <= numbers(newest[name.replace("_", "-")]) for name in shared)
