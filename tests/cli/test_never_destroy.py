"""A command that writes: its own earlier output goes, whatever else lies there stays."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from auditor.core.errors import UsageError
from auditor.core.files import write_beside
from auditor.core.writable_paths import WRITTEN, check, claim, is_ours, of_a_command, place_file, reads, remove
from auditor.models.saved_models import save
from cli.commands import app
from tests.mitigations.planted_rows import biased_rows, trained

RUNNER = CliRunner()
SCAN = ("scan", "model.pt", "--data", "d.csv", "--target", "y", "--positive", "1", "--sensitive", "group")
FEW = ("--probes", "group_fairness")
TRAIN = ("--target", "y", "--epochs", "1", "--hidden", "2")


def run(*words: object) -> Result:
    return RUNNER.invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    rows = biased_rows(80, 0)
    assert rows.y_true is not None
    rows.X.assign(y=rows.y_true).to_csv(folder / "d.csv", index=False)
    save(trained(rows, epochs=1), folder / "model.pt")
    return folder


@pytest.fixture
def here(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(result: Result, *said: str) -> None:
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    for words in said:
        assert words in result.output


def test_train_does_not_write_its_split_over_the_rows_it_reads(here: Path) -> None:
    """The default name of the training split is that of the input: half of the rows went, and exit code 70 came."""
    shutil.copy("d.csv", "adult.train.csv")
    before = (here / "adult.train.csv").read_bytes()
    for force in ((), ("--force",)):
        result = run("train", "adult.train.csv", *TRAIN, "--out", "adult.pt", *force)
        assert (here / "adult.train.csv").read_bytes() == before
        refused(result, "--train-out would write over 'adult.train.csv', which this command reads")
    assert not (here / "adult.pt").exists()


def _link(target: Path, place: Path) -> None:
    place.symlink_to(target)


def _indirect(target: Path, place: Path) -> None:
    (place.parent / "elsewhere").symlink_to(target.parent, target_is_directory=True)
    place.symlink_to(place.parent / "elsewhere" / target.name)


@pytest.mark.parametrize("alias", [_link, os.link, _indirect])
def test_an_input_by_another_name_is_the_input(here: Path, alias: Callable[[Path, Path], None]) -> None:
    alias(here / "d.csv", here / "same.csv")
    before = (here / "d.csv").read_bytes()
    for out in ("same.csv", "./same.csv", here / ".." / here.name / "same.csv"):
        refused(run("train", "d.csv", *TRAIN, "--train-out", out, "--force"), "'d.csv' under another name")
    assert (here / "d.csv").read_bytes() == before and (here / "same.csv").samefile("d.csv")


@pytest.mark.parametrize("spelled", ["d.csv", "./d.csv", "../{here}/d.csv", "sub/../d.csv"])
def test_an_input_in_another_spelling_is_the_input(here: Path, spelled: str) -> None:
    (here / "sub").mkdir()
    out = spelled.format(here=here.name)
    refused(run("train", "d.csv", *TRAIN, "--test-out", out, "--force"), "--test-out would write over 'd.csv'")


def test_two_outputs_are_never_one_file(here: Path) -> None:
    for train_out, test_out in (("a.csv", "./a.csv"), ("a.csv", "A.csv"), ("cafe\u0301.csv", "caf\u00e9.csv")):
        result = run("train", "d.csv", *TRAIN, "--out", "m.pt", "--train-out", train_out, "--test-out", test_out)
        refused(result, "--train-out and --test-out are the same file")
    refused(run(*SCAN, "--out", "o", "--bundle", "o/report.json"), "--bundle and --out/report.json are the same file")
    (here / "one.csv").write_text("")
    os.link(here / "one.csv", here / "two.csv")
    result = run(
        "train", "d.csv", *TRAIN, "--out", "m.pt", "--train-out", "one.csv", "--test-out", "two.csv", "--force"
    )
    refused(result, "are the same file")


def test_a_second_run_replaces_the_first_and_an_edited_file_stays(here: Path) -> None:
    assert run("train", "d.csv", *TRAIN, "--out", "m.pt").exit_code == 0
    assert is_ours(here / "m.pt") and is_ours(here / "m.train.csv") and is_ours(here / "m.test.csv")
    assert run("train", "d.csv", *TRAIN, "--out", "m.pt", "--seed", "1").exit_code == 0
    edited = (here / "m.test.csv").read_text() + "\n"
    (here / "m.test.csv").write_text(edited)
    model = (here / "m.pt").read_bytes()
    refused(run("train", "d.csv", *TRAIN, "--out", "m.pt"), "'m.test.csv' is there already", "--force")
    assert (here / "m.test.csv").read_text() == edited and (here / "m.pt").read_bytes() == model
    assert run("train", "d.csv", *TRAIN, "--out", "m.pt", "--force").exit_code == 0
    assert (here / "m.test.csv").read_text() != edited and is_ours(here / "m.test.csv")


def test_a_scan_over_its_own_report_goes_on_and_takes_away_no_file_of_anybody_else(here: Path) -> None:
    for _ in range(2):
        assert run(*SCAN, *FEW, "--format", "html,csv", "--bundle", "audit.zip").exit_code in (0, 1, 3)
    own = here / "audit-report" / "report.csv"
    assert is_ours(own)
    assert run(*SCAN, *FEW).exit_code in (0, 1, 3) and not own.exists()
    own.write_text("my own figures\n")
    refused(run(*SCAN, *FEW), "report.csv' is there already", "--force")
    assert own.read_text() == "my own figures\n"
    assert run(*SCAN, *FEW, "--force").exit_code in (0, 1, 3) and not own.exists()


def test_what_audit_toml_names_is_read_too(here: Path) -> None:
    (here / "audit.toml").write_text("[audit]\ndata = 'd.csv'\ntarget = 'y'\n")
    for place, also in (("d.csv", ()), ("audit.toml", ()), ("h.db", ("--history", "--db", "h.db"))):
        refused(run("scan", "model.pt", "--bundle", place, "--force", *also), f"'{place}', which this command reads")


def test_a_folder_that_is_read_keeps_its_files_and_takes_new_ones(here: Path) -> None:
    (here / "folder").mkdir()
    (here / "folder" / "weights.bin").write_bytes(b"1")
    with of_a_command(force=True):
        reads("folder")
        with pytest.raises(UsageError, match=r"--out would write over 'folder/weights.bin' in 'folder', which this"):
            claim("folder/weights.bin", "--out")
        write_beside("folder/new.json", b"{}")
        write_beside("folder/new.json", b"{ }")
    assert (here / "folder" / "weights.bin").read_bytes() == b"1" and is_ours(here / "folder" / "new.json")


def test_report_writes_beside_the_record_and_never_over_it(here: Path) -> None:
    run(*SCAN, *FEW)
    record = here / "audit-report" / "report.json"
    before, inode = record.read_bytes(), record.stat().st_ino
    assert run("report", "audit-report", "--format", "json,html").exit_code == 0
    assert record.read_bytes() == before and record.stat().st_ino == inode
    shutil.copy(record, here / "other.json")
    (here / "report.json").write_text("mine")
    refused(run("report", "other.json", "--format", "json"), "'report.json' is there already")


def test_a_new_model_that_is_a_folder_may_go_where_an_empty_one_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: object, **__: object) -> None:
        raise UsageError("as far as the making of the model")

    monkeypatch.setattr("cli.mitigate.make_model", reached)
    monkeypatch.setattr("cli.mitigate._writes_folder", lambda kind, model: True)
    shutil.copy(here / "d.csv", here / "train.csv")
    words = ("mitigate", "reweighing", "model.pt", "--train", "train.csv", *SCAN[2:], "--out", "new")
    (here / "new").mkdir()
    refused(run(*words), "as far as the making of the model")
    (here / "new" / "mine.txt").write_text("mine")
    refused(run(*words, "--force"), "is there and not an empty folder")
    assert (here / "new" / "mine.txt").read_text() == "mine"


# ---- the writing module ----------------------------------------------------------------------------------------------


def test_a_file_that_appeared_after_the_check_is_not_written_over(tmp_path: Path) -> None:
    place, made = tmp_path / "x", tmp_path / "made"
    made.write_text("ours")
    real = os.link

    def late(source: str | Path, target: str | Path) -> None:
        place.write_text("somebody else's")
        real(source, target)

    with of_a_command(force=False), pytest.MonkeyPatch.context() as patch:
        claim(place, "--out")
        patch.setattr(os, "link", late)
        with pytest.raises(UsageError, match="is there already and is not what auditor wrote there"):
            place_file(made, place)
    assert place.read_text() == "somebody else's" and not (tmp_path / WRITTEN).exists()


def test_a_file_system_without_links_is_written_to_and_guarded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with of_a_command(force=False):
        write_beside(tmp_path / "x", b"1")
        write_beside(tmp_path / "x", b"2")
        (tmp_path / "x").write_bytes(b"mine")
        with pytest.raises(UsageError, match="--force"):
            write_beside(tmp_path / "x", b"3")
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == [WRITTEN, "x"]


def test_links_that_lead_nowhere_and_folders_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    with of_a_command(force=False):
        with pytest.raises(UsageError, match="dangling' is there already"):
            write_beside(tmp_path / "dangling", b"1")
        with pytest.raises(UsageError, match="is a folder: name a file"):
            claim(tmp_path / "folder", "--out")
        with pytest.raises(UsageError, match="is there already"):
            remove(tmp_path / "dangling")
        with pytest.raises(UsageError, match="is there already"):
            check(tmp_path / "dangling")
        check(tmp_path / "free")
    assert (tmp_path / "dangling").is_symlink()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": "auditor-written/1", "files": 3}', '{"files": {"x": 1}}', "[" * 100_000]
)
def test_a_note_that_is_none_says_of_nothing_that_it_is_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text("1")
    (tmp_path / WRITTEN).write_text(content)
    assert not is_ours(tmp_path / "x")
    with of_a_command(force=False):
        with pytest.raises(UsageError):
            write_beside(tmp_path / "x", b"2")
        write_beside(tmp_path / "y", b"2")
    assert (tmp_path / "x").read_text() == "1"
    if "auditor-written/1" not in content:
        assert (tmp_path / WRITTEN).read_text() == content


def test_a_note_that_is_a_fifo_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / WRITTEN)
    with of_a_command(force=False):
        write_beside(tmp_path / "x", b"1")
        assert not is_ours(tmp_path / "x")


def test_the_note_is_of_what_is_there_under_its_name(tmp_path: Path) -> None:
    with of_a_command(force=False):
        for name in ("a", "b\n", "\udcff"):
            write_beside(tmp_path / name, name.encode("utf-8", "surrogateescape"))
        shutil.copy(tmp_path / "a", tmp_path / "copy")
        assert is_ours(tmp_path / "b\n") and is_ours(tmp_path / "\udcff") and not is_ours(tmp_path / "copy")
        (tmp_path / "a").unlink()
        write_beside(tmp_path / "c", b"")
    assert set(json.loads((tmp_path / WRITTEN).read_text())["files"]) == {"b\n", "\udcff", "c"}


def test_outside_of_a_command_a_file_is_written_and_nothing_noted(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    reads(tmp_path / "x")
    claim(tmp_path / "x", "--out")
    write_beside(tmp_path / "x", b"2")
    assert (tmp_path / "x").read_text() == "2" and not (tmp_path / WRITTEN).exists()
