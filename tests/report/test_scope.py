"""Page 2: what was stated, what was counted, whom the rows stand for; what nobody said is an empty line."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import ConfigError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.group_counts import MISSING
from auditor.judging.measurement import Copies, Outcome
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About, Labels, about_of, check_reference, stated_groups
from auditor.report.record.group_sizes import MOST_COLUMNS, Missing
from auditor.report.record.representation import ERROR_RATE, shares_of
from auditor.report.scope_page import MOST_GROUPS, Line, Scope, scope_of
from auditor.run.run_audit import data_record
from auditor.statistics.estimate import Exact
from auditor.statistics.rates import Proportion
from tests.quantifiers import all_of, none_of
from tests.report.samples import HOSTILE, sample_report

NBSP = "\N{NO-BREAK SPACE}"
CENSUS = {"source": "census 2025", "sex": {"Male": 0.49, "Female": 0.51}}


def about(content: dict[str, Any]) -> About:
    made = about_of(content, Labels(), "en", "audit.toml")
    assert made is not None
    return made


def told(said: dict[str, Any] | None = None, **data: object) -> Scope:
    return scope_of(report(said, **data))


def report(said: dict[str, Any] | None = None, **data: object) -> AuditReport:
    made = sample_report()
    own = {"groups": {"sex": {"Female": 330, "Male": 670}}, "n_rows": 1000, **data}
    return made.model_copy(
        update={
            "about": about(said) if said else None,
            "data": made.data.model_copy(update=own),
        }
    )


def lines(scope: Scope) -> dict[str, Line]:
    return {line.key or line.label: line for section in scope.sections for line in section.lines}


# ---- what was stated -------------------------------------------------------------------------------------------------


def test_what_nobody_stated_is_an_empty_line_that_names_its_key() -> None:
    known = lines(told())
    keys = [
        "[organisation] name", "[document] id", "[document] version", "[document] classification", "[model] id",
        "[model] name", "[model] version", "[model] owner", "[model] tier", "[system] purpose", "[system] use",
        "[system] decision", "[system] affected", "[data] source", "[data] population", "[data] lineage",
        "[data.reference] source",
    ]  # fmt: skip
    assert [key for key in known if key.startswith("[")] == keys
    assert none_of(known[key].value for key in keys)
    page = render_html(report())
    assert all_of(f'<span class="to-state"><code>{key}</code></span>' in page for key in keys)


def test_what_was_stated_stands_on_its_line_and_nothing_else_does() -> None:
    said = {"model": {"owner": "Ann", "tier": "high"}, "system": {"decision": "who gets a loan"}}
    known = lines(told(said))
    assert (known["[model] owner"].value, known["[model] tier"].value) == ("Ann", "high")
    assert known["[system] decision"].value == "who gets a loan"
    assert not known["[system] purpose"].value and not known["[data] lineage"].value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"teir": "high"}}, "no key 'teir'.*tier"),
        ({"data": {"refrence": {}}}, "no key 'refrence'.*reference"),
        ({"data": {"reference": "census"}}, r"\[data.reference\] must be a table"),
        ({"data": {"reference": {"sex": {"F": 0.5, "M": 0.5}}}}, "where they were published: add source"),
        ({"data": {"reference": {"source": "x", "sex": {"F": 0.5, "M": 0.3}}}}, "add up to 0.8.*name every group"),
        ({"data": {"reference": {"source": "x", "sex": {"F": 1.2, "M": -0.2}}}}, r"must lie in \[0, 1\]"),
        ({"data": {"reference": {"source": "x", "sex": {"F": True, "M": 0.0}}}}, r"must lie in \[0, 1\]"),
        ({"data": {"reference": {"source": "x", "sex": {"F": float("nan"), "M": 0.5}}}}, r"must lie in \[0, 1\]"),
        ({"data": {"reference": {"source": "x", "sex": 0.5}}}, "must be the shares of 2 to"),
        ({"data": {"reference": {"sorce": "x"}}}, "source"),
    ],
)
def test_what_is_stated_wrongly_is_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        about(content)


def test_a_population_reads_as_it_was_written() -> None:
    made = report({"data": {"reference": CENSUS}})
    again = AuditReport.from_json(made.to_json())
    assert again.about is not None and again.about.data.reference.shares == {"sex": {"Male": 0.49, "Female": 0.51}}
    assert again == made


def test_a_record_of_before_is_spelled_as_it_was() -> None:
    plain = sample_report().model_copy(update={"about": about({"data": {"source": "x"}})})
    spelled = plain.to_json()
    assert '"reference"' not in spelled and '"lineage"' not in spelled
    assert (
        '"groups"' not in spelled.partition('"findings"')[0] and '"missing"' not in spelled.partition('"findings"')[0]
    )


# ---- whom the rows stand for -----------------------------------------------------------------------------------------


def test_a_group_that_is_rarer_than_in_the_population_is_said_in_words() -> None:
    scope = told({"data": {"reference": CENSUS}})
    women = next(line for line in scope.groups[0].lines if "Female" in line.group)
    assert women.standing == "fewer" and women.n == "330"
    assert women.said == (
        f"33{NBSP}% (30 to 36) of the rows and 51{NBSP}% of the reference; shown to be fewer than in the reference"
    )
    assert scope.notes == (f"The 2 intervals hold together with 95{NBSP}% confidence (Clopper and Pearson).",)


def test_the_bounds_are_those_of_another_library_at_the_shared_level() -> None:
    from scipy.stats import binomtest

    women = next(s for s in shares_of(report({"data": {"reference": CENSUS}})) if s.group == "Female")
    other = binomtest(330, 1000).proportion_ci(confidence_level=1 - ERROR_RATE / 2, method="exact")
    assert (women.low, women.high) == pytest.approx((other.low, other.high), abs=1e-9)


def test_a_difference_that_chance_explains_is_not_said_to_be_one() -> None:
    scope = told({"data": {"reference": CENSUS}}, groups={"sex": {"Female": 49, "Male": 51}})
    assert {line.standing for line in scope.groups[0].lines} == {"open"}
    assert all_of("no difference from the reference is shown" in line.said for line in scope.groups[0].lines)


def test_a_group_without_a_row_is_told_and_one_without_a_reference_too() -> None:
    absent = shares_of(report({"data": {"reference": CENSUS}}, groups={"sex": {"Male": 400}}))
    women = next(share for share in absent if share.group == "Female")
    assert women.n == 0 and women.low == 0.0 and women.comparison == "fewer"
    other = shares_of(report({"data": {"reference": CENSUS}}, groups={"sex": {"Male": 200, "Female": 190, "X": 10}}))
    assert {share.group: share.comparison for share in other}["X"] == "unnamed"


def test_rows_without_a_group_count_in_no_share() -> None:
    made = report({"data": {"reference": CENSUS}}, groups={"sex": {"Male": 200, "Female": 200, MISSING: 600}})
    assert [(s.share, s.of) for s in shares_of(made)] == [(0.5, 400), (0.5, 400)]
    assert "600 of 1,000 rows have no sex" in lines(told(None, groups=made.data.groups, missing=Missing()))[
        "Missing values"
    ].value  # fmt: skip


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"cluster": "person"}, "rows of one cluster"),
        ({"weight": "w"}, "do not weigh the same"),
        ({"copies": Copies(n=1000, copies=500, combinations=1001, divisor=2)}, "copies of others"),
    ],
)
def test_rows_that_are_no_independent_draws_have_no_interval(data: dict[str, object], why: str) -> None:
    made = report({"data": {"reference": CENSUS}}, **data)
    assert {share.comparison for share in shares_of(made)} == {"uncertain"}
    scope = scope_of(made)
    assert why in scope.notes[0] and none_of(" to " in line.said for line in scope.groups[0].lines)


def test_without_a_population_nothing_is_said_of_whom_the_rows_stand_for() -> None:
    assert "is not known" in told().notes[0]
    assert told(None, groups=None).notes == ("No groups were compared.",)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.02, 0.98), (0.2, 0.3, 0.5), (0.001, 0.049, 0.95)])
def test_all_intervals_hold_together_as_often_as_they_promise(shares: tuple[float, ...]) -> None:
    """Rows drawn from the population itself: a group is shown to differ in at most 5 % of audits."""
    draws = np.random.default_rng(20261127).multinomial(200, shares, size=400)
    stated = {"source": "x", "sex": {str(k): share for k, share in enumerate(shares)}}
    own = about({"data": {"reference": stated}})
    base = report()
    missed = 0
    for draw in np.unique(draws, axis=0):
        data = base.data.model_copy(update={"groups": {"sex": {str(k): int(n) for k, n in enumerate(draw)}}})
        found = shares_of(base.model_copy(update={"about": own, "data": data}))
        times = int((draws == draw).all(axis=1).sum())
        missed += times * any(share.comparison in ("fewer", "more") for share in found)
    assert missed / 400 <= ERROR_RATE + 3 * (ERROR_RATE * (1 - ERROR_RATE) / 400) ** 0.5


def test_many_groups_are_cut_and_counted_and_those_shown_to_be_rarer_stay_in_sight() -> None:
    n = MOST_GROUPS + 5
    sizes = {f"g{k:02}": 100 for k in range(n)} | {"rare": 1}
    stated = {"source": "x", "sex": {name: 1 / (n + 1) for name in sizes}}
    (groups,) = told({"data": {"reference": stated}}, groups={"sex": sizes}).groups
    assert len(groups.lines) == MOST_GROUPS and groups.more == "and 6 more groups"
    assert any("rare" in line.group for line in groups.lines)


# ---- what was counted ------------------------------------------------------------------------------------------------


def test_what_rows_lack_is_counted_by_the_audit() -> None:
    X = pd.DataFrame({"a": [1.0, None, 3.0, None], "b": ["x", None, "y", "z"], "c": [1, 2, 3, 4]})
    data = AuditData.from_arrays(
        X, [1, None, 0, 1], classes=(0, 1), sensitive_features={"sex": ["F", None, "M", "F"]}
    )  # fmt: skip
    record = data_record(data)
    assert record.groups == {"sex": {"F": 2, "M": 1, MISSING: 1}}
    assert record.missing == Missing(labels=1, n_features=3, features={"a": 2, "b": 1})
    made = report(None, groups=record.groups, missing=record.missing, n_rows=4)
    said = lines(scope_of(made))["Missing values"].value
    assert said == f"1 of 4 rows have no label; 1 of 4 rows have no sex; a: 2 of 4 (50{NBSP}%); b: 1 of 4 (25{NBSP}%)"


def test_a_text_has_no_columns_and_an_array_has_some() -> None:
    texts = data_record(AuditData.from_arrays(["a", "b"], [0, 1], classes=(0, 1)))
    assert texts.missing == Missing(labels=0)
    array = data_record(AuditData.from_arrays(np.array([[1.0, np.nan], [2.0, np.nan]]), [0, 1], classes=(0, 1)))
    assert array.missing == Missing(labels=0, n_features=2, features={"column 2": 2})


def test_of_many_columns_the_emptiest_are_kept() -> None:
    made = Missing.from_counts(None, {f"c{k}": k for k in range(MOST_COLUMNS + 20)})
    assert len(made.features) == MOST_COLUMNS and made.more == 19 and "c1" not in made.features
    assert next(iter(made.features)) == f"c{MOST_COLUMNS + 19}"


def test_a_group_spelled_almost_as_one_of_the_rows_is_refused_and_one_without_rows_is_not() -> None:
    seen = {"sex": ["Female", "Male"]}
    with pytest.raises(UsageError, match="'Femal'.*Female"):
        check_reference({"sex": ("Femal", "Male")}, seen)
    check_reference({"sex": ("Female", "Male", "Diverse")}, seen)
    check_reference({"sex": ("Female", "Males", "Male")}, seen)


# ---- strangers' words ------------------------------------------------------------------------------------------------


def test_strangers_words_stay_words_in_every_format() -> None:
    nasty = HOSTILE[0] + " | `x` =1+1 [a](http://b) @me #1"
    said = {
        "organisation": {"name": nasty},
        "system": {"purpose": nasty},
        "data": {"lineage": nasty, "reference": {"source": nasty, "sex": {nasty: 0.5, "M": 0.5}}},
    }
    made = report(said, groups={"sex": {nasty: 10, "M": 990}})
    page, short = render_html(made), render_markdown(made)
    assert "<script>alert" not in page and nasty not in page
    assert "](http://b)" not in short and "\n@me" not in short
    own = short[short.index("### Scope") : short.index("### Remediation")].splitlines()
    assert all_of(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in own if line.startswith("|"))


def test_label_quality_is_what_copies_of_training_rows_say() -> None:
    made = report()
    base = next(f for f in made.findings if f.value is not None)

    def conflict(copies: str, **changes: object) -> AuditReport:
        own = {"probe": "label_conflicts", "metric": "label_conflict_rate", "at": {"copies": copies}} | changes
        return made.model_copy(update={"findings": (base.model_copy(update=own),)})

    exact = Exact(known=0.02)
    known = lines(scope_of(conflict("exact", value=0.02, estimate=exact)))["Label quality"].value
    assert known == f"2{NBSP}% of the training rows have a copy with another label (exact copies)"
    drawn = conflict("near", value=0.12, interval=(0.1, 0.15), estimate=Proportion(successes=12, n=100))
    assert f"12{NBSP}% (10 to 15) of" in lines(scope_of(drawn))["Label quality"].value
    unasked = made.model_copy(update={"findings": ()})
    given = lines(scope_of(unasked))["Label quality"].value
    assert "--train" not in given and "is asked by the probe label_conflicts" in given
    none = made.data.model_copy(update={"n_train_rows": None, "train_path": None})
    assert "takes --train" in lines(scope_of(unasked.model_copy(update={"data": none})))["Label quality"].value
    lost = conflict("near", value=None, outcome=Outcome.NOT_RUN, reason="It ran out of memory.")
    assert lines(scope_of(lost))["Label quality"].value == "It ran out of memory."


def test_a_population_of_a_feature_that_is_not_compared_is_refused_with_the_nearest() -> None:
    own = about({"data": {"reference": CENSUS}})
    assert stated_groups(own, ("sex", "race")) == {"sex": ("Male", "Female")}
    with pytest.raises(UsageError, match="'sex', whose groups are not compared: add --sensitive sex"):
        stated_groups(own, ("region",))
    with pytest.raises(UsageError, match="'sex', whose groups are not compared.*sexe"):
        stated_groups(own, ("sexe",))
    assert stated_groups(None, ()) == {}
