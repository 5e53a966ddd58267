"""What is refused by its bytes alone: without heavy imports, in the words of the loader, and nothing by chance."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import joblib
import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import TypeAdapter
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from auditor.core.errors import AuditorError, Code, ModelError
from auditor.loading import pickled_parts, pickled_types
from auditor.loading.formats import load_model, refuse_early
from auditor.loading.job_specs import DetectionSpec, Job, Limits, ModelSpec
from auditor.loading.refused_formats import surely_foreign
from auditor.models.format_names import RULES_FILE
from auditor.run.job_channel import HEADER
from cli.commands import app
from tests.quantifiers import all_of, none_of

HEAVY = ("torch", "sklearn", "pandas", "scipy", "transformers", "pyarrow", "numpy", "skops", "matplotlib")


class Calls:
    """Calls a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


class Whole(torch.nn.Linear):
    """A network that is pickled with its class."""


def torch_file(value: Any, *, zipped: bool = True) -> bytes:
    file = BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def archive(name: str) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        new.writestr(name, b"1")
    return file.getvalue()


def packed(value: Any) -> bytes:
    file = BytesIO()
    joblib.dump(value, file, compress=3)
    return file.getvalue()


def gguf(*, tensors: int, keys: int, rest: int, order: Literal["little", "big"] = "little") -> bytes:
    return b"GGUF" + b"".join(n.to_bytes(size, order) for n, size in ((3, 4), (tensors, 8), (keys, 8))) + bytes(rest)


AT_SIGHT: dict[str, tuple[Callable[[], bytes], str]] = {
    "pickle": (lambda: pickle.dumps(Calls()), "AUD-LOAD-CODE"),
    "old pickle": (lambda: pickle.dumps(Calls(), protocol=0), "AUD-LOAD-CODE"),
    "packed pickle": (lambda: packed(Calls()), "AUD-LOAD-CODE"),
    "network": (lambda: torch_file(Whole(2, 2)), "AUD-LOAD-CODE"),
    "script": (lambda: archive("m/constants.pkl"), "AUD-LOAD-CODE"),
    "archive cut short": (lambda: torch_file({"w": torch.zeros(9)})[:200], "AUD-LOAD-DAMAGED"),
    "safetensors cut short": (lambda: safetensors.torch.save({"w": torch.zeros(9)})[:-4], "AUD-LOAD-DAMAGED"),
    "archive": (lambda: archive("note.txt"), "AUD-LOAD-UNKNOWN"),
    "text": (lambda: b"hello\n", "AUD-LOAD-UNKNOWN"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "AUD-LOAD-UNSUPPORTED"),
    "TFLite": (lambda: bytes(4) + b"TFL3" + bytes(90), "AUD-LOAD-UNSUPPORTED"),
    "GGUF cut short": (lambda: b"GGUF\3\0\0\0" + bytes(8), "AUD-LOAD-DAMAGED"),
    "GGUF of an old version": (lambda: b"GGUF\1\0\0\0" + bytes(16), "AUD-LOAD-DAMAGED"),
    "GGUF that claims too much": (lambda: gguf(tensors=2, keys=0, rest=47), "AUD-LOAD-DAMAGED"),
    "GGUF that does, in big endian": (
        lambda: gguf(tensors=0, keys=4, rest=47, order="big"),
        "AUD-LOAD-DAMAGED",
    ),
    "nothing": (lambda: b"", "AUD-LOAD-DAMAGED"),
}


@pytest.mark.parametrize("what", AT_SIGHT)
def test_it_is_refused_as_the_loader_would_refuse_it(what: str, tmp_path: Path) -> None:
    content, code = AT_SIGHT[what]
    path = tmp_path / "model.pt"
    path.write_bytes(content())
    said = []
    for refuse in (refuse_early, load_model):
        with pytest.raises(ModelError) as caught:
            refuse(ModelSpec(path=str(path)))
        said.append((str(caught.value), caught.value.code))
    assert said[0] == said[1] and said[0][1] == code
    assert said[0][0].isprintable() and len(said[0][0]) < 800


def test_what_a_header_of_gguf_may_claim_is_not_refused_at_sight(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf(tensors=2, keys=4, rest=96))
    opened = refuse_early(ModelSpec(path=str(tmp_path / "model.gguf")))
    assert opened is not None and opened.format == "GGUF"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ('{"model_type": "bert", "auto_map": {"AutoModel": "own.Net"}}', "AUD-LOAD-CODE"),
        ("[1]", "AUD-LOAD-DAMAGED"),
        ("{", "AUD-LOAD-DAMAGED"),
    ],
)
def test_a_folder_is_refused_by_its_settings_alone(config: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    said = []
    for refuse in (refuse_early, load_model):
        with pytest.raises(ModelError) as caught:
            refuse(ModelSpec(path=str(tmp_path)))
        said.append((str(caught.value), caught.value.code))
    assert said[0] == said[1] and said[0][1] == code


@pytest.mark.parametrize("holds", ["adapter_config.json", RULES_FILE, "note.txt"])
def test_a_folder_without_settings_is_left_to_its_loader(holds: str, tmp_path: Path) -> None:
    (tmp_path / holds).write_text("{}")
    assert refuse_early(ModelSpec(path=str(tmp_path))) is None


@pytest.mark.parametrize("detection", [None, DetectionSpec(files=())], ids=["a scan", "detect"])
def test_the_measuring_process_refuses_it_before_anything_heavy_is_imported(
    detection: DetectionSpec | None, tmp_path: Path
) -> None:
    for i, (content, code) in enumerate(AT_SIGHT[what] for what in ("pickle", "network", "archive cut short", "HDF5")):
        path = tmp_path / f"model{i}.pt"
        path.write_bytes(content())
        job = Job(
            model=ModelSpec(path=str(path)),
            data=None,
            probes=(),
            seed=0,
            limits=Limits(memory_bytes=1 << 30, seconds=60),
            detection=detection,
        )
        reader, writer = os.pipe()
        child = subprocess.run(
            [sys.executable, "-I", "-X", "importtime", "-m", "auditor.run.child_start", str(writer)],
            input=TypeAdapter(Job).dump_json(job), cwd=tmp_path, pass_fds=(writer,), capture_output=True, timeout=60,
        )  # fmt: skip
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            messages = pipe.read()
        assert child.returncode == 0, child.stderr.decode()[-500:]
        told = []
        while messages:
            size = int.from_bytes(messages[:HEADER], "big")
            told.append(json.loads(messages[HEADER : HEADER + size]))
            messages = messages[HEADER + size :]
        assert [message["kind"] for message in told] == ["confined", "refused"]
        assert told[1]["reason_code"] == code
        imported = {
            line.split("|")[2].strip().split(".")[0] for line in child.stderr.decode().splitlines() if "|" in line
        }
        assert "pydantic" in imported and not imported & {*HEAVY}


def test_a_refusing_scan_draws_nothing_and_imports_neither_torch_nor_pandas(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello\n")
    (tmp_path / "d.csv").write_text("a,y\n1,0\n2,1\n")
    command = "scan note.txt --data d.csv --target y --out out".split()
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "auditor", *command], cwd=tmp_path, capture_output=True, timeout=120
    )
    assert ran.returncode == 4, ran.stdout.decode()
    lines = ran.stderr.decode().splitlines()
    imported = {line.split("|")[2].strip() for line in lines if line.count("|") == 2}
    assert "auditor.report.html" in imported
    assert not imported & {"torch", "sklearn", "pandas", "matplotlib", "scipy.stats", "scipy.optimize", "pyarrow"}


def test_no_name_that_a_list_holds_is_surely_foreign() -> None:
    names = {
        *pickled_types.classes(), *pickled_types._values(), *pickled_types._CALLS, *pickled_types._BUILTIN_TYPES,
        *pickled_types._REBUILT, *pickled_parts.COMPILED_LOSSES, "copyreg._reconstructor", "copy_reg._reconstructor",
        "__builtin__.object", "numpy.core.multiarray._reconstruct", "joblib.numpy_pickle.NumpyArrayWrapper",
    }  # fmt: skip
    assert len(names) > 300
    assert [name for name in names if surely_foreign(name)] == []
    assert all_of(
        surely_foreign(name) for name in ("posix.system", "builtins.eval", "__main__.Model", "torch.nn.Linear")
    )
    assert none_of(pickled_types.is_allowed(name) for name in ("posix.system", "builtins.eval", "torch.load"))


def estimator() -> Any:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3))
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, (rows[:, 0] > 0).astype(int))


@pytest.mark.parametrize("write", [joblib.dump, lambda model, path: path.write_bytes(pickle.dumps(model))])
def test_a_model_of_scikit_learn_passes(write: Callable[[Any, Path], object], tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    write(estimator(), path)
    opened = refuse_early(ModelSpec(path=str(path)))
    assert opened is not None and opened.format == "pickle"
    rows = np.zeros((2, 3), np.float32)
    again = load_model(ModelSpec(path=str(path)), model_file=opened)
    np.testing.assert_array_equal(again.predict_proba(rows), load_model(ModelSpec(path=str(path))).predict_proba(rows))


# ---- damaged by chance -----------------------------------------------------------------------------------------------


def skops() -> bytes:
    import skops.io

    return bytes(skops.io.dumps(estimator()))


WHOLE: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: safetensors.torch.save({"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}),
    "torch weights": lambda: torch_file({"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}),
    "legacy torch file": lambda: torch_file({"0.weight": torch.ones(2, 3)}, zipped=False),
    "pickled network": lambda: torch_file(Whole(2, 2)),
    "pickle": lambda: pickle.dumps(estimator()),
    "joblib": lambda: packed(estimator()),
    "skops": skops,
    "hostile pickle": lambda: pickle.dumps(Calls()),
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The file cut short, with some bytes changed, taken out or put in twice."""
    changed = bytearray(data)
    at, n = rng.randrange(len(data)), rng.randint(1, 8)
    kind = rng.randrange(4)
    if kind == 0:
        del changed[at:]
    elif kind == 1:
        del changed[at : at + n]
    elif kind == 2:
        changed[at:at] = changed[at : at + n]
    else:
        for _ in range(n):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


@pytest.mark.grid
@pytest.mark.parametrize("many", [25, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_damaged_file_ends_in_one_code(kind: str, many: int, tmp_path: Path) -> None:
    """Or it loads, where what was changed is one of its numbers."""
    whole, rng, path = WHOLE[kind](), random.Random(f"{kind}{many}"), tmp_path / "model"
    refused = 0
    for i in range(many):
        path.write_bytes(damaged(whole, rng))
        spec = ModelSpec(path=str(path), classes=("a", "b"), architecture="mlp" if i % 2 else None)
        try:
            load_model(spec, model_file=refuse_early(spec))
        except AuditorError as error:
            said = str(error)
            assert error.exit_code in (2, 4), said
            if error.exit_code == 4:
                assert error.code in get_args(Code), said
            assert said.isprintable() and len(said) < 2_000, said
            refused += 1
    assert refused > many // 2


def boosted(library: str, folder: Path) -> bytes:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(80, 3))
    labels = (rows[:, 0] > 0).astype(int)
    path = folder / "whole"
    if library == "xgboost":
        xgboost = pytest.importorskip("xgboost")
        path = path.with_suffix(".ubj")
        xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(rows, labels).save_model(path)
    elif library == "lightgbm":
        lightgbm = pytest.importorskip("lightgbm")
        lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(rows, labels).booster_.save_model(path)
    else:
        catboost = pytest.importorskip("catboost")
        catboost.CatBoostClassifier(iterations=3, verbose=False, allow_writing_files=False, train_dir=str(folder)).fit(
            rows, labels
        ).save_model(str(path))
    return path.read_bytes()


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_a_library_that_ends_its_process_ends_in_a_code(library: str, tmp_path: Path) -> None:
    whole, rng = boosted(library, tmp_path), random.Random(library)
    (tmp_path / "d.csv").write_text("f0,f1,f2,y\n" + "".join(f"{i},{i % 3},1,{i % 2}\n" for i in range(20)))
    for i in range(4):
        path, out = tmp_path / f"model{i}", tmp_path / f"out{i}"
        path.write_bytes(damaged(whole, rng))
        arguments = f"scan {path} --data {tmp_path / 'd.csv'} --target y --features f0,f1,f2 --classes 0,1 --out {out}"
        waived = ("--probes", "performance", "--allow-inconclusive", "performance")
        ran = CliRunner().invoke(app, [*arguments.split(), *waived])
        assert ran.exit_code in range(5) and "Traceback" not in ran.output, ran.output
        if ran.exit_code == 4:
            assert json.loads((out / "report.json").read_text())["refusal"]["reason_code"] in get_args(Code)
