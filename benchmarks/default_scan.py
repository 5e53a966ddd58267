"""Every probe of a default scan of a table, against a bare read and forward pass of the same rows.

10,000, 100,000 and 1,000,000 rows of ten columns as of ACSIncome (ages, codes of many levels, sex, nine groups of race)
in one CSV. Both are fresh processes of one thread, imports included, and take turns; ratio = bare / ours by processor
time at the most rows. Beside it: each size, the peaks of memory, and what fairlearn's MetricFrame takes for four rates
of the same groups with a bootstrap of 20 resamples.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from pydantic import TypeAdapter

from auditor.data.preprocessing import NumericColumn, TabularPreprocessing
from auditor.loading.job_specs import DataSpec, Job, Limits, ModelSpec, ProbeSpec
from auditor.loading.rows.table_files import BLOCK_BYTES
from auditor.models.audited_model import BATCH_ROWS
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from benchmarks.common import emit
from benchmarks.scan_million_rows import timed
from probes import PROBES

ROWS, PAIRS, BAR = (10_000, 100_000, 1_000_000), 3, 1 / 6
RACES = (0.62, 0.05, 0.01, 0.005, 0.01, 0.17, 0.005, 0.1, 0.03)
BARE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.csv, torch
from torch import nn
folder, block, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
bundle = torch.load(folder + "/model.pt", weights_only=True)
net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
net.load_state_dict({k.removeprefix("layers."): v for k, v in bundle["state_dict"].items()})
total = 0
with open(folder + "/data.csv", "rb") as source, torch.inference_mode():
    for batch in pa.csv.open_csv(source, read_options=pa.csv.ReadOptions(block_size=block)):
        x = np.column_stack([batch.column(i).to_numpy() for i in range(10)]).astype(np.float32)
        for i in range(0, len(x), rows):
            total += int(net(torch.from_numpy(x[i : i + rows])).argmax(1).sum())
print(total)
"""


def table(rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Columns whose levels and shapes are about those of ACSIncome, and an income that depends on some of them."""
    sex, race = rng.integers(1, 3, rows), rng.choice(np.arange(1, 10), rows, p=RACES)
    age = np.clip(rng.gamma(9.0, 4.8, rows).astype(int) + 16, 17, 96)
    school = np.clip(rng.normal(18.5, 3.8, rows).round().astype(int), 1, 24)
    hours = np.clip(rng.normal(38.0, 13.0, rows).round().astype(int), 1, 99)
    logit = 0.03 * (age - 40) + 0.25 * (school - 18) + 0.05 * (hours - 38) + 0.6 * (sex == 1) - 0.3 * (race == 2) - 0.5
    return {
        "AGEP": age,
        "COW": rng.integers(1, 9, rows),
        "SCHL": school,
        "MAR": rng.integers(1, 6, rows),
        "OCCP": rng.choice(np.arange(10, 9890, 19), rows),
        "POBP": rng.integers(1, 225, rows),
        "RELP": rng.integers(0, 18, rows),
        "WKHP": hours,
        "SEX": sex,
        "RAC1P": race,
        "y": (rng.random(rows) < 1.0 / (1.0 + np.exp(-logit))).astype(int),
    }


def prepare(folder: Path, rows: int) -> None:
    """Writes the data and a model that learned from some of them."""
    columns = table(rows, np.random.default_rng(0))
    pyarrow.csv.write_csv(pa.table(columns), folder / "data.csv")
    names = [name for name in columns if name != "y"]
    X = np.column_stack([columns[name] for name in names]).astype(np.float32)
    mean, scale = X.mean(axis=0), X.std(axis=0)
    torch.manual_seed(0)
    net = MLP(len(names), [64, 32], 2)
    z, y = torch.from_numpy((X - mean) / scale), torch.from_numpy(columns["y"])
    step = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(300):
        some = torch.randint(0, rows, (512,))
        step.zero_grad()
        torch.nn.functional.cross_entropy(net(z[some]), y[some]).backward()
        step.step()
    columns_of = zip(names, mean.tolist(), scale.tolist(), strict=True)
    model = TorchModel(
        net,
        classes=[0, 1],
        preprocessing=TabularPreprocessing(
            columns=tuple(NumericColumn(name=name, mean=m, scale=s) for name, m, s in columns_of)
        ),
        architecture={"name": "mlp", "args": {"n_features": len(names), "hidden": [64, 32], "n_outputs": 2}},
    )
    save(model, folder / "model.pt")


def job_of(folder: Path) -> bytes:
    """What the measuring process of a default scan is asked."""
    job = Job(
        model=ModelSpec(path=str(folder / "model.pt"), device="cpu"),
        data=DataSpec(path=str(folder / "data.csv"), target="y", sensitive=("SEX", "RAC1P")),
        probes=tuple(ProbeSpec(name=n, target=f"{kind.__module__}:{kind.__qualname__}") for n, kind in PROBES.items()),
        with_intake=True,
        recognise=True,
        seed=0,
        limits=Limits(memory_bytes=8 << 30, seconds=1200),
    )
    return TypeAdapter(Job).dump_json(job)


def fairlearn_seconds(rows: int) -> float:
    """Processor seconds of MetricFrame for four rates of the same groups, 20 resamples."""
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
    from sklearn.metrics import accuracy_score

    columns = table(rows, np.random.default_rng(0))
    decided = np.where(np.random.default_rng(1).random(rows) < 0.8, columns["y"], 1 - columns["y"])
    rates = {"s": selection_rate, "t": true_positive_rate, "f": false_positive_rate, "a": accuracy_score}
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = MetricFrame(
            metrics=rates, y_true=columns["y"], y_pred=decided, n_boot=20, ci_quantiles=[0.025, 0.975], random_state=1,
            sensitive_features={name: columns[name] for name in ("SEX", "RAC1P")},
        )  # fmt: skip
        assert len(frame.by_group_ci) == 2
    return time.process_time() - started


def main() -> None:
    """Runs the comparison and prints it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    found = {}
    for rows in ROWS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(folder, rows)
            bare = [sys.executable, "-I", "-c", BARE, name, str(BLOCK_BYTES), str(BATCH_ROWS)]
            ours = [sys.executable, "-I", "-m", "auditor.run.child_start", "{channel}"]
            pairs = [(timed(bare), timed(ours, job_of(folder))) for _ in range(PAIRS)]
        middle = [[statistics.median(pair[side][k] for pair in pairs) for k in (1, 2)] for side in (0, 1)]
        found[rows] = middle
    (bare_mib, bare_seconds), (our_mib, our_seconds) = found[ROWS[-1]]
    emit(
        "default_scan",
        ours=our_seconds,
        peer=bare_seconds,
        ratio=bare_seconds / our_seconds,
        bar=BAR,
        threads=1,
        memory_mib=(round(bare_mib), round(our_mib)),
        seconds={f"{rows:,} rows": (round(b[1], 2), round(o[1], 2)) for rows, (b, o) in found.items()},
        fairlearn_seconds={f"{rows:,} rows": round(fairlearn_seconds(rows), 2) for rows in ROWS[:2]},
    )


if __name__ == "__main__":
    main()
