"""One rank of a job that audits a model; run by the tests with RANK and WORLD_SIZE set."""

from __future__ import annotations

import os
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from auditor.training_audit.audit import TrainingAudit
from probes.fairness import GroupFairness
from probes.robustness import Robustness
from probes.score_fairness import ScoreFairness
from tests.training_audit.worlds import network, rows


def main(out: Path, dies: bool) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=int(os.environ["RANK"]),
                                world_size=int(os.environ["WORLD_SIZE"]), timeout=timedelta(seconds=120))  # fmt: skip
    rank = int(os.environ["RANK"])
    # Not a multiple of the batch, nor of the ranks.
    audit = TrainingAudit(
        probes=[GroupFairness(), ScoreFairness(), Robustness()], data=rows(3001), n_peeks=2, max_overhead=None,
        out=out, timeout_s=8.0 if dies else 120.0,
    )  # fmt: skip
    model = network().eval()
    audit.step(model)
    if dies and rank == 1:
        os._exit(0)
    with torch.no_grad():
        model[4].bias.add_(torch.tensor([0.0, 0.3]))
    audit.step(model)
    audit.finish(model)
    if dist.is_initialized() and not dies:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "dies")
    sys.stdout.flush()
    os._exit(0)
