"""``auditor/`` knows no probe and no mitigation by its name: what is special about one stands on its class."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from mitigations import MITIGATIONS
from probes import PROBES
from tests.contract.import_graph import modules

ROOT = Path(__file__).parents[2]
NAMES = {*PROBES, *MITIGATIONS}

_PILLAR = "the pillar of that name"
_LABEL = "a label of a sentence in the published file"
_FILE = "the published benchmark of that name, whose reader this file stands beside"
# How often a file holds such a word as something else than a probe's name, and as what.
OTHERWISE: dict[tuple[str, str], tuple[int, str]] = {
    ("data/benchmarks/accompanying_files.py", "bbq"): (1, _FILE),
    ("data/benchmarks/accompanying_files.py", "winobias"): (1, _FILE),
    ("data/benchmarks/accompanying_files.py", "winogender"): (1, _FILE),
    ("data/benchmarks/sentence_files.py", "stereotype"): (9, _LABEL),
    ("evidence/verify/verify_bundle.py", "performance"): (1, _PILLAR),
    ("judging/measurement.py", "performance"): (1, _PILLAR),
    ("judging/measurement.py", "robustness"): (1, _PILLAR),
    ("report/comparing/gap_warnings.py", "representation"): (1, "what proxies are predicted from"),
    ("report/comparing/side_by_side.py", "change"): (1, "the question of that id in the catalogues"),
    ("report/comparing/tradeoff_report.py", "performance"): (1, "a key of the file format: what a point performs"),
    ("report/comparing/usefulness.py", "performance"): (1, _PILLAR),
    ("report/drawing/canvas.py", "bold"): (1, "a weight of type"),
    ("report/drawing/figures.py", "robustness"): (1, _PILLAR),
    ("report/drawing/figures.py", "performance"): (1, _PILLAR),
    ("report/first_page_parts.py", "reweighing"): (1, "a command to copy, which must name one mitigation"),
    ("report/record/summary_lines.py", "performance"): (1, _PILLAR),
    ("statistics/changes.py", "change"): (1, "an attribute of a rate that moved"),
}


def named(source: str) -> Counter[str]:
    """How often a module holds each name of a probe or a mitigation as a text."""
    texts = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return Counter(text for text in texts if isinstance(text, str) and text in NAMES)


def test_no_text_in_auditor_is_the_name_of_a_probe_or_a_mitigation() -> None:
    package = ROOT / "auditor"
    found = {
        (path.relative_to(package).as_posix(), name): n
        for path in sorted(package.rglob("*.py"))
        for name, n in named(path.read_text(encoding="utf-8")).items()
    }
    # A name that is gone is taken off the list, too.
    assert found == {place: n for place, (n, _) in OTHERWISE.items()}


def test_a_name_is_found_wherever_it_stands() -> None:
    source = 'if f.probe in ("group_fairness", "reweighing"):\n    told = f"{x}" + {"bbq": 1}["bbq"]  # change\n'
    assert named(source) == {"group_fairness": 1, "reweighing": 1, "bbq": 2}


def test_a_module_that_a_docstring_names_exists() -> None:
    known = modules(ROOT)
    named = {
        (name, reference)
        for name, file in known.items()
        for reference in re.findall(r":mod:`~?((?:auditor|probes|mitigations|cli)\.[\w.]+)`", file.read_text("utf-8"))
    }
    assert len(named) > 20
    assert sorted(pair for pair in named if pair[1] not in known) == []
