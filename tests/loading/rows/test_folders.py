"""A folder of images with one sub-folder per class, from the files to a report."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import AuditorError, DataError, ModelError, UsageError
from auditor.data.preprocessing import ImagePreprocessing
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.folders import list_folder, sha256_of_folder
from auditor.loading.rows.load_rows import load_data
from auditor.loading.rows.media_files import load_images, read_files
from auditor.models.audited_model import AuditedModel
from auditor.run.run_audit import run_audit
from tests.quantifiers import none_of

Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")


def model() -> AuditedModel:
    preprocessing = ImagePreprocessing(size=(4, 4), mean=(0.0,) * 3, std=(1.0,) * 3)
    return AuditedModel(
        lambda X: np.asarray(X, np.float64).mean(axis=(1, 2, 3)) / 255.0,
        classes=["cat", "dog"],
        preprocessing=preprocessing,
    )


def put(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((9, 7, 3), shade, np.uint8)
    pixels[0, 0] = shade // 2
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four cats, three dogs, one of them deeper; hidden files and a loose one."""
    where = tmp_path / "pets"
    for i in range(4):
        put(where / "cat" / f"{i}.png", 20 * i)
    for i in range(2):
        put(where / "dog" / f"{i}.jpg", 200 + 20 * i)
    put(where / "dog" / "more" / "9.png", 250)
    (where / ".DS_Store").write_bytes(b"x")
    (where / "cat" / ".hidden.png").write_bytes(b"x")
    (where / ".cache" / "cat").mkdir(parents=True)
    (where / "readme.txt").write_text("about")
    return where


def test_sub_folders_of_media_are_of_the_class_that_means_the_same(tmp_path: Path) -> None:
    """A detector with the classes ai and real, and the folders that every data set has."""
    for name in ("fake/a.png", "real/b.png", "real/c.png"):
        put(tmp_path / name, 9)
    listing = list_folder(tmp_path, ("ai", "real"))
    assert listing.names == ("fake/a.png", "real/b.png", "real/c.png") and listing.codes.tolist() == [0, 1, 1]
    assert listing.notes == ("The sub-folder fake was read as ai, which it means.",)
    for classes in (("ai", "real", "deepfake"), ("cat", "dog")):
        with pytest.raises(DataError, match="none of the model's classes"):
            list_folder(tmp_path, classes)


def spec(folder: Path, **more: object) -> DataSpec:
    return DataSpec(path=str(folder), positive="dog", **more)  # type: ignore[arg-type]


def refused(folder: Path, kind: type[AuditorError] = DataError, **more: object) -> str:
    with pytest.raises(kind) as caught:
        load_data(spec(folder, **more), model())
    assert str(caught.value).isprintable() and "object at" not in str(caught.value)
    return str(caught.value)


def test_rows_are_the_files_in_order_with_the_pixels_of_a_table_of_the_same(folder: Path) -> None:
    data = load_data(spec(folder), model())
    names = [f"cat/{i}.png" for i in range(4)] + ["dog/0.jpg", "dog/1.jpg", "dog/more/9.png"]
    assert list_folder(folder, ["cat", "dog"]).names == tuple(names)
    assert data.modality == "image" and data.classes == ("cat", "dog") and data.positive == 1
    assert data.y_true is not None and data.y_true.tolist() == [0, 0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(data.X, load_images(folder, names, model()))
    assert data.notes == ("1 file beside the sub-folders of pets belongs to no class and was left out.",)
    # the order of the classes is the model's, whatever the folders are called
    assert list_folder(folder, ["dog", "cat"]).codes.tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_groups_are_joined_on_the_path_below_the_folder(folder: Path, tmp_path: Path) -> None:
    side = tmp_path / "groups.csv"
    pd.DataFrame({"file": ["dog/more/9.png", "cat/0.png", "cat/1.png"], "coat": ["long", "short", "long"]}).to_csv(
        side, index=False
    )
    options = {"sensitive": ("coat",), "sensitive_file": str(side), "join_on": "file"}
    data = load_data(spec(folder, **options), model())
    assert data.sensitive_features is not None
    assert data.sensitive_features["coat"].tolist() == ["short", "long", *["(missing)"] * 4, "long"]
    assert any("4 of 7 rows have no entry in groups.csv" in note for note in data.notes)
    assert "--join-on COLUMN" in refused(folder, UsageError, sensitive=("coat",))
    assert "no column 'coat_'" in refused(folder, UsageError, **options | {"sensitive": ("coat_",)})
    side.write_text("file,coat\n/elsewhere/1.png,long\n")
    assert "No row of the data has a file" in refused(folder, **options)


def test_training_rows_may_be_a_folder_too(folder: Path, tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / "train" / "cat" / f"{i}.png", 100 + i)
        put(tmp_path / "train" / "dog" / f"{i}.png", 150 + i)
    data = load_data(spec(folder, train=str(tmp_path / "train")), model())
    assert data.is_member is not None and data.is_member.tolist() == [False] * 7 + [True] * 6


@pytest.mark.parametrize("flag", ["target", "text", "image"])
def test_flags_that_name_columns_are_refused(folder: Path, flag: str) -> None:
    assert f"leave --{flag} out" in refused(folder, UsageError, **{flag: "y"})


def empty(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def test_files_that_are_no_images_are_named_and_counted(folder: Path) -> None:
    (folder / "cat" / "empty.png").write_bytes(b"")
    (folder / "cat" / "notes.txt").write_text("hello")
    whole = (folder / "dog" / "0.jpg").read_bytes()
    (folder / "dog" / "torn.jpg").write_bytes(whole[: len(whole) // 3])
    data = load_data(spec(folder), model())
    assert len(data) == 7 and data.y_true is not None and data.y_true.tolist() == [0] * 4 + [1] * 3
    assert data.files is not None and none_of("torn" in name or "empty" in name for name in data.files)
    assert any(note.startswith("3 of 10 files of pets could not be read") for note in data.notes)
    said = " ".join(data.unreadable)
    assert "'cat/empty.png' cannot be decoded: it is an empty file" in said
    assert "'cat/notes.txt' cannot be decoded: it is none of JPEG" in said
    assert "'dog/torn.jpg' cannot be decoded" in said
    for i in range(9):
        (folder / "cat" / f"x{i}.png").write_bytes(b"")
    report = run_audit(model(), load_data(spec(folder), model()), [])
    (finding,) = report.findings
    assert finding.outcome == "NOT_RUN" and report.exit_code == 3
    assert finding.reason.startswith("12 files or rows could not be read") and "And 7 more." in finding.reason
    empty(folder)
    assert refused(folder).startswith("None of the 19 files in 'pets' can be audited")


def test_one_class_that_can_be_read_is_not_enough(folder: Path) -> None:
    empty(folder / "dog")
    assert "of one class only: mend the others" in refused(folder)


def test_links_may_not_lead_out_and_folders_linked_within_are_not_counted_twice(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "again").symlink_to(folder / "dog")
    (folder / "cat" / "loop").symlink_to(folder)
    assert len(load_data(spec(folder), model())) == 7
    put(tmp_path / "secret.png", 9)
    (folder / "cat" / "z.png").symlink_to(tmp_path / "secret.png")
    assert "'cat/z.png' is a link that leads out of the folder 'pets'" in refused(folder)
    (folder / "cat" / "z.png").unlink()
    (folder / "dogs").symlink_to(tmp_path)
    assert "'dogs' is a link that leads out" in refused(folder)


def test_a_name_that_is_not_utf_8_is_refused_in_a_sentence(folder: Path) -> None:
    with open(os.fsencode(folder / "cat") + b"/a\xff.png", "wb"):
        pass
    assert "'cat/a?.png' has a name that is not in UTF-8: rename it." in refused(folder)


def test_folders_of_another_shape(tmp_path: Path) -> None:
    where = tmp_path / "pets"
    where.mkdir()
    assert "one sub-folder for each class" in refused(where)
    put(where / "cat" / "1.png", 3)
    assert "holds one class only (cat)" in refused(where) and "folder above" in refused(where)
    put(where / "dgo" / "1.png", 3)
    assert "'dgo'" in refused(where) and "did you mean 'dog'" in refused(where).lower()
    os.rename(where / "dgo", where / "dog")
    assert len(load_data(spec(where), model())) == 2
    three = AuditedModel(
        lambda X: np.full((len(X), 3), 1 / 3), classes=["ant", "cat", "dog"], preprocessing=model().preprocessing
    )
    assert load_data(DataSpec(path=str(where)), three).notes == (
        "pets has no file of ant: rates over those classes are undefined.",
    )
    with pytest.raises(ModelError, match="takes neither images nor sound"):
        read_files(where, ["cat/1.png"], AuditedModel(lambda X: np.zeros(len(X)), classes=["cat", "dog"]))


def test_the_digest_is_that_of_paths_and_contents_and_of_nothing_hidden(folder: Path) -> None:
    files = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )
    lines = "".join(f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in files)
    before = sha256_of_folder(folder)
    assert before == hashlib.sha256(lines.encode()).hexdigest()
    (folder / ".DS_Store").write_bytes(b"other")
    assert sha256_of_folder(folder) == before
    os.rename(folder / "cat" / "0.png", folder / "cat" / "00.png")
    assert sha256_of_folder(folder) != before


@pytest.mark.slow
def test_a_scan_from_the_command_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from typer.testing import CliRunner

    from auditor.models.networks.architectures import ARCHITECTURES
    from auditor.models.saved_models import save
    from auditor.models.torch_model import TorchModel
    from cli.commands import app

    torch.manual_seed(0)
    args = {"channels": 3, "n_outputs": 2}
    save(
        TorchModel(
            ARCHITECTURES["small_cnn"](**args),
            classes=["cat", "dog"],
            preprocessing=ImagePreprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3),
            architecture={"name": "small_cnn", "args": args},
        ),
        tmp_path / "m.pt",
    )
    side = tmp_path / "g.csv"
    names = list_folder(folder, ["cat", "dog"]).names
    pd.DataFrame({"file": names, "coat": ["long", "short"] * 3 + ["long"]}).to_csv(side, index=False)
    monkeypatch.chdir(tmp_path)
    flags = [
        "--data",
        "pets",
        "--positive",
        "dog",
        "--sensitive",
        "coat",
        "--sensitive-file",
        "g.csv",
        "--join-on",
        "file",
    ]
    result = CliRunner().invoke(app, ["scan", "m.pt", *flags, "--probes", "group_fairness"])
    assert result.exit_code in (0, 1, 3), result.output
    report = json.loads((tmp_path / "audit-report" / "report.json").read_text())
    assert report["data"]["n_rows"] == 7 and report["data"]["sha256"] == sha256_of_folder(folder)
    assert {f["metric"] for f in report["findings"]} >= {"equalized_odds_difference", "demographic_parity_difference"}
    (folder / "cat" / "bad.png").write_bytes(b"")
    result = CliRunner().invoke(app, ["scan", "m.pt", *flags, "--probes", "group_fairness", "--verbose"])
    assert result.exit_code in (1, 3) and "'cat/bad.png' cannot be decoded: it is an empty file" in result.output
    report = json.loads((tmp_path / "audit-report" / "report.json").read_text())
    assert report["data"]["n_rows"] == 7 and report["data"]["n_unreadable"] == 1
    assert [f["outcome"] for f in report["findings"] if f["probe"] == "files"] == ["NOT_RUN"]
