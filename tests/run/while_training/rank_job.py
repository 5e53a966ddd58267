"""Jobs of several ranks that audit a model, forked from this process, which has imported everything once.

Reads a line of JSON a job, its folder, number of ranks and what goes wrong in it, and writes one with how each ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement, Pillar
from auditor.models.audited_model import AuditedModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.probe import Need, Probe
from auditor.run.while_training.training_audit import TrainingAudit
from auditor.statistics.estimate import Exact
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.score_fairness import ScoreFairness
from probes.robustness.robustness import Robustness
from tests.quantifiers import all_of
from tests.run.while_training.worlds import SHORT, network, rows, selecting
from tests.toys.models import criterion


class OneSided:
    """Raises on one rank alone, where the others ask the model."""

    name = "one_sided"
    pillar: Pillar = "robustness"
    goal = "To leave the others waiting."
    citation = ""
    methods: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        if os.environ["RANK"] == "1":
            raise MemoryError("this rank has none left")
        k = int(model.predict_proba(data.X).argmax(axis=1).sum())
        return [Measurement(metric="selected", estimate=Exact(known=float(k)), n_samples=len(data))]


def rank(out: Path, how: str) -> None:
    dies = how == "dies"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=int(os.environ["RANK"]),
                                world_size=int(os.environ["WORLD_SIZE"]), timeout=timedelta(seconds=120))  # fmt: skip
    own = int(os.environ["RANK"])
    # A page is drawn after every look, which takes longer than the looks: where nothing goes wrong, by one job alone.
    pages = how in ("dies", "resumed") or (how, os.environ["WORLD_SIZE"]) == ("lives", "2")
    # Not a multiple of the batch, nor of the ranks.
    first: list[Probe] = [OneSided()] if how == "one_sided" else []

    def made() -> TrainingAudit:
        return TrainingAudit(
            probes=[*first, GroupFairness(), ScoreFairness(), Robustness(**SHORT)],
            data=rows(3001, seed=own if how == "other_rows" else 0), n_peeks=2, max_overhead=None,
            out=out if pages else None, timeout_s=8.0 if dies else 120.0,
        )  # fmt: skip

    audit = made()
    if how == "sharded":
        return sharded(audit, out)
    model = network()
    # Statistics of the batches of one rank, as they are between two forward passes of a distributed training.
    model[1].running_mean.fill_(0.1 * own if how == "statistics" else 0.0)
    audit.step(model)
    if dies and own == 1:
        os._exit(0)
    if how == "resumed":
        state = audit.state_dict()
        audit = made()
        audit.load_state_dict(state)
    with torch.no_grad():
        model[4].bias.add_(torch.tensor([0.0, 0.3]))
    audit.step(model)
    report = audit.finish(model)
    if not pages:
        written(report, out)
    if how == "statistics":
        assert float(model[1].running_mean[0]) == (0.0 if own == 0 else float(torch.tensor(0.1 * own)))
    if dist.is_initialized() and not dies:
        dist.destroy_process_group()


def written(report: AuditReport | None, out: Path) -> None:
    """The first rank's report, as an audit with a folder writes it."""
    assert report is not None
    if os.environ["RANK"] == "0":
        (out / "report.json").write_text(report.to_json())


def sharded(audit: TrainingAudit, out: Path) -> None:
    """The same two looks at parameters of which each rank has a part, which go on learning afterwards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, distribute_tensor

    mesh, model = init_device_mesh("cpu", (dist.get_world_size(),)), network()
    fully_shard(model[4], mesh=mesh)
    fully_shard(model, mesh=mesh)
    model[1].running_mean.fill_(0.0)
    audit.step(model)
    before = model.training, [p.to_local().clone() for p in model.parameters() if isinstance(p, DTensor)]
    with torch.no_grad():
        bias = model[4].bias
        assert isinstance(bias, DTensor) and len(before[1]) == 6
        bias.add_(distribute_tensor(torch.tensor([0.0, 0.3]), mesh, bias.placements))
    audit.step(model)
    written(audit.finish(model), out)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(model(torch.randn(8, 3)), torch.zeros(8, dtype=torch.int64)).backward()
    optimizer.step()
    own = [p.to_local() for p in model.parameters() if isinstance(p, DTensor)]
    assert model.training and all_of(isinstance(p, DTensor) for p in model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before[1], own, strict=True))
    rolled_back(mesh)
    dist.destroy_process_group()


def rolled_back(mesh: DeviceMesh) -> None:
    """Weights of the look that passed are put back into the shards."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, distribute_tensor

    model = selecting([1.0, 0.0, 0.0])
    fully_shard(model, mesh=mesh)
    weight = model.weight
    assert isinstance(weight, DTensor)
    good = weight.full_tensor().clone()
    audit = TrainingAudit(probes=[GroupFairness()], data=rows(4000), n_peeks=2, max_overhead=None, on_fail="rollback",
                          criteria=[criterion("demographic_parity_difference", "at_most", 0.1)])  # fmt: skip
    audit.step(model)
    with torch.no_grad():
        unfair = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 3.0]])
        weight.copy_(distribute_tensor(unfair, mesh, weight.placements))
    audit.step(model)
    assert audit.should_stop and not audit.faults, audit.faults
    now = next(iter(model.parameters()))
    assert isinstance(now, DTensor) and torch.equal(now.full_tensor(), good)


def begin(out: Path, n: int, number: int, how: str) -> int:
    """The process of a new rank."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.environ.update({"RANK": str(number), "WORLD_SIZE": str(n)})
        rank(out, how)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    # What an audit imports only when it needs it, which every rank would do by itself.
    for name in ("torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_svg", "jinja2", "scipy.stats"):
        importlib.import_module(name)
    # And what is the same in every audit: which class is of which kind.
    TrainingAudit(probes=[GroupFairness(), ScoreFairness(), Robustness()], data=rows(10))
    # What is shared is not copied because somebody looked whether it is needed.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        out, n, how = json.loads(line)
        ranks = [begin(Path(out), n, number, how) for number in range(n)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]), flush=True)


if __name__ == "__main__":
    serve()
