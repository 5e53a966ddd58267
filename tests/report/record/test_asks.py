"""Keys of findings: two findings that ask something else are never one, however their columns are called."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from auditor.judging.criterion import CriterionRecord
from auditor.report.record.earlier_audits import COORDINATES, key_of, key_text
from tests import ROOT
from tests.quantifiers import all_of


@dataclass(frozen=True)
class Asked:
    sensitive: tuple[str, ...] = ()
    group: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, str | float] = field(default_factory=dict)
    probe: str = "group_fairness"
    method: str | None = "between_groups"
    metric: str | None = "selection_rate"
    criterion: CriterionRecord | None = None


def test_columns_cannot_be_named_so_that_two_findings_are_one() -> None:
    names = ("a", "b", "x", "a x b", "a x", "x b", " ", "", '["a", "b"]', "by", '["group", "by"]', "class")
    asked = [Asked(sensitive=s) for n in (1, 2, 3) for s in itertools.product(names, repeat=n)]
    asked += [Asked(group={name: value}) for name in names for value in names]
    asked += [Asked(at={name: value}) for name in ("class", "threshold", "slice") for value in (*names, 0.5)]
    keys = [key_of(each) for each in asked]
    assert len(set(keys)) == len(asked) > 2_000


def test_plain_names_keep_the_keys_that_were_signed_before() -> None:
    assert key_of(Asked(sensitive=("sex", "race")))[3] == (("by", "sex x race"),)
    assert key_of(Asked(group={"sex": "f"}, at={"class": "1"}))[3] == (("class", "1"), ("sex", "f"))
    assert key_text(key_of(Asked(group={"by": "f"}))) == "selection_rate (by=f)"
    assert key_text(key_of(Asked(sensitive=("a x b", "c")))) == "selection_rate (by=a x b x c)"


def test_the_coordinates_of_numbers_by_group_are_known() -> None:
    found = set[str]()
    for path in (ROOT / "probes" / "fairness").glob("*.py"):
        found |= set(re.findall(r'at=\{(?:\*\*\w+\.at, )?"(\w+)"', path.read_text()))
    assert {"class", "threshold"} <= found and all_of(name in COORDINATES for name in found - {"test", "from"}), found
