"""Rows without labels, of the kind that other rows are, from tables and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import DataError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.rows.unlabelled_rows import read_unlabelled
from auditor.models.audited_model import AuditedModel
from tests.loading.rows.test_folders import Image, model, put


def callable_model() -> AuditedModel:
    return AuditedModel.from_callable(lambda X: np.zeros(len(X)), classes=["0", "1"])


def test_a_table_is_read_by_the_columns_of_the_rows(tmp_path: Path) -> None:
    like = AuditData(X=pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}))
    pd.DataFrame({"label": [0], "b": ["z"], "a": [7.0]}).to_csv(tmp_path / "t.csv", index=False)
    read = read_unlabelled(str(tmp_path / "t.csv"), callable_model(), like)
    assert isinstance(read, pd.DataFrame) and read.to_dict("list") == {"a": [7.0], "b": ["z"]}


def test_numbers_without_names_are_read_in_their_order(tmp_path: Path) -> None:
    like = AuditData(X=np.zeros((3, 2)))
    pd.DataFrame({"q": [1.0, 4.0], "p": [2.0, 5.0]}).to_csv(tmp_path / "t.csv", index=False)
    read = read_unlabelled(str(tmp_path / "t.csv"), callable_model(), like)
    assert isinstance(read, np.ndarray) and read.tolist() == [[1.0, 2.0], [4.0, 5.0]]


def test_texts_stand_in_a_column(tmp_path: Path) -> None:
    like = AuditData(X=np.asarray(["one", "two"], object))
    pd.DataFrame({"said": ["three", "four"]}).to_csv(tmp_path / "one.csv", index=False)
    pd.DataFrame({"said": ["three"], "who": ["me"]}).to_csv(tmp_path / "two.csv", index=False)
    own = callable_model()
    assert list(read_unlabelled(str(tmp_path / "one.csv"), own, like)) == ["three", "four"]
    assert list(read_unlabelled(str(tmp_path / "two.csv"), own, like, "said")) == ["three"]
    with pytest.raises(UsageError, match="said, who: say which of them holds the texts"):
        read_unlabelled(str(tmp_path / "two.csv"), own, like)
    with pytest.raises(UsageError, match="no column 'sayd'"):
        read_unlabelled(str(tmp_path / "two.csv"), own, like, "sayd")


def test_pictures_lie_in_a_folder_whatever_its_folders_are_called(tmp_path: Path) -> None:
    like = AuditData(X=np.zeros((2, 4, 4, 3), np.uint8))
    put(tmp_path / "far" / "a.png", 10)
    put(tmp_path / "far" / "deep" / "er" / "b.png", 200)
    (tmp_path / "far" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "far" / "broken.png").write_bytes(b"no picture")
    read = read_unlabelled(str(tmp_path / "far"), model(), like)
    assert read.shape == (2, 4, 4, 3) and sorted(int(p.max()) for p in np.asarray(read)) == [10, 200]


def test_an_empty_folder_a_link_out_of_it_and_the_wrong_kind(tmp_path: Path) -> None:
    like = AuditData(X=np.zeros((2, 4, 4, 3), np.uint8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="'empty' has no files"):
        read_unlabelled(str(tmp_path / "empty"), model(), like)
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="None of the 1 files"):
        read_unlabelled(str(tmp_path / "empty"), model(), like)
    (tmp_path / "linked").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "out.png")
    (tmp_path / "linked" / "in.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(DataError, match="leads out of the folder"):
        read_unlabelled(str(tmp_path / "linked"), model(), like)
    with pytest.raises(DataError, match="must be a folder of files"):
        read_unlabelled(str(tmp_path / "out.png"), model(), like)
