"""Lists of items to leave out of a benchmark: what they say is done and told, and what they do not say is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from auditor.core.errors import BenchmarkError, UsageError
from auditor.data.benchmarks.accompanying_files import exclude_items
from auditor.data.benchmarks.benchmark import Benchmark, SentencePair

FOUND = Benchmark("CrowS-Pairs", "x/crows.csv", "ab", tuple(SentencePair("a", "b", "age", id=i) for i in "0123"))


def listed(folder: Path, text: str) -> Path:
    (folder / "salmon.tsv").write_bytes(text.encode())
    return folder / "salmon.tsv"


def test_what_is_listed_is_left_out_and_told(tmp_path: Path) -> None:
    text = "# after Blodgett et al.\n2\tno stereotype\r\n\n0\tno  stereotype \n3\n"
    found = exclude_items(FOUND, listed(tmp_path, text))
    assert ([e.id for e in found.examples], [e.id for e in found.left_out]) == (["1"], ["0", "2", "3"])
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert found.source == (
        f"crows.csv, sha256 ab, 1 examples; 3 left out by salmon.tsv, sha256 {digest} (no stereotype 2)"
    )
    assert exclude_items(FOUND, None) is FOUND
    bare = exclude_items(FOUND, listed(tmp_path, "1"))
    assert bare.source.endswith(", without a reason") and len(bare.examples) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "lists no item: leave --benchmark-filter out"),
        ("1\nx9\n", "CrowS-Pairs has no item with the id 'x9'"),
        ("1\n1\ttwice\n", "line 2: '1' is listed twice"),
        ("0\n1\n2\n3\n", "leaves out all 4 items"),
        (" \n", "is empty"),
    ],
)
def test_a_list_of_anything_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        exclude_items(FOUND, listed(tmp_path, text))


def test_an_id_of_several_items_names_none(tmp_path: Path) -> None:
    twice = Benchmark("x", "x", "ab", (*FOUND.examples, SentencePair("c", "d", "age", id="1")))
    with pytest.raises(BenchmarkError, match="x has 2 items with the id '1'"):
        exclude_items(twice, listed(tmp_path, "1\n"))
    with pytest.raises(UsageError, match="There is no"):
        exclude_items(FOUND, tmp_path / "none.tsv")
