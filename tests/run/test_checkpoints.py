"""A checkpoint of a training in the sandbox: in its place before and after, in no folder of the user's between."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from auditor.core.errors import UsageError
from auditor.loading.job_specs import DataSpec, Job, Limits, MitigationSpec, ModelSpec
from auditor.models.saved_models import save
from auditor.run.parent_process import lent_checkpoint, mitigate
from tests.mitigations.planted_rows import biased_rows, trained


def test_it_is_lent_with_its_parts_and_comes_back(tmp_path: Path) -> None:
    place = tmp_path / "run.ckpt"
    for name in ("run.ckpt", "run.ckpt.2", "run.ckpt.control", "run.ckpt.pt", "run.ckpt2"):
        (tmp_path / name).write_text(f"old {name}")
    with lent_checkpoint(str(place)) as lent:
        folder = Path(str(lent)).parent
        assert folder.parent == tmp_path
        assert {file.name for file in folder.iterdir()} == {"run.ckpt", "run.ckpt.2", "run.ckpt.control"}
        (folder / "run.ckpt").write_text("new")
        (folder / "run.ckpt.generator").write_text("new")
        (folder / "run.ckpt.pt").write_text("another's")
    assert place.read_text() == "new" and (tmp_path / "run.ckpt.generator").read_text() == "new"
    assert (tmp_path / "run.ckpt.control").read_text() == "old run.ckpt.control"
    # What is no part of a checkpoint is not overwritten, whatever the process called it.
    assert (tmp_path / "run.ckpt.pt").read_text() == "old run.ckpt.pt"


def test_what_an_interrupted_run_left_is_what_the_next_one_goes_on_from(tmp_path: Path) -> None:
    place = tmp_path / "run.ckpt"
    place.write_text("old")
    with lent_checkpoint(str(place)) as lent:
        folder = Path(str(lent)).parent
    folder.mkdir()
    (folder / "run.ckpt").write_text("newer")
    with lent_checkpoint(str(place)) as lent:
        assert Path(str(lent)).read_text() == "newer"
    assert place.read_text() == "newer" and not folder.exists()


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder and no checkpoint"), lent_checkpoint(str(tmp_path)):
        pass


def test_there_may_be_none() -> None:
    with lent_checkpoint(None) as lent:
        assert lent is None


@pytest.mark.slow
def test_a_mitigation_keeps_its_training_and_goes_on_from_it(tmp_path: Path) -> None:
    rows = biased_rows(600, 1)
    assert isinstance(rows.X, pd.DataFrame)
    rows.X.assign(y=rows.y_true).to_csv(tmp_path / "train.csv", index=False)
    save(trained(rows, epochs=3), tmp_path / "old.pt")
    (tmp_path / "out").mkdir()
    place = tmp_path / "kept" / "run.ckpt"

    def made() -> list[str]:
        said: list[str] = []
        mitigate(
            Job(
                model=ModelSpec(path=str(tmp_path / "old.pt"), device="cpu"),
                data=DataSpec(path=str(tmp_path / "train.csv"), target="y", positive="1", sensitive=("group",)),
                probes=(),
                seed=0,
                with_intake=False,
                limits=Limits(memory_bytes=4 << 30, seconds=120.0),
                mitigation=MitigationSpec(
                    name="reweighing",
                    target="mitigations.rows.reweighing_and_resampling:Reweighing",
                    out=str(tmp_path / "out" / "model.pt"),
                    checkpoint=str(place),
                ),
            ),
            on_stage=said.append,
        )
        return [stage for stage in said if stage.startswith("epoch")]

    first = made()
    assert len(first) > 1 and place.is_file()
    assert [file.name for file in place.parent.iterdir()] == ["run.ckpt"]
    assert len(made()) < len(first)
    place.write_text("no checkpoint")
    with pytest.raises(UsageError) as refused:
        made()
    assert str(place) in str(refused.value) and ".writing" not in str(refused.value)
