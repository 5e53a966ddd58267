"""Files of texts: what is read, what is named, and what is refused with a sentence that says what to do."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from auditor.core.errors import DataError, UsageError
from probes import PROBES
from probes.privacy.memorization.text_sources import once_only, read_texts, unrepeated


def test_lines_and_columns_are_read_and_hashed(tmp_path: Path) -> None:
    plain = tmp_path / "a.txt"
    plain.write_text("\ufeffone\n\n  two \n", encoding="utf-8")
    found = read_texts(str(plain), "file")
    assert found.texts == ("one", "two")
    assert found.origin == f"a.txt, sha256 {hashlib.sha256(plain.read_bytes()).hexdigest()[:16]}"
    table = tmp_path / "b.csv"
    table.write_text("id,text\n1,one\n2,\n3,three\n")
    assert read_texts(str(table), "file", "text").texts == ("one", "three")
    lines = tmp_path / "c.jsonl"
    lines.write_text('{"text": "one"}\n{"text": "two"}\n')
    assert read_texts(str(lines), "file").texts == ("one", "two")
    lines.write_text('{"id": 1, "text": "one"}\n')
    assert read_texts(str(lines), "file").texts == ("one",)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file of canaries|There is no"):
        read_texts(str(tmp_path / "absent.txt"), "file of canaries")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"is not UTF-8: the byte 0xE9 .* convert it with iconv"):
        read_texts(str(tmp_path / "latin.txt"), "file")
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(DataError, match="holds no text"):
        read_texts(str(tmp_path / "blank.txt"), "file")
    (tmp_path / "two.csv").write_text("id,body\n1,one\n")
    with pytest.raises(UsageError, match="2 columns: name the one"):
        read_texts(str(tmp_path / "two.csv"), "file")
    with pytest.raises(UsageError, match="no column 'txt'"):
        read_texts(str(tmp_path / "two.csv"), "file", "txt")


def test_what_stands_in_both_files_is_left_out_of_both() -> None:
    assert unrepeated(["a", "b", "b"], ["b", "c"]) == (["a"], ["c"], 1)


@pytest.mark.parametrize(
    ("probe", "options"),
    [
        ("extraction", {"p": 1.0}),
        ("extraction", {"temperature": 0}),
        ("extraction", {"texts": 3}),
        ("lm_membership", {"k": 0}),
        ("canary_exposure", {"n_candidates": 1}),
        ("pii_leakage", {"n_prompts": 0}),
        ("contamination", {"n_shards": 2}),
        ("attribute_inference", {"attribute": 3}),
        ("model_inversion", {"smoothness": -1.0}),
    ],
)
def test_options_that_make_no_sense_are_refused(probe: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        PROBES[probe](**options)


def test_every_copy_of_a_repeated_text_is_left_out() -> None:
    assert once_only(["a", "b", "b", "c"], ["c", "d", "e", "e"]) == (["a"], ["d"], 6)
