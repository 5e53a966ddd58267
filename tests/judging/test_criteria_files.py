"""Criteria from a file: what stands in it is what is required, and whatever is wrong with it is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.core.errors import ConfigError
from auditor.evidence.registration import changed_criteria
from auditor.judging.criterion import DEFAULT_PROFILE, Criterion, load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.policy import load_policies
from auditor.judging.profiles import DATA_PROFILE
from auditor.report.report_view import applies_to
from auditor.statistics.attack_estimates import AtMost
from tests.quantifiers import all_of

WHOLE = """
set_by = "Risk Committee"
set_at = 2026-01-31

[[criteria]]
metric = "demographic-parity-difference"
direction = "at_most"
bound = 1

[[criteria]]
metric = "selection_rate"
direction = "within"
bound = [0.4, 0.6]
probe = "group-fairness"
method = "by-group"
sensitive = "sex"
group = { sex = "f", age = 30 }
source = "house rule 2"
set_by = "Ann Example"
set_at = "2026-02-01"
needs = "true labels"

[[criteria]]
metric = "accuracy"
direction = "at_least"
bound = 0.8
sensitive = ["sex", "age"]
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "house.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    first, second, third = load_criteria(path)
    assert [first, second, third] == load_criteria(str(path))
    assert first == Criterion(
        metric="demographic_parity_difference",
        direction="at_most",
        bound=1.0,
        source="house.toml",
        set_by="Risk Committee",
        set_at="2026-01-31",
    )
    assert second == Criterion(
        metric="selection_rate",
        direction="within",
        bound=(0.4, 0.6),
        source="house rule 2",
        set_by="Ann Example",
        set_at="2026-02-01",
        probe="group_fairness",
        method="by_group",
        sensitive=("sex",),
        group={"sex": "f", "age": "30"},
        needs="true labels",
    )
    assert third.sensitive == ("sex", "age") and third.group is None and third.bound == 0.8


def test_who_set_a_bound_is_not_made_up(tmp_path: Path) -> None:
    (found,) = load_criteria(written(tmp_path, '[[criteria]]\nmetric = "a"\ndirection = "at_most"\nbound = 0.1\n'))
    assert (found.set_by, found.set_at, found.built_in) == ("not stated", "not stated", False)


def test_the_built_in_profile_is_found_by_its_name_and_says_whose_it_is() -> None:
    found = load_criteria(DEFAULT_PROFILE)
    assert found == load_criteria() and len(found) > 5
    assert all_of(c.built_in and c.source == DEFAULT_PROFILE and "not law" in c.set_by for c in found)


def test_a_file_that_has_the_profiles_name_is_no_profile(tmp_path: Path) -> None:
    path = tmp_path / f"{DEFAULT_PROFILE}.toml"
    path.write_text('[[criteria]]\nmetric = "a"\ndirection = "at_most"\nbound = 0.1\n')
    (found,) = load_criteria(path)
    assert found.metric == "a" and not found.built_in


def entry(**changes: str | None) -> str:
    """One criterion with some of its lines changed, or left out."""
    lines = {"metric": '"a"', "direction": '"at_most"', "bound": "0.1"} | changes
    return "[[criteria]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)


FAULTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", r"'house\.toml' has no \[\[criteria\]\] table"),
    "no table": ("criteria = 3", r"has no \[\[criteria\]\] table"),
    "no entries": ("criteria = []", r"has no \[\[criteria\]\] table"),
    "one table": ('[criteria]\nmetric = "a"', r"has no \[\[criteria\]\] table"),
    "text": ('criteria = ["a"]', r"criterion 1: criteria must be \[\[criteria\]\] tables, not 'a'"),
    "no TOML": ("a = b\n", "cannot be read as TOML: Invalid value .*line 1"),
    "no text": (b"\xff\xfe", "cannot be read as TOML: .*utf-8"),
    "endless number": (entry(bound="1" * 5000), "cannot be read as TOML: .*thousands of digits"),
    "nested": (f"a = {'[' * 100_000}{']' * 100_000}", "cannot be read as TOML: it is nested too deeply"),
    "unknown key": (entry(bond="1"), "criterion 1: unknown key 'bond'; did you mean 'bound'"),
    "second of two": (entry() + entry(metric=None), 'criterion 2: a criterion needs metric = "NAME"'),
    "no metric": (entry(metric=None), 'criterion 1: a criterion needs metric = "NAME"'),
    "empty metric": (entry(metric='""'), 'a criterion needs metric = "NAME"'),
    "numeric metric": (entry(metric="3"), 'a criterion needs metric = "NAME"'),
    "no direction": (entry(direction=None), "direction must be one of at_most, at_least, within, not None"),
    "other direction": (entry(direction='"below"'), "direction must be one of .*, not 'below'"),
    "no bound": (entry(bound=None), "bound must be a number, .*not None"),
    "bound of text": (entry(bound='"0.1"'), "bound must be a number, .*not '0.1'"),
    "bound of truth": (entry(bound="true"), "bound must be a number, .*not True"),
    "infinite bound": (entry(bound="inf"), "bound must be a number, .*not inf"),
    "undefined bound": (entry(bound="nan"), "bound must be a number, .*not nan"),
    "infinite side": (entry(direction='"within"', bound="[0.1, inf]"), r"bound must be a number, .*not \[0.1, inf\]"),
    "side of text": (entry(direction='"within"', bound='[0.1, "b"]'), "bound must be a number"),
    "two bounds of one side": (entry(bound="[0.1, 0.2]"), "within takes bound = .*; the others take one number"),
    "one bound of two sides": (entry(direction='"within"'), "within takes bound = .* with low < high"),
    "one side": (entry(direction='"within"', bound="[0.1]"), "within takes bound = .* with low < high"),
    "three sides": (entry(direction='"within"', bound="[0.1, 0.2, 0.3]"), "within takes bound = .* with low < high"),
    "no sides": (entry(direction='"within"', bound="[]"), "within takes bound = .* with low < high"),
    "no side at all": (entry(bound="[]"), "within takes bound = .*; the others take one number"),
    "a list of one": (entry(bound="[0.1]"), "within takes bound = .*; the others take one number"),
    "three bounds": (entry(bound="[0.1, 0.2, 0.3]"), "within takes bound = .*; the others take one number"),
    "sides crossed": (entry(direction='"within"', bound="[0.6, 0.4]"), "with low < high"),
    "sides that meet": (entry(direction='"within"', bound="[0.4, 0.4]"), "with low < high"),
    "group of text": (entry(group='"f"'), "group must be a table, such as .*not 'f'"),
    "sensitive of a number": (entry(sensitive="3"), "sensitive must be a name or a list of names, not 3"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_a_file_is_one_sentence_that_names_it(tmp_path: Path, name: str) -> None:
    text, message = FAULTS[name]
    with pytest.raises(ConfigError, match=message) as caught:
        load_criteria(written(tmp_path, text))
    said = str(caught.value)
    assert "house.toml" in said and "\n" not in said and said.endswith(".") and len(said) < 400


def test_a_file_that_is_not_there_or_a_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"There is no policy '.*absent\.toml': .*\({DATA_PROFILE}, {DEFAULT_PROFILE}\)\.$"
    ):
        load_criteria(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory\.$"):
        load_criteria(tmp_path)


@pytest.mark.parametrize("name", ["no TOML", "endless number", "nested", "three bounds", "second of two"])
def test_the_flag_of_a_file_that_is_wrong_says_the_same(tmp_path: Path, name: str) -> None:
    text, _ = FAULTS[name]
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=r"^[^\n]*house\.toml[^\n]*\.$"):
        load_policies([str(path)])


# ---- one place among those of a curve ------------------------------------------------------------------------------

AT = """
[[criteria]]
metric = "accuracy_under_pgd"
direction = "at_least"
bound = 0.5
at = { epsilon = 0.0314 }
"""


def _curve() -> ProbeResult:
    left = {4 / 255: AtMost(successes=130, n=200), 8 / 255: AtMost(successes=20, n=200)}
    measured = [
        Measurement(metric="accuracy_under_pgd", estimate=e, n_samples=200, ideal=1.0, at={"epsilon": level})
        for level, e in left.items()
    ]
    return ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(measured))


def test_a_criterion_may_name_a_level_as_it_is_printed(tmp_path: Path) -> None:
    """8 / 255 is printed as 0.0314; the other level is shown and not judged, and takes no share."""
    (own,) = load_criteria(written(tmp_path, AT))
    assert own.at == {"epsilon": 0.0314} and own.place == "at epsilon 0.0314"
    findings, family = judge([_curve()], [own])
    assert [(f.outcome, f.criterion is None) for f in findings] == [(Outcome.NOT_JUDGED, True), (Outcome.FAIL, False)]
    assert family.m == 1
    both, _ = judge([_curve()], [own.model_copy(update={"at": None})])
    assert [f.outcome for f in both] == [Outcome.INCONCLUSIVE, Outcome.FAIL]
    assert applies_to(own.record) == "at epsilon 0.0314"
    assert own.record.model_dump()["at"] == {"epsilon": 0.0314}


def test_a_level_that_nobody_measured_is_named(tmp_path: Path) -> None:
    (own,) = load_criteria(written(tmp_path, AT.replace("0.0314", "0.1")))
    findings, _ = judge([_curve()], [own])
    assert [f.outcome for f in findings] == [Outcome.NOT_JUDGED, Outcome.NOT_JUDGED, Outcome.NOT_RUN]
    assert "'accuracy_under_pgd' at epsilon 0.1, which" in findings[-1].reason


def test_requirements_at_two_levels_are_two(tmp_path: Path) -> None:
    two = load_criteria(written(tmp_path, AT + AT.replace("0.0314", "0.0157").replace("0.5", "0.6")))
    findings, family = judge([_curve()], two)
    assert [(f.outcome, f.criterion and f.criterion.bound) for f in findings] == [
        (Outcome.INCONCLUSIVE, 0.6),
        (Outcome.FAIL, 0.5),
    ]
    assert family.budgets[0].questions == 2
    changed = changed_criteria([c.record for c in two], [two[0].record])
    assert [(subject, b) for subject, _, b in changed] == [("accuracy_under_pgd at epsilon 0.0157", None)]


@pytest.mark.parametrize("at", ["0.1", "{}", "{ epsilon = [0.1] }", "{ epsilon = true }", "{ epsilon = nan }"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, at: str) -> None:
    with pytest.raises(ConfigError, match="at "):
        load_criteria(written(tmp_path, AT.replace("{ epsilon = 0.0314 }", at)))


def test_a_record_without_places_says_nothing_of_them() -> None:
    """Evidence of before keeps its digests."""
    assert "at" not in load_criteria()[0].record.model_dump()
