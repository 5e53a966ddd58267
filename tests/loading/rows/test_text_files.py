"""Texts as a file of lines or of JSON: what is a text, what is a label, and what is refused at which line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from auditor.core.errors import AuditorError, DataError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.load_rows import load_data
from auditor.loading.rows.table_files import BLOCK_BYTES, open_table
from auditor.models.audited_model import AuditedModel
from tests.probes.privacy.memorization.toys import parrot
from tests.quantifiers import all_of
from tests.toys.models import model as table_model
from tests.toys.models import text_model

TEXTS = ["the first text", "a second, with a comma", 'and "quotes" and é']


def write(path: Path, texts: list[str], **more: list[str]) -> str:
    if path.suffix == ".txt":
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    else:
        columns = {"text": texts, **more}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: str, model: AuditedModel | None = None, **more: object) -> AuditData:
    return load_data(DataSpec(path=path, copies_are_real=True, **more), model or parrot([]))  # type: ignore[arg-type]


# ---- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_texts_are_read_without_a_flag(tmp_path: Path, ending: str) -> None:
    data = read(write(tmp_path / f"a{ending}", TEXTS))
    assert data.modality == "text"
    assert data.X.tolist() == TEXTS  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfone\r\n\r\n  two \r\n \t\r\nthree",
        b"one\ntwo\nthree\n\n\n",
        b"\n\none\ntwo\nthree",
    ],
)
def test_blank_lines_and_what_surrounds_a_line_are_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(content))
    for name in ("a.txt", "b.txt.gz"):
        assert read(str(tmp_path / name)).X.tolist() == ["one", "two", "three"]  # type: ignore[union-attr]


def test_a_line_ends_where_every_other_tool_ends_it(tmp_path: Path) -> None:
    """Characters that Python's own splitting takes for ends of lines stand inside of texts."""
    texts = ["one\u2028still one", "two\x0bstill\x0ctwo", "three\x85still"]
    assert read(write(tmp_path / "a.txt", texts)).X.tolist() == texts  # type: ignore[union-attr]


def test_texts_that_begin_like_other_files_are_texts(tmp_path: Path) -> None:
    for first in ("cats\nare\nnice", "<p>one</p>\ntwo", "(dp0\n", "PARIS\nis", "{not json", "a,b,c\nd"):
        path = tmp_path / "a.txt"
        path.write_text(first)
        assert read(str(path)).X.tolist() == first.split("\n")[: first.count("\n") + bool(first.split("\n")[-1])]  # type: ignore[union-attr]


def test_batches_hold_what_the_whole_holds(tmp_path: Path) -> None:
    file = open_table(write(tmp_path / "a.txt", [f"text {i}" for i in range(70_000)]))
    assert file.columns == ("text",)
    parts = [batch.column("text").to_pylist() for batch in file.batches(["text"], {})]
    assert len(parts) > 1
    assert [text for part in parts for text in part] == file.read(["text"], {}).column("text").to_pylist()


def test_the_same_texts_have_the_same_keys_in_every_file(tmp_path: Path) -> None:
    found = [read(write(tmp_path / f"a{ending}", TEXTS)).digest for ending in (".txt", ".jsonl")]
    (tmp_path / "a.csv").write_text("text\n" + "".join(f'"{t.replace(chr(34), chr(34) * 2)}"\n' for t in TEXTS))
    found.append(read(str(tmp_path / "a.csv"), text="text").digest)
    assert len(set(found)) == 1


def test_training_texts_may_lie_in_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("body\n" + "".join(f"other {i}\n" for i in range(5)))
    data = read(str(tmp_path / "b.csv"), text="body", train=write(tmp_path / "a.txt", TEXTS))
    assert data.members is not None
    assert data.members.X.tolist() == TEXTS  # type: ignore[union-attr]


def test_labels_of_a_text_classifier_stand_beside_the_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXTS * 4, label=["0", "1", "0"] * 4, group=["a", "b", "a"] * 4)
    data = read(path, text_model(lambda text: 0.5), target="label", sensitive=("group",), text="text")
    assert data.y_true is not None
    assert np.bincount(data.y_true).tolist() == [8, 4]
    assert data.sensitive_features is not None


def test_a_classifier_that_reads_texts_alone_takes_the_column_called_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXTS, label=["0", "1", "0"])
    model = text_model(lambda text: 0.5)
    assert read(path, model, target="label").modality == "tabular", "any function may take a table"
    model.token_name = str  # type: ignore[attr-defined]
    assert read(path, model, target="label").X.tolist() == TEXTS  # type: ignore[union-attr]


def test_numbers_that_stand_as_texts_stay_as_they_are_written(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", ["007", "1.0"])).X.tolist() == ["007", "1.0"]  # type: ignore[union-attr]
    (tmp_path / "a.csv").write_text("text\n007\n1.0\n")
    assert read(str(tmp_path / "a.csv"), text="text").X.tolist() == ["007", "1.0"]  # type: ignore[union-attr]


def test_rows_without_a_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"other": 3}\n{"text": null}\n{"text": "two"}\n')
    data = read(str(tmp_path / "a.jsonl"))
    assert any("2 of 4 rows of a.jsonl have no text" in note for note in data.notes)


def test_wrapped_prose_is_remarked_on(tmp_path: Path) -> None:
    lines = ["this line of a book is as long as a line of a book is, which is to say not very long,"] * 40
    wrapped = "\n\n".join("\n".join(f"{line} {i} {j}" for j, line in enumerate(lines[:8])) for i in range(5))
    (tmp_path / "book.txt").write_text(wrapped)
    assert any("every line is a text" in note for note in read(str(tmp_path / "book.txt")).notes)
    (tmp_path / "lines.txt").write_text("\n".join(f"{line} {i}" for i, line in enumerate(lines)))
    assert "every line is a text" not in str(read(str(tmp_path / "lines.txt")).notes)


# ---- what is refused -----------------------------------------------------------------------------------------------

REFUSED = {
    "latin": ("a.txt", "one\ncafé\n".encode("latin-1"), "ENCODING", r"0xE9 at offset 7 (line 2)"),
    "utf-16": ("a.txt", "one\ntwo\n".encode("utf-16"), "ENCODING", "is UTF-16 text"),
    "nul": ("a.txt", b"one\ntw\0o\n", "MALFORMED", "NUL byte at offset 6 (line 2)"),
    "pdf": ("a.txt", b"%PDF-1.7\n", "FORMAT", "is a PDF"),
    "workbook": ("a.txt", b"PK\x03\x04" + bytes(40), "FORMAT", "is a zip archive"),
    "gzip": ("a.txt", gzip.compress(b"one\n"), "FORMAT", "must end in .gz"),
    "json": ("a.txt", b'{"text": "one"}\n{"text": "two"}\n', "FORMAT", "name end in .jsonl"),
    "empty": ("a.txt", b"", "EMPTY", "is empty"),
    "blank": ("a.txt", b" \n\n\t\n", "EMPTY", "holds no text"),
    "huge": ("a.txt", b"one\n" + b"x, " * (BLOCK_BYTES // 3 + 1) + b"\n", "LIMIT", "line 2 is longer than"),
    "packed": ("a.txt.gz", gzip.compress(b"one\ntw\xe9\n"), "ENCODING", "(line 2)"),
    "broken": ("a.jsonl", b'{"text": "one"}\n\n{"text": \n', "MALFORMED", "line 3 is no JSON object"),
    "number": (
        "a.jsonl",
        b'{"text": "one"}\n\n{"text": 2}\n',
        "MALFORMED",
        "line 3 has a number as 'text', and line 1",
    ),
    "list": ("a.jsonl", b'{"text": ["one"]}\n', "VALUES", "one value a row"),
    "huge json": ("a.jsonl", b'{"text": "' + b"x" * BLOCK_BYTES + b'"}\n', "LIMIT", "line 1 is longer than"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_file_of_texts_is_refused_at_its_line(tmp_path: Path, what: str) -> None:
    name, content, code, words = REFUSED[what]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(str(tmp_path / name))
    assert words in str(caught.value)
    assert caught.value.code == f"AUD-DATA-{code}"
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"target": "label"}, "a.txt holds texts alone, one a line"),
        ({"sensitive": ("sex",)}, "no column 'sex'"),
        ({"cluster": "writer"}, "as .jsonl or .csv"),
    ],
)
def test_a_file_of_lines_has_no_columns(tmp_path: Path, more: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(write(tmp_path / "a.txt", TEXTS), text_model(lambda text: 0.5), **more)


def test_a_model_of_tables_takes_no_lines(tmp_path: Path) -> None:
    with pytest.raises(
        AuditorError, match="a.txt holds texts, one a line, and this model takes the columns of a table"
    ):
        read(write(tmp_path / "a.txt", TEXTS), table_model(lambda skill, group, seen: skill))


def test_where_no_column_is_called_text_none_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one", "title": "x"}\n')
    assert read(str(tmp_path / "a.jsonl")).modality == "tabular"
    (tmp_path / "b.jsonl").write_text('{"body": "one"}\n')
    assert read(str(tmp_path / "b.jsonl")).X.tolist() == ["one"]  # type: ignore[union-attr]


def test_every_ending_that_is_read_is_named_where_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(UsageError) as caught:
        open_table(tmp_path / "a.docx")
    assert all_of(ending in str(caught.value) for ending in (".csv", ".jsonl", ".txt", ".parquet"))
