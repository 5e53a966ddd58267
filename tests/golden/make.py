"""Makes such files as lie here, in a new folder: ``python tests/golden/make.py rule3``, by hand. No test runs it.

The files are evidence of an earlier auditor. That today's auditor reads them, finds every digest as it was, and judges
their statistics as they were judged is what ``test_golden.py`` tests. Whoever makes them anew to get that test to pass
declares that whatever users hold of such evidence no longer verifies, and that needs a new format version (of
``auditor-evidence``, ``auditor-registration``, ``auditor-model``, of the ledger's or the record's schema) and an entry
under "Upgrade notes" in CHANGELOG.md that says so. Where a format gets a second version, keep these files and put new
ones beside them.

Digests, keys and times differ from run to run; the literals of ``test_golden.py`` follow by hand from what is printed.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
N_ROWS = 400

CONFIG = """\
[audit]
model = "model.pt"
data = "test.csv"
train = "train.csv"
target = "approved"
positive = "yes"
sensitive = ["sex"]
probes = ["group_fairness", "adverse_impact"]
seed = 0
max_memory = "8GiB"

[[criteria]]
metric = "demographic_parity_difference"
direction = "at_most"
bound = 0.3
source = "house rule 1"
set_by = "Risk Committee"
set_at = "2026-01-31"

[[criteria]]
metric = "selection_rate"
direction = "within"
bound = [0.02, 0.98]
probe = "group_fairness"
group = { sex = "f" }
source = "house rule 2"
set_by = "Risk Committee"
set_at = "2026-01-31"

[[criteria]]
metric = "selection_rate"
direction = "within"
bound = [0.8, 0.98]
probe = "group_fairness"
group = { sex = "m" }
source = "house rule 2"
set_by = "Risk Committee"
set_at = "2026-01-31"

[[criteria]]
metric = "impact_ratio_min"
direction = "at_least"
bound = 0.8
source = "house rule 3"
set_by = "Risk Committee"
set_at = "2026-01-31"

[[criteria]]
metric = "attack_auc"
direction = "at_most"
bound = 0.55
source = "house rule 4"
set_by = "Risk Committee"
set_at = "2026-01-31"
"""


def rows() -> str:
    """A table in which women are let in less often than their income says."""
    draw = random.Random(0)
    lines = ["income,debt,sex,approved"]
    for _ in range(N_ROWS):
        sex = draw.choice("fm")
        income, debt = draw.gauss(0, 1), draw.gauss(0, 1)
        chance = 1 / (1 + math.exp(debt - income - (0.5 if sex == "m" else -0.5)))
        lines.append(f"{income:.3f},{debt:.3f},{sex},{'yes' if draw.random() < chance else 'no'}")
    return "\n".join(lines) + "\n"


def auditor(folder: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
    """One command in ``folder``, by relative paths only: what it writes down names no other place."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from cli.commands import app; app()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder)
    if done.returncode not in codes:
        raise SystemExit(f"auditor {' '.join(arguments)}: exit {done.returncode}")


def make(folder: Path) -> None:
    """Everything that is stored, and what it was made from."""
    (folder / "rows.csv").write_text(rows())
    (folder / "audit.toml").write_text(CONFIG)
    small = ("--features", "income,debt", "--hidden", "4", "--epochs", "20", "--learning-rate", "0.05", "--seed", "0")
    auditor(folder, "train", "rows.csv", "--target", "approved", "--positive", "yes", *small, "--out", "model.pt",
            "--train-out", "train.csv", "--test-out", "test.csv")  # fmt: skip
    auditor(folder, "evidence", "keygen", "auditor.key")
    auditor(folder, "evidence", "register", "audit.toml", "--by", "Ann Example", "--sign", "auditor.key")
    scan = ("scan", "--config", "audit.toml", "--registration", "registration.json", "--policy", "nyc-ll144",
            "--history", "--db", "history.db", "--quiet")  # fmt: skip
    bundle = ("--bundle", "audit.zip", "--include-rows", "--sign", "auditor.key")
    auditor(folder, *scan, "--out", "first", codes=(0, 1, 3))
    accepted = ("--decision", "accept", "--expires", "2099-12-31", "--note", "mended in the next release")
    auditor(folder, "history", "sign-off", "1", "--by", "Ann Example", "--role", "Model risk officer", *accepted,
            "--sign", "auditor.key", "--db", "history.db")  # fmt: skip
    auditor(folder, *scan, *bundle, "--out", "second", codes=(0, 1, 3))
    (folder / "signature.dsse.json").write_bytes(zipfile.ZipFile(folder / "audit.zip").read("signature.dsse.json"))
    shutil.copy(folder / "second" / "report.json", folder / "report.json")


STORED = (
    "audit.zip", "auditor.key.pub", "history.db", "model.pt", "registration.json", "report.json", "signature.dsse.json",
)  # fmt: skip

if __name__ == "__main__":
    into = HERE / sys.argv[1]
    into.mkdir()
    with tempfile.TemporaryDirectory() as made:
        make(Path(made))
        for name in STORED:
            shutil.copy(Path(made) / name, into / name)
            content = (into / name).read_bytes()
            print(f'    "{name}": "{hashlib.sha256(content).hexdigest()}",  # {len(content):,} bytes')
