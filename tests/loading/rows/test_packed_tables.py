"""Tables in gzip, in Arrow's own file and in numpy's archive say what the CSV says, and none unpacks without end."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest

from auditor.core.errors import AuditorError, DataError, UsageError
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows import compressed_tables
from auditor.loading.rows.load_rows import load_data
from auditor.loading.rows.streamed_rows import Stream
from auditor.loading.rows.table_files import open_table
from tests.loading.rows.test_rows import model
from tests.loading.test_intake_hostile import Touch, bounded

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "a": RNG.normal(size=200).round(3),
        "b": RNG.choice(["u", "v"], 200),
        "y": RNG.choice(["yes", "no"], 200),
        "sex": RNG.choice(["f", "m"], 200),
    }
)


def write(folder: Path, ending: str) -> str:
    path = folder / f"rows{ending}"
    text = io.BytesIO()
    if "csv" in ending or "tsv" in ending:
        FRAME.to_csv(text, index=False, sep="\t" if "tsv" in ending else ",")
    else:
        FRAME.to_json(text, orient="records", lines=True)
    if ending.endswith(".gz"):
        path.write_bytes(gzip.compress(text.getvalue()))
    elif ending == ".feather":
        pyarrow.feather.write_feather(pa.Table.from_pandas(FRAME.astype({"sex": "category"})), path, compression="zstd")
    elif ending == ".arrow":
        table = pa.Table.from_pandas(FRAME)
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=64)
    elif ending == ".npz":
        np.savez_compressed(path, **{name: np.asarray(FRAME[name].tolist()) for name in FRAME})
    else:
        path.write_bytes(text.getvalue())
    return str(path)


def spec(path: str) -> DataSpec:
    return DataSpec(path=path, target="y", positive="yes", sensitive=("sex",), features=("a", "b"))


@pytest.mark.parametrize("ending", [".csv.gz", ".tsv.gz", ".jsonl.gz", ".feather", ".arrow", ".npz"])
def test_every_packing_says_what_the_csv_says(ending: str, tmp_path: Path) -> None:
    audited = model(FRAME[["a", "b"]])
    plain, other = (load_data(spec(write(tmp_path, e)), audited) for e in (".csv", ending))
    pd.testing.assert_frame_equal(pd.DataFrame(other.X), pd.DataFrame(plain.X), check_dtype=False)
    np.testing.assert_array_equal(other.y_true, plain.y_true)  # type: ignore[arg-type]
    assert other.sensitive_features is not None and plain.sensitive_features is not None
    assert other.sensitive_features["sex"].tolist() == plain.sensitive_features["sex"].tolist()
    counts = [Stream(spec(write(tmp_path, e)), audited).count_by_group()[0] for e in (".csv", ending)]
    np.testing.assert_array_equal(counts[0].table, counts[1].table)


def test_the_columns_of_an_x(tmp_path: Path) -> None:
    X, y = RNG.normal(size=(30, 3)), np.arange(30) % 2
    np.savez(tmp_path / "rows.npz", X=X, y=y, sex=np.array(list("fm") * 15))
    assert open_table(tmp_path / "rows.npz").columns == ("x0", "x1", "x2", "y", "sex")
    np.savez(tmp_path / "named.npz", X=X, y=y.reshape(-1, 1), feature_names=np.array(["p", "q", "r"]))
    file = open_table(tmp_path / "named.npz")
    assert file.columns == ("p", "q", "r", "y")
    np.testing.assert_array_equal(file.read(["p", "r"], {}).to_pandas().to_numpy(), X[:, [0, 2]])


def test_arrays_that_are_no_table_say_what_to_save(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X_train=np.zeros((4, 2)), X_test=np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"X_train \(4, 2\), X_test \(3, 2\).*numpy.savez\(path, X=X, y=y\)"):
        open_table(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", X=np.zeros((4, 2, 2)), y=np.zeros(4))
    with pytest.raises(DataError, match=r"shape \(4, 2, 2\)"):
        open_table(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", X=np.zeros((4, 2)), y=np.zeros(3))
    with pytest.raises(DataError, match="are no table"):
        open_table(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", X=np.zeros((4, 2)), feature_names=np.array(["a"]))
    with pytest.raises(DataError, match="names 1 columns, and its X has 2"):
        open_table(tmp_path / "d.npz")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    np.savez(tmp_path / "rows.npz", a=np.array([Touch(str(marker))], object))
    with pytest.raises(DataError, match="pickled objects.*dtype=str"):
        open_table(tmp_path / "rows.npz")
    assert not marker.exists()
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("a.npy", pickle.dumps(Touch(str(marker))))
    with pytest.raises(DataError, match="no array"):
        open_table(tmp_path / "other.npz")
    assert not marker.exists()


def test_arrays_that_claim_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(4))
    for content in (file.getvalue().replace(b"(4,)", b"(9,)"), file.getvalue().replace(b"(4,)", b"-4  "), b"\x93NUMPY"):
        with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
            archive.writestr("a.npy", content)
        with pytest.raises(DataError, match="damaged"):
            open_table(tmp_path / "rows.npz")


def test_bombs_end_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed_tables, "_FREE_BYTES", 1 << 20)
    row = b"0,u,yes,f\n"
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"a,b,y,sex\n" + row * (3 << 20)))
    with bounded(), pytest.raises(DataError, match="decompression bomb"):
        load_data(spec(str(tmp_path / "rows.csv.gz")), model(FRAME[["a", "b"]]))
    with bounded(), pytest.raises(DataError, match="decompression bomb"):
        Stream(spec(str(tmp_path / "rows.csv.gz")), model(FRAME[["a", "b"]])).count_by_group()
    table = pa.table({"a": np.zeros(8 << 20)})
    pyarrow.feather.write_feather(table, tmp_path / "rows.feather", compression="zstd")
    with bounded(), pytest.raises(DataError, match="decompression bomb"):
        open_table(tmp_path / "rows.feather").read(["a"], {})
    np.savez_compressed(tmp_path / "rows.npz", a=np.zeros(20 << 20))
    with bounded(), pytest.raises(DataError, match="decompression bomb"):
        open_table(tmp_path / "rows.npz")


def test_damaged_files_end_in_one_sentence(tmp_path: Path) -> None:
    for ending in (".csv.gz", ".jsonl.gz", ".feather", ".arrow", ".npz"):
        whole = Path(write(tmp_path, ending)).read_bytes()
        path = tmp_path / f"cut{ending}"
        for data in (whole[: len(whole) // 2], b"a,b\n1,2\n", os.urandom(64)):
            path.write_bytes(data)
            with bounded(), pytest.raises(DataError):
                open_table(path).read(["a"], {})


def test_offsets_outside_of_an_arrow_file_are_refused(tmp_path: Path) -> None:
    table = pa.table({"a": ["one", "two", "three"]})
    with pa.ipc.new_file(tmp_path / "rows.arrow", table.schema) as file:
        file.write_table(table)
    data = (tmp_path / "rows.arrow").read_bytes()
    offsets = struct.pack("<4i", 0, 3, 6, 11)
    assert data.count(offsets) == 1
    (tmp_path / "rows.arrow").write_bytes(data.replace(offsets, struct.pack("<4i", 0, 3, 6, 1 << 30)))
    with bounded(), pytest.raises(DataError, match="is a damaged ARROW file"):
        open_table(tmp_path / "rows.arrow").read(["a"], {})


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("ending", [".feather", ".arrow", ".npz", ".csv.gz"])
def test_mutated_files_crash_nothing(ending: str, tmp_path: Path) -> None:
    whole, rng, refused = Path(write(tmp_path, ending)).read_bytes(), np.random.default_rng(0), 0
    path = tmp_path / f"mutated{ending}"
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 5))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            with bounded():
                table: Any = open_table(path)
                table.read(list(table.columns), {}).to_pandas()
        except AuditorError:
            refused += 1
    assert 100 < refused


def test_other_compressions_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet.gz").write_bytes(b"a")
    with pytest.raises(UsageError, match=r"\.gz after \.csv"):
        open_table(tmp_path / "rows.parquet.gz")
