"""The words of ``[labels]``: of columns and of values, in either of TOML's ways, and never for what is not there."""

from __future__ import annotations

import tomllib

import pytest

from auditor.core.errors import ConfigError, UsageError
from auditor.report.record.configuration import Labels, check_keys, check_words, spelled


def of(text: str) -> Labels:
    return Labels.from_table(tomllib.loads(text), "audit.toml: [labels]")


def test_columns_and_values_have_words_and_others_their_own_names() -> None:
    labels = of('afam = "African-American"\n"afam.yes" = "yes, Black"\nhome.own = "owns it"\n"a.b" = "a dot"\n')
    assert labels.column("afam") == "African-American" and labels.column("age") == "age"
    assert labels.value("afam", "yes") == "yes, Black" and labels.value("home", "own") == "owns it"
    assert labels.column("a.b") == "a dot" and labels.value("home", "rent") == "rent"
    assert of('n.1 = "one"').value("n", 1.0) == of('n.1 = "one"').value("n", 1) == "one"
    bare = Labels()
    assert [bare.value("x", v) for v in (None, True, 1_234_567, 0.1234567, 1_999)] == [
        "missing", "True", "1,234,567", "0.123457", "1999",
    ]  # fmt: skip
    assert [spelled(v) for v in (1.0, 1, "a", 0.5, True)] == ["1", "1", "a", "0.5", "True"]


@pytest.mark.parametrize("text", ["afam = 3", 'afam = " "', f'afam = "{"x" * 300}"', "afam.yes = []"])
def test_a_label_is_words(text: str) -> None:
    with pytest.raises(ConfigError, match=r"\[labels\]: 'afam.* must be words"):
        of(text)


def test_labels_of_nothing_name_the_nearest_there_is() -> None:
    columns, values = ["afam", "income", "a.b"], {"afam": ["yes", "no"], "a.b": ["x"]}
    check_keys(["afam", "afam.yes", "income.7", "a.b", "a.b.x"], columns, values)
    with pytest.raises(UsageError, match=r"'afma', and the data have no such column; did you mean 'afam'\?"):
        check_keys(["afma"], columns, values)
    with pytest.raises(UsageError, match=r"no such column; did you mean 'income'\?"):
        check_keys(["incme.7"], columns, values)
    with pytest.raises(UsageError, match=r"column 'afam' has no value 'yess'; did you mean 'yes'\? It has: no, yes"):
        check_keys(["afam.yess"], columns, values)


@pytest.mark.parametrize(
    "words",
    [
        {"sex.f": "male", "sex.m": "female"},
        {"sex.f": "m"},
        {"sex.f": " M ", "sex.m": "female"},
        {"sex.f": "women", "sex.m": "Women"},
        {"sex": "race"},
        {"sex": "race", "race": "sex"},
        {"sex": "group", "race": "group"},
    ],
)
def test_no_column_or_value_is_called_as_another_is(words: dict[str, str]) -> None:
    values = {"sex": ["f", "m", "male", "female"], "race": ["a", "b"]}
    with pytest.raises(UsageError, match="readers would take one for the other"):
        check_words(words, ["sex", "race", "age"], values)


def test_words_that_tell_apart_are_taken() -> None:
    check_words(
        {"sex": "Gender", "sex.f": "women", "sex.m": "men", "race.a": "A", "age": "age"},
        ["sex", "race", "age"],
        {"sex": ["f", "m"], "race": ["a", "b", "men"]},
    )
