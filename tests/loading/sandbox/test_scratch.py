"""Scratch folders: removed with their process however it ends, and never somebody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from auditor.loading.sandbox.measuring_process import scratch_folder, sweep
from cli.safeguards import temporary_output


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_is_empty_and_gone_afterwards(place: Path) -> None:
    with scratch_folder() as folder:
        assert Path(folder).parent == place and not os.listdir(folder)
        (Path(folder) / "rows").write_text("x")
    assert not os.listdir(place)


def test_what_a_killed_process_left_is_swept_by_the_next_and_what_is_used_is_not(place: Path) -> None:
    code = """if True:
        import os, sys, time
        from auditor.loading.sandbox.measuring_process import scratch_folder
        with scratch_folder() as folder:
            open(os.path.join(folder, "rows"), "w").write("x")
            print(folder, flush=True)
            time.sleep(600)
        """
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = [Path(child.stdout.readline().strip()) for child in children if child.stdout is not None]
    try:
        children[0].send_signal(signal.SIGKILL)
        children[0].wait()
        assert (folders[0] / "rows").exists() and (folders[1] / "rows").exists()
        sweep()
        assert not folders[0].exists() and (folders[1] / "rows").exists()
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_links_files_and_folders_of_others_stay(place: Path) -> None:
    (place / "kept").mkdir()
    (place / "auditor-scratch-link").symlink_to(place / "kept")
    (place / "auditor-scratch-file").write_text("x")
    (place / "auditor-report").mkdir()
    (place / "auditor-new-young").mkdir()
    sweep()
    assert sorted(os.listdir(place)) == [
        "auditor-new-young", "auditor-report", "auditor-scratch-file", "auditor-scratch-link", "kept",
    ]  # fmt: skip


def test_an_output_folder_of_a_killed_training_is_swept_by_the_next(tmp_path: Path) -> None:
    """A model is made in a folder beside its place, since it is moved there at the end."""
    code = """if True:
        import sys, time
        from pathlib import Path
        from cli.safeguards import temporary_output
        with temporary_output(Path(sys.argv[1])) as made:
            made.write_text("half a model")
            print(made, flush=True)
            time.sleep(600)
        """
    words = [sys.executable, "-c", code, str(tmp_path / "m.pt")]
    children = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [Path(child.stdout.readline().strip()) for child in children if child.stdout is not None]
    try:
        children[0].send_signal(signal.SIGKILL)
        children[0].wait()
        (tmp_path / ".m.pt.mine").mkdir()
        assert made[0].exists() and made[0].parent.parent == tmp_path
        with temporary_output(tmp_path / "m.pt") as own:
            assert not made[0].parent.exists() and made[1].exists() and own.name == "m.pt"
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert (tmp_path / ".m.pt.mine").exists()
