"""The measuring process's work for group_fairness on a million rows, against a bare read-and-forward pass.

1,000,000 rows, 20 features, one CSV; both are fresh processes, imports included, same reader, block size and forward
batch. ratio = bare / ours. Peak memory of ours over the bare one's is printed beside it and must stay under 1.3.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from pydantic import TypeAdapter

from auditor.data.preprocessing import NumericColumn, TabularPreprocessing
from auditor.loading.job_specs import DataSpec, Job, Limits, ModelSpec, ProbeSpec
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from benchmarks.common import emit

ROWS, FEATURES, PAIRS, BAR = 1_000_000, 20, 5, 0.66

BARE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.csv, torch
from torch import nn
folder, n, block, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
bundle = torch.load(folder + "/model.pt", weights_only=True)
net = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
net.load_state_dict({k.removeprefix("layers."): v for k, v in bundle["state_dict"].items()})
names = [f"x{i}" for i in range(n)]
total = 0
with open(folder + "/data.csv", "rb") as source, torch.inference_mode():
    reader = pa.csv.open_csv(
        source, read_options=pa.csv.ReadOptions(block_size=block),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            include_columns=names + ["y", "sex"],
            column_types={**dict.fromkeys(names, pa.float64()), "y": pa.string(), "sex": pa.string()}),
    )
    for batch in reader:
        x = np.column_stack([batch.column(i).to_numpy() for i in range(n)]).astype(np.float32)
        for i in range(0, len(x), rows):
            total += int(net(torch.from_numpy(x[i : i + rows])).argmax(1).sum())
print(total)
"""


def prepare(folder: Path) -> None:
    """Writes the data and the model."""
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=ROWS).round(5) for i in range(FEATURES)}
    columns["y"] = rng.integers(0, 2, ROWS)
    columns["sex"] = np.where(rng.random(ROWS) < 0.5, "female", "male")
    pyarrow.csv.write_csv(pa.table(columns), folder / "data.csv")
    torch.manual_seed(0)
    model = TorchModel(
        MLP(FEATURES, [64, 32], 2),
        classes=[0, 1],
        preprocessing=TabularPreprocessing(columns=tuple(NumericColumn(name=f"x{i}") for i in range(FEATURES))),
        architecture={"name": "mlp", "args": {"n_features": FEATURES, "hidden": [64, 32], "n_outputs": 2}},
    )
    save(model, folder / "model.pt")


def timed(command: list[str], job: bytes | None = None) -> tuple[float, float, float]:
    """Wall seconds, peak resident MiB and processor seconds of one process."""
    reader, writer = os.pipe()
    started = time.perf_counter()
    child = subprocess.Popen(
        [part.replace("{channel}", str(writer)) for part in command],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(writer,),
    )  # fmt: skip
    os.close(writer)
    if child.stdin is None:
        raise RuntimeError("no standard input")
    child.stdin.write(job or b"")
    child.stdin.close()
    received = b""
    while block := os.read(reader, 1 << 16):
        received += block
    os.close(reader)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode or (job is not None and b'"kind":"done"' not in received):
        raise SystemExit(f"{command[:4]} ended with {child.returncode}: {received[-500:]!r}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Runs the comparison and prints it."""
    from auditor.loading.rows.table_files import BLOCK_BYTES
    from auditor.models.audited_model import BATCH_ROWS

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        job = TypeAdapter(Job).dump_json(
            Job(
                model=ModelSpec(path=str(folder / "model.pt"), device="cpu"),
                data=DataSpec(path=str(folder / "data.csv"), target="y", sensitive=("sex",)),
                probes=(ProbeSpec(name="group_fairness", target="probes.fairness.group_fairness:GroupFairness"),),
                seed=0,
                limits=Limits(memory_bytes=8 << 30, seconds=600),
            )
        )
        bare = [sys.executable, "-I", "-c", BARE, name, str(FEATURES), str(BLOCK_BYTES), str(BATCH_ROWS)]
        ours = [sys.executable, "-I", "-m", "auditor.run.child_start", "{channel}"]
        timed(bare), timed(ours, job)
        pairs = [(timed(bare), timed(ours, job)) for _ in range(PAIRS)]
    emit(
        "scan_million_rows",
        ours=statistics.median(o[0] for _, o in pairs),
        peer=statistics.median(b[0] for b, _ in pairs),
        ratio=statistics.median(b[0] / o[0] for b, o in pairs),
        bar=BAR,
        threads=torch.get_num_threads(),
        memory_ratio=round(statistics.median(o[1] / b[1] for b, o in pairs), 3),
        memory_mib=(round(statistics.median(b[1] for b, _ in pairs)), round(statistics.median(o[1] for _, o in pairs))),
    )


if __name__ == "__main__":
    main()
