"""The digest in a record is of the rows that were audited, or there is no record: files that change underneath."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditor.core.errors import DataError
from auditor.core.files import sha256_of, state_of
from auditor.loading.job_specs import DataSpec, Job, Limits, ModelSpec
from auditor.loading.rows.load_rows import load_data
from auditor.run import child_jobs
from auditor.run.job_messages import DataRead


class Heard:
    """A channel that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def send(self, message: Any) -> None:
        self.said.append(message)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    (tmp_path / "a").write_text("a,y\n" + "1,1\n2,0\n" * 30)
    (tmp_path / "b").write_text("a,y\n" + "1,1\n2,0\n" * 45)
    for folder, rows in (("first", "a"), ("second", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.csv").write_text((tmp_path / rows).read_text())
    return tmp_path


def by_names(path: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    os.rename(path.parent / "a", path)

    def there() -> None:
        os.rename(path, path.parent / "a")
        os.rename(path.parent / "b", path)

    def back() -> None:
        os.rename(path, path.parent / "b")
        os.rename(path.parent / "a", path)

    return there, back


def by_a_link(path: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    path.symlink_to("a")

    def point(to: str) -> None:
        (path.parent / "link").symlink_to(to)
        os.rename(path.parent / "link", path)

    return lambda: point("b"), lambda: point("a")


def by_writing(path: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    first, second = (path.parent / "a").read_text(), (path.parent / "b").read_text()
    path.write_text(first)
    return lambda: print(path.write_text(second)), lambda: print(path.write_text(first))


def run(path: Path) -> Heard:
    heard = Heard()
    job = Job(
        model=ModelSpec(predict="tests.run.test_changing_data:answers", classes=("0", "1"), outputs="probabilities"),
        data=DataSpec(path=str(path), target="y"),
        probes=(),
        seed=0,
        limits=Limits(memory_bytes=1 << 30, seconds=60.0),
    )
    child_jobs.run(job, heard)  # type: ignore[arg-type]
    return heard


def answers(rows: Any) -> Any:
    import numpy as np

    return np.tile([0.4, 0.6], (len(rows), 1))


@pytest.mark.parametrize("way", [by_names, by_a_link, by_writing])
def test_rows_that_were_exchanged_and_put_back_are_not_audited_under_the_digest_of_others(
    way: Callable[[Path], tuple[Callable[[], None], Callable[[], None]]], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scene / "d.csv"
    there, back = way(path)
    digest = sha256_of(path)

    def of_the_others(*what: Any) -> Any:
        there()
        found = load_data(*what)
        back()
        return found

    monkeypatch.setattr(child_jobs, "load_data", of_the_others)
    with pytest.raises(DataError, match="'d.csv' changed while it was read") as caught:
        run(path)
    assert caught.value.code == "AUD-DATA-CHANGED"
    # The digest alone sees nothing.
    assert sha256_of(path) == digest


def test_a_file_that_nobody_touches_is_audited(scene: Path) -> None:
    path = scene / "d.csv"
    os.rename(scene / "a", path)
    before = state_of(path)
    (read,) = [message for message in run(path).said if isinstance(message, DataRead)]
    assert read.data.sha256 == sha256_of(path) and read.data.n_rows == 60
    # What is written beside it is no change of it.
    (scene / "audit-report").mkdir()
    assert state_of(path) == before


def test_of_a_folder_every_file_is_watched(scene: Path) -> None:
    before = state_of(scene / "first")
    assert state_of(scene / "first") == before
    os.rename(scene / "second" / "t.csv", scene / "first" / "t.csv")
    assert state_of(scene / "first") != before
