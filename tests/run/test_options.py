"""Lists of names in options: commas divide them, and quotes keep a comma in a name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from auditor.run.option_values import names_in
from auditor.run.options import ScanOptions


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ["a", "b"]),
        (" a , b ,", ["a", "b"]),
        ('age,"income, net"', ["age", "income, net"]),
        ('"a ""b"" c", d', ['a "b" c', "d"]),
        ('5" pipe,b', ['5" pipe', "b"]),
        ("", []),
        (",", []),
    ],
)
def test_names_are_read_as_a_line_of_csv(text: str, names: list[str]) -> None:
    assert names_in(text) == names
    assert ScanOptions.of({"features": text}).features == (tuple(names) or None)


def test_what_is_a_list_already_holds_names_as_they_are() -> None:
    options = ScanOptions.of({"features": ["income, net", "age"]})
    assert options.features == ("income, net", "age")
    assert ScanOptions.of(options.said()).features == options.features


def test_quotes_that_do_not_end_are_said() -> None:
    with pytest.raises(ValidationError, match="is no list of names"):
        ScanOptions.of({"classes": '"a,b'})
