"""Memory and processor time of a streamed audit over 1, 5 and 20 million rows.

``auditor scan --stream --bundle`` of a table of eight numbers, sex and nine groups of race, written to Parquet part by
part; performance, group fairness, adverse impact, score fairness and proxies; one thread, imports included. Ours is the
processor time of both processes at the most rows, the peer what the line through the smaller files says it should be:
a ratio of 1 is a cost that is linear in the rows. Memory is flat where the peak of either process grows by a tenth at
most from the fewest rows to the most.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from auditor.data.preprocessing import NumericColumn, TabularPreprocessing
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from benchmarks.common import emit
from benchmarks.default_scan import RACES

ROWS = tuple(int(n) for n in os.environ.get("ROWS", "1000000,5000000,20000000").split(","))
BAR, MOST_GROWTH = 0.9, 1.1
_PART, _FEATURES = 250_000, 8
_PROBES = "performance,group-fairness,adverse-impact,score-fairness,proxy-association"
_SCAN = """
import json, re, resource, runpy, sys
sys.argv = ["auditor", *sys.argv[1:]]
try:
    runpy.run_module("auditor", run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
own, child = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
# What the kernel says of the process itself counts whoever started it too.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
seconds = own.ru_utime + own.ru_stime + child.ru_utime + child.ru_stime
print(json.dumps([code, peak / 1024, child.ru_maxrss / 1024, seconds]))
"""


def write_rows(path: Path, rows: int, rng: np.random.Generator) -> None:
    """A table of so many rows, in groups of 250,000, of which no more than one is ever held."""
    writer: pa.parquet.ParquetWriter | None = None
    for start in range(0, rows, _PART):
        n = min(_PART, rows - start)
        X = rng.standard_normal((_FEATURES, n), np.float32)
        sex, race = rng.integers(1, 3, n), rng.choice(np.arange(1, 10), n, p=RACES)
        logit = X[:3].sum(axis=0) + 0.5 * (sex == 1) - 0.3 * (race == 2)
        own = {f"x{i}": column for i, column in enumerate(X)}
        own |= {"sex": sex.astype(np.int8), "race": race.astype(np.int8)}
        table = pa.table(own | {"y": (rng.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(np.int8)})
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="none", use_dictionary=False)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def write_model(path: Path) -> None:
    """A network that learned from some such rows."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    net = MLP(_FEATURES, [64, 32], 2)
    step = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(200):
        X = torch.from_numpy(rng.standard_normal((512, _FEATURES), np.float32))
        y = (torch.rand(512) < torch.sigmoid(X[:, :3].sum(dim=1))).long()
        step.zero_grad()
        torch.nn.functional.cross_entropy(net(X), y).backward()
        step.step()
    columns = tuple(NumericColumn(name=f"x{i}", mean=0.0, scale=1.0) for i in range(_FEATURES))
    architecture = {"name": "mlp", "args": {"n_features": _FEATURES, "hidden": [64, 32], "n_outputs": 2}}
    preprocessing = TabularPreprocessing(columns=columns)
    save(TorchModel(net, classes=[0, 1], preprocessing=preprocessing, architecture=architecture), path)


def scanned(folder: Path, data: Path) -> tuple[list[float], float]:
    """Peak MiB of the command and of the measuring process, and the processor seconds of both."""
    asked = [
        "scan", str(folder / "model.pt"), "--data", str(data), "--target", "y", "--positive", "1", "--sensitive", "sex",
        "--sensitive", "race", "--probes", _PROBES, "--device", "cpu", "--max-seconds", "7200", "--stream", "--quiet",
        "--out", str(folder / "report"), "--bundle", str(folder / "evidence.zip"),
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", _SCAN, *asked], stdout=subprocess.PIPE, check=True, cwd=folder)
    code, own, child, seconds = json.loads(done.stdout.splitlines()[-1])
    if code not in (0, 1, 3):
        raise SystemExit(f"the scan of {data.name} ended with {code}")
    return [own, child], seconds


def main() -> None:
    """Runs the scans and prints what they took."""
    os.environ["OMP_NUM_THREADS"] = "1"
    peaks, seconds = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model.pt")
        for rows in ROWS:
            data = folder / "rows.parquet"
            write_rows(data, rows, np.random.default_rng(rows))
            peaks[rows], seconds[rows] = scanned(folder, data)
            print(f"{rows:,} rows: {peaks[rows]} MiB, {seconds[rows]:.1f} s", file=sys.stderr, flush=True)
            data.unlink()
        evidence = (folder / "evidence.zip").stat().st_size
    slope, start = np.polyfit(ROWS[:-1], [seconds[rows] for rows in ROWS[:-1]], 1)
    fit, at_none = np.polyfit(ROWS, [seconds[rows] for rows in ROWS], 1)
    expected = float(start + slope * ROWS[-1])
    growth = max(b / a for a, b in zip(peaks[ROWS[0]], peaks[ROWS[-1]], strict=True))
    emit(
        "streamed_rows",
        ours=seconds[ROWS[-1]],
        peer=expected,
        ratio=expected / seconds[ROWS[-1]],
        bar=BAR,
        threads=1,
        fit=f"{at_none:.2f} s + {fit * 1e6:.3f} s a million rows",
        memory_mib={f"{rows:,} rows": [round(peak) for peak in peaks[rows]] for rows in ROWS},
        memory=f"{'flat' if growth <= MOST_GROWTH else 'GROWS'}: {growth:.3f} times from the fewest rows to the most",
        bundle_bytes=evidence,
    )


if __name__ == "__main__":
    main()
