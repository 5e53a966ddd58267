"""20,000 damaged files of every format: none crashes, hangs or runs, and each ends as a model, rows or one sentence.

The bytes are flipped, cut, copied over one another, and made lengths of; and the records of archives and what is within
compression are damaged the same way and packed anew, with checksums that are right, since no other way leads past them.
Payloads that would run are damaged too. scikit-learn's pickles alone have 5,120 more in ``test_pickled_estimators.py``,
whose models are asked.

Of the 20,000 some 16,150 go through our own parsers and the loaders of torch, safetensors, skops, scikit-learn, numpy
and Arrow, and 3,876 are identified only: the libraries of boosted trees, onnxruntime and TorchScript may end a process
by themselves, which is why the measuring process is one. Of each of those formats 60 more go through their loaders; an
end of the process counts as a refusal there, as it does in a scan; what runs and what hangs does not.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auditor.core.errors import AuditorError
from auditor.loading.formats import FORMATS, open_file
from auditor.loading.job_specs import ModelSpec
from auditor.loading.rows.table_files import open_table
from auditor.models.files.model_bytes import Source
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from tests.loading.test_intake_hostile import Touch, torch_zip
from tests.processor_time import slowness
from tests.toys.ordinary import ORDINARY, people
from tests.watched import outlive, outlive_each

SPEC = ModelSpec(path="model.any", classes=("0", "1"), architecture="mlp", architecture_args={"activation": "relu"})
BARE = ModelSpec(path="model.any")
TABLES = (".csv", ".csv.gz", ".tsv", ".jsonl", ".jsonl.gz", ".parquet", ".feather", ".arrow", ".npz")
OF_OURS = (
    "scikit-learn logistic, pickle", "scikit-learn logistic, skops", "scikit-learn histogram boosting, pickle",
    "scikit-learn pipeline of columns, joblib", "scikit-learn pipeline, compressed joblib", "torch state_dict, .pt",
    "torch state_dict, legacy .pth", "torch checkpoint with an optimiser", "torch module, pickled whole",
    "safetensors of a network",
)  # fmt: skip
# What the library of a format may do to its process is no matter of ours; how such bytes are recognised is.
OF_LIBRARIES = (
    "XGBoost, .json", "XGBoost, .ubj", "LightGBM, .txt", "CatBoost, .cbm", "ONNX of scikit-learn, ZipMap",
    "TorchScript",
)  # fmt: skip
N_FILES = 20_000
N_OF_LIBRARIES = 60
MOST_SECONDS = 60.0


# ---- damage ----------------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one to four changes."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            break
        place, kind = int(rng.integers(len(changed))), int(rng.integers(7))
        if kind == 0:
            changed[place] = int(rng.integers(256))
        elif kind == 1:
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del changed[place : place + int(rng.integers(1, 20))]
        elif kind == 3:
            other, length = int(rng.integers(len(changed))), int(rng.integers(1, 64))
            changed[place:place] = changed[other : other + length]
        elif kind == 4:
            other, length = int(rng.integers(len(changed))), int(rng.integers(1, 64))
            changed[place : place + length] = changed[other : other + length]
        elif kind == 5 and rng.random() < 0.3:
            del changed[place:]
        else:
            changed[place : place + 8] = _length(rng) + changed[place + 8 : place + 8]
    return bytes(changed)


def _length(rng: np.random.Generator) -> bytes:
    """A number such as lengths and offsets are, of a size that somebody may not have thought of."""
    form = ("<H", "<I", "<Q", ">I", ">Q")[int(rng.integers(5))]
    bits = 8 * struct.calcsize(form)
    value = (1 << int(rng.integers(bits))) - int(rng.integers(2)) if rng.random() < 0.7 else (1 << bits) - 1
    return struct.pack(form, value)


def repacked(data: bytes, rng: np.random.Generator) -> bytes:
    """A zip archive with a record damaged, renamed, left out or doubled, and checksums that are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    chosen, kind = int(rng.integers(len(records))), int(rng.integers(10))
    name, content = records[chosen]
    if kind < 7:
        records[chosen] = name, damaged(content, rng)
    elif kind == 7:
        records[chosen] = damaged(name.encode(), rng).decode("latin-1").replace("\0", "0") or "0", content
    elif kind == 8:
        del records[chosen]
    else:
        records.append((records[int(rng.integers(len(records)))][0] + "x", content))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of a name that is there twice
        for one, content in records:
            archive.writestr(zipfile.ZipInfo(one), content)
    return buffer.getvalue()


def damaged_anywhere(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage from outside, or within what is packed."""
    if rng.random() < 0.6:
        if data[:2] == b"PK":
            return repacked(data, rng)
        if data[:2] == b"\x1f\x8b":
            return gzip.compress(damaged(gzip.decompress(data), rng), 1)
        if data[:1] == b"x" and (data[0] * 256 + data[1]) % 31 == 0:
            return zlib.compress(damaged(zlib.decompress(data), rng), 1)
    return damaged(data, rng)


# ---- samples ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A sound file, or a payload, and what is done with its damaged bytes; ``load`` returns how it ended."""

    data: bytes
    load: Callable[[bytes], str]


def sentence(error: AuditorError) -> str:
    """How a refusal ended: as words for people, or not."""
    words = str(error)
    good = words.isprintable() and 15 < len(words) < 1500
    return "refused" if good else f"crash: no sentence: {words[:200]!r}"


def load_model_of(spec: ModelSpec, data: bytes) -> str:
    try:
        opened = open_file(Source("model.any", data, ""))
        FORMATS[opened.format].load(opened, spec)
    except AuditorError as error:
        return sentence(error)
    return "loaded"


def identify_only(data: bytes) -> str:
    """What no format knows is identified too, as unknown."""
    try:
        return "loaded" if open_file(Source("model.any", data, "")).format in FORMATS else "crash: no format"
    except AuditorError as error:
        return sentence(error)


def load_table(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        table: Any = open_table(path)
        table.read(list(table.columns), {}).to_pandas()
    except AuditorError as error:
        return sentence(error)
    return "loaded"


def _bundle(folder: Path) -> bytes:
    torch.manual_seed(0)
    architecture = {"name": "mlp", "args": {"n_features": 3, "hidden": [4], "n_outputs": 2}}
    save(TorchModel(MLP(3, [4], 2), classes=["no", "yes"], architecture=architecture), folder / "bundle.pt")
    return (folder / "bundle.pt").read_bytes()


def _oldest_torch(payload: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in (("sys_info", pickle.dumps({}, 2)), ("pickle", payload), ("storages", bytes(64))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _table(ending: str, path: Path) -> bytes:
    rows = people()[["a", "b", "g", "y", "colour"]].head(40)
    if ending.startswith((".csv", ".tsv")):
        rows.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    elif ending.startswith(".jsonl"):
        rows.to_json(path, orient="records", lines=True)
    elif ending == ".parquet":
        rows.to_parquet(path)
    elif ending == ".npz":
        np.savez(path, **{name: np.asarray(rows[name].tolist()) for name in rows.columns})
    else:
        rows.to_feather(path, compression="zstd" if ending == ".feather" else "uncompressed")
    return path.read_bytes()


def samples(folder: Path) -> dict[str, Sample]:
    """One small file of each format, and payloads in the wrappings in which they come."""
    payload = pickle.dumps(Touch(str(folder / "marker")), 2)
    objects = io.BytesIO()
    np.savez(objects, a=np.zeros(3), b=np.asarray([Touch(str(folder / "marker"))], object))
    made = {
        "pickle of a payload": payload,
        "torch archive of a payload": torch_zip(payload),
        "numpy archive of a payload": objects.getvalue(),
        "compressed payload": zlib.compress(payload),
        "tar archive of a payload": _oldest_torch(payload),
        "bundle": _bundle(folder),
    }
    found = {name: Sample(data, partial(load_model_of, BARE)) for name, data in made.items()}
    for name in OF_OURS:
        (folder / name).mkdir()
        spec = BARE if name.startswith("scikit-learn") else SPEC
        found[name] = Sample(ORDINARY[name](folder / name).path.read_bytes(), partial(load_model_of, spec))
    for ending in TABLES:
        path = folder / f"rows{ending}"
        found[f"rows, {ending}"] = Sample(_table(ending, path), partial(load_table, path))
    return found


def of_libraries(folder: Path) -> dict[str, Sample]:
    """One small file of each format that is its library's alone to read."""
    spec = ModelSpec(path="model.any", features=("a", "b", "c"), classes=("0", "1"), allow_code=True)
    found = {}
    for name in OF_LIBRARIES:
        (folder / name).mkdir()
        data = ORDINARY[name](folder / name).path.read_bytes()
        whole = spec if name.startswith(("ONNX", "Torch")) else BARE
        found[name] = Sample(data, partial(load_model_of, whole))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@pytest.fixture(scope="module")
def read_by_us(folder: Path) -> dict[str, Sample]:
    return samples(folder)


@pytest.fixture(scope="module")
def read_by_libraries(folder: Path) -> dict[str, Sample]:
    return of_libraries(folder)


def tries(sample: Sample, n: int, seed: int) -> Iterator[Callable[[], str]]:
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield partial(sample.load, damaged_anywhere(sample.data, rng))


# ---- tests -----------------------------------------------------------------------------------------------------------


def test_the_watch_fires_at_what_a_careless_loader_does(tmp_path: Path) -> None:
    """Under a loader that trusts it, each payload is seen and stopped: the corpus below is not of blanks."""

    def careless(data: bytes) -> str:
        pickle.loads(data)
        return "loaded"

    class Called:
        def __init__(self, *call: Any) -> None:
            self.call = call

        def __reduce__(self) -> Any:
            return self.call[0], self.call[1:]

    marker = tmp_path / "marker"
    payloads = [
        Touch(str(marker)),
        Called(exec, f"open({str(marker)!r}, 'w')"),
        Called(eval, "1 + 1"),
        Called(open, str(marker), "w"),
        Called(Path(marker).mkdir),
    ]
    counts, died = outlive([partial(careless, pickle.dumps(p, 2)) for p in payloads], tmp_path, tmp_path / "free")
    assert not died and not marker.exists()
    assert len(counts) == len(payloads) and sum(name.startswith("run in try") for name in counts) == len(payloads)


def test_every_format_that_is_read_is_damaged(
    read_by_us: dict[str, Sample], read_by_libraries: dict[str, Sample]
) -> None:
    """A sound file of each is read, by the same call."""
    found = {**read_by_us, **read_by_libraries}
    read = {name for name, sample in found.items() if sample.load(sample.data) == "loaded"}
    assert {name for name in found if "payload" not in name} - read == {"torch module, pickled whole"}
    formats = {open_file(Source("m", s.data, "")).format for name, s in found.items() if not name.startswith("rows")}
    # Folders are made of these; GGUF goes through transformers, and what is not supported is never parsed.
    assert set(FORMATS) - formats == {"GGUF", "HDF5", "Keras", "TFLite", "torch.export", "unknown", "unknown archive"}


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("n_files", [N_FILES // 5, N_FILES])
def test_twenty_thousand_damaged_files(
    n_files: int, folder: Path, read_by_us: dict[str, Sample], read_by_libraries: dict[str, Sample]
) -> None:
    begun = _processor_seconds()
    identified = {
        f"{name}, identified": Sample(sample.data, identify_only) for name, sample in read_by_libraries.items()
    }
    corpus = {**read_by_us, **identified}
    each = -(-n_files // len(corpus))
    ends: dict[str, Counter[str]] = {}
    for seed, (name, sample) in enumerate(sorted(corpus.items())):
        sample.load(sample.data)  # what is imported on the first use is imported here
        free = folder / name.replace(", .", ".").replace(" ", "") if name.startswith("rows") else folder / "free"
        ends[name], died = outlive(tries(sample, each, seed), folder, free)
        assert not died, f"{name}, {died}"
    wrong = {name: [end for end in counts if end not in ("loaded", "refused")] for name, counts in ends.items()}
    assert {name: said for name, said in wrong.items() if said} == {}
    assert sum(sum(counts.values()) for counts in ends.values()) >= n_files
    assert not (folder / "marker").exists()
    for name, counts in ends.items():
        print(f"{name:45} {counts['loaded']:5} loaded {counts['refused']:5} refused")
        if "payload" in name:
            assert counts["loaded"] == 0, name
        if not name.endswith("identified"):
            assert counts["refused"] > each / 20, (name, counts)
    seconds = _processor_seconds() - begun
    print(f"{seconds:.1f} s of processor time")
    assert seconds < MOST_SECONDS * max(1.0, slowness())


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("n_files", [N_OF_LIBRARIES // 4, N_OF_LIBRARIES])
def test_their_libraries_run_nothing_and_hang_on_nothing(
    n_files: int, folder: Path, read_by_libraries: dict[str, Sample]
) -> None:
    """The library may end the process, which another follows: that is a refusal of the measuring process."""
    for seed, (name, sample) in enumerate(sorted(read_by_libraries.items())):
        sample.load(sample.data)
        ended, deaths = outlive_each(list(tries(sample, n_files, seed)), folder, folder / "free")
        assert [died for died in deaths if "SIGPROF" in died or "SIGALRM" in died] == []
        ended["refused"] += len(deaths)
        assert {end for end in ended if end not in ("loaded", "refused")} == set(), name
        assert sum(ended.values()) == n_files and ended["refused"]
        print(f"{name:45} {dict(ended)}")


def _processor_seconds() -> float:
    import resource

    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
