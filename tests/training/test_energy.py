"""What an audit takes: counters of a made-up machine that go round, are closed, vanish or stand still; operations."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.data.preprocessing import NumericColumn, TabularPreprocessing
from auditor.judging.measurement import ProbeResult
from auditor.judging.policy import load_policies
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import NOT_REPEATED, AuditReport
from auditor.report.record.controls import with_policies
from auditor.report.record.energy import EnergyCounter, EnergyRecord, NotMeasured
from auditor.report.record.translations import Catalogue, shipped
from auditor.run import run_audit as audit
from auditor.run.run_audit import run_audit
from auditor.training import meter as counters
from auditor.training.computation_cost import flops_of
from auditor.training.meter import Counter, Meter, energy_place, nvml, rapl, taken_by_probe
from probes.fairness.group_fairness import GroupFairness
from probes.performance.performance import Performance
from tests.quantifiers import all_of, none_of
from tests.report.samples import sample_report
from tests.toys.models import CLASSES, FEATURES, rows


class Machine:
    """A powercap tree: ``zones`` hold a name and a counter in microjoules, which goes round after ``above``."""

    def __init__(self, root: Path, zones: dict[str, str], above: int = 1_000_000_000) -> None:
        self.root, self.above = root, above
        for zone, name in zones.items():
            (root / zone).mkdir(parents=True)
            (root / zone / "name").write_text(f"{name}\n")
            (root / zone / "max_energy_range_uj").write_text(f"{above}\n")
            self.set(zone, 0)

    def set(self, zone: str, microjoules: int) -> None:
        (self.root / zone / "energy_uj").write_text(f"{microjoules}\n")


TWO = {
    "intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram",
    "intel-rapl:1": "package-1", "intel-rapl:2": "psys",
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, TWO)


def asked(probe: str = "asked", cpu_s: float = 0.5) -> ProbeResult:
    return ProbeResult(probe=probe, pillar="fairness", citation="", cpu_s=cpu_s)


def joules(record: EnergyRecord) -> dict[str, float]:
    return {counter.name: counter.joules for counter in record.counters}


def why(record: EnergyRecord) -> dict[str, str]:
    return {each.counter: each.why for each in record.not_measured}


def test_packages_and_their_memory_are_counted_once_each_and_by_probe(machine: Machine) -> None:
    with Meter(root=machine.root) as meter:
        machine.set("intel-rapl:0", 2_000_000)
        meter.begins("asked")
        for zone in TWO:
            machine.set(zone, 5_000_000)
        meter.ends()
        machine.set("intel-rapl:1", 6_500_000)
        record = meter.record([asked(), asked("idle")], activity="audit")
    # A core is part of its package, and psys of everything: neither is counted twice.
    assert joules(record) == {
        "RAPL intel-rapl:0 (package-0)": 5.0,
        "RAPL intel-rapl:0:1 (dram)": 5.0,
        "RAPL intel-rapl:1 (package-1)": 6.5,
    }
    assert [counter.counts for counter in record.counters] == ["package", "memory", "package"]
    assert record.joules == pytest.approx(16.5) and not record.not_measured
    assert {counter.resolution_j for counter in record.counters} == {1e-6}
    of_probe, idle = record.probes
    assert of_probe.joules == {
        "RAPL intel-rapl:0 (package-0)": 3.0,
        "RAPL intel-rapl:0:1 (dram)": 5.0,
        "RAPL intel-rapl:1 (package-1)": 5.0,
    }
    assert not idle.joules


def test_a_counter_that_goes_round_is_followed(machine: Machine) -> None:
    machine.set("intel-rapl:0", machine.above - 250_000)
    with Meter(root=machine.root) as meter:
        machine.set("intel-rapl:0", 500_000)
        assert joules(meter.record(activity="audit"))["RAPL intel-rapl:0 (package-0)"] == pytest.approx(0.75)
        machine.set("intel-rapl:0", 400_000)
        again = meter.record(activity="audit")
    assert joules(again)["RAPL intel-rapl:0 (package-0)"] == pytest.approx(0.75 + machine.above * 1e-6 - 0.1)


def test_one_that_was_read_too_seldom_may_have_gone_round_unseen() -> None:
    now, at = [0.0], [0]
    counter = Counter("c", "package", 1e-6, lambda: at[0], above=10**9, clock=lambda: now[0])
    for _ in range(3):
        now[0] += counters.MOST_BETWEEN
        at[0] += 1_000_000
        counter.take()
    told = counter.record()
    assert isinstance(told, EnergyCounter) and told.joules == pytest.approx(3.0)
    now[0] += counters.MOST_BETWEEN + 1.0
    counter.take()
    assert counter.record() == NotMeasured(counter="c", why="seldom")
    now[0] += 1.0
    counter.take()
    assert counter.record() == NotMeasured(counter="c", why="seldom"), "it does not count on as if nothing were missing"


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (lambda zone: (zone / "energy_uj").unlink(), "vanished"),
        (lambda zone: (zone / "energy_uj").write_text("many"), "vanished"),
        (lambda zone: (zone / "energy_uj").write_text(""), "vanished"),
        (lambda zone: None, "still"),
    ],
)
def test_of_a_counter_that_vanishes_or_stands_still_nothing_is_said(
    machine: Machine, breaks: Callable[[Path], object], reason: str
) -> None:
    machine.set("intel-rapl:0", 1)
    with Meter(root=machine.root) as meter:
        meter.begins("asked")
        machine.set("intel-rapl:1", 9_000_000)
        if reason == "vanished":
            machine.set("intel-rapl:0", 9_000_000)
            meter.ends()
            meter.begins("later")
        breaks(machine.root / "intel-rapl:0")
        meter.ends()
        record = meter.record([asked()], activity="audit")
    assert why(record)["RAPL intel-rapl:0 (package-0)"] == reason
    assert joules(record) == {"RAPL intel-rapl:1 (package-1)": 9.0}
    assert record.probes[0].joules == {"RAPL intel-rapl:1 (package-1)": 9.0}


def test_what_only_root_may_read_is_not_measured_and_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def closed(self: Path, *args: str) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *args)

    # Root reads what is closed to all others, and tests may run as root.
    monkeypatch.setattr(Path, "read_text", closed)
    found, silent = rapl(machine.root)
    assert not found and {each.why for each in silent} == {"root_only"} and len(silent) == 3
    if os.geteuid() != 0:
        monkeypatch.undo()
        (machine.root / "intel-rapl:0" / "energy_uj").chmod(0)
        assert rapl(machine.root)[1] == [NotMeasured(counter="RAPL intel-rapl:0 (package-0)", why="root_only")]


@pytest.mark.parametrize("content", ["", "many", "1e6"])
def test_rubbish_in_the_tree_is_no_counter(tmp_path: Path, content: str) -> None:
    machine = Machine(tmp_path, {"intel-rapl:0": "package-0"})
    (machine.root / "intel-rapl:0" / "max_energy_range_uj").write_text(content)
    found, silent = rapl(machine.root)
    assert not found and silent == [NotMeasured(counter="RAPL intel-rapl:0 (package-0)", why="unreadable")]


@pytest.mark.parametrize("zones", [{}, {"intel-rapl:0": "psys"}, {"intel-rapl-mmio:0": "package-0"}, {"dtpm": "cpu"}])
def test_where_there_is_no_counter_none_is_made_up(tmp_path: Path, zones: dict[str, str]) -> None:
    machine = Machine(tmp_path, zones)
    with Meter(root=machine.root / "nothing" if not zones else machine.root) as meter:
        record = meter.record([asked()], activity="audit")
    assert record.joules is None and why(record) == {"RAPL": "absent"} and not record.probes[0].joules
    assert "NOT MEASURED" in record.describe(Catalogue()) and " J by " not in record.describe(Catalogue())


def test_it_is_told_where_the_computation_turned_out_to_be(machine: Machine) -> None:
    with Meter("auto", machine.root) as meter:
        assert meter.record(activity="training").gpu_s == 0.0
        meter.device = "cuda"
        time.sleep(0.002)
        assert meter.record(activity="training").gpu_s > 0.0
        meter.device = "cpu"
        assert meter.record(activity="training").gpu_s == 0.0


def test_no_wattage_is_supposed_anywhere() -> None:
    """Twice as long a computation comes to no joules at all where there is no counter."""
    record = EnergyRecord(of="audit", cpu_s=1e6, gpu_s=1e6)
    assert record.joules is None and "J by" not in record.describe(Catalogue())
    assert "absent" not in record.describe(Catalogue()) and "no such counter" in record.describe(Catalogue())


def cards(*energies: list[int] | Exception) -> SimpleNamespace:
    """A library that answers as NVML does, with what each card's counter says at each reading."""

    def consumed(card: int) -> int:
        own = energies[card]
        if isinstance(own, Exception):
            raise own
        return own.pop(0) if len(own) > 1 else own[0]

    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(energies),
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=consumed,
    )


def test_a_card_counts_in_millijoules_and_one_that_starts_anew_is_not_taken_for_one_that_went_round() -> None:
    found, silent = nvml(cards([1_000, 3_500], [9_000, 10], RuntimeError("Not Supported")))
    for counter in found:
        counter.take()
    assert [counter.record() for counter in found] == [
        EnergyCounter(name="NVML card 0", counts="card", resolution_j=1e-3, joules=2.5),
        NotMeasured(counter="NVML card 1", why="backwards"),
    ]
    assert silent == [NotMeasured(counter="NVML card 2", why="unreadable")]


def test_a_driver_that_fails_or_has_no_card_is_no_counter() -> None:
    def broken() -> None:
        raise RuntimeError("Driver Not Loaded")

    assert nvml(SimpleNamespace(nvmlInit=broken))[1] == [NotMeasured(counter="NVML", why="unreadable")]
    assert nvml(cards())[1] == [NotMeasured(counter="NVML", why="absent")]


def network() -> TorchModel:
    torch.manual_seed(0)
    return TorchModel(
        nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)),
        classes=CLASSES,
        outputs="logits",
        preprocessing=TabularPreprocessing(columns=tuple(NumericColumn(name=f) for f in FEATURES)),
    )


def test_forward_passes_are_counted_by_one_row_that_leaves_nothing_behind() -> None:
    model, table = network(), pd.DataFrame(np.zeros((70, 3)), columns=list(FEATURES))
    noted, was = taken_by_probe(model), model.module.training
    model.predict_proba(table)
    model.predict_proba(table.iloc[:3])
    assert model.forwarded is not None
    passes, state, drawn = model.forwarded.copy(), torch.get_rng_state(), np.random.get_state()[2]
    taken = noted(asked(cpu_s=0.0))
    assert taken.flops == 73 * 2 * (3 * 5 + 5 * 1) and taken.flops_by == "counted" and taken.cpu_s > 0.0
    assert model.forwarded == passes and model.module.training == was
    assert torch.equal(state, torch.get_rng_state()) and np.random.get_state()[2] == drawn
    again = taken_by_probe(model)(asked(cpu_s=0.0))
    assert again.flops == 0.0 and not again.flops_by
    model.predict_proba(table)
    with_dropout = TorchModel(
        nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.9)), classes=CLASSES, outputs="logits", features=FEATURES
    )
    with_dropout.module.train()
    noted = taken_by_probe(with_dropout)
    with_dropout.predict_proba(table)
    assert noted(asked()).flops == 70 * 2 * 3 and with_dropout.module.training


@pytest.mark.parametrize(
    ("network", "shape", "flops"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 1)), (1, 8, 8), 2 * (2 * 36 * 9 + 72)),
        (nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.Flatten()), (4, 5), 2 * 6 * 3 * 2 * 3),
        (nn.Sequential(nn.ConvTranspose1d(2, 3, 4), nn.BatchNorm1d(3)), (2, 5), 2 * 2 * 5 * 3 * 4),
        (nn.LSTM(3, 7, batch_first=True), (5, 3), 2 * 5 * (4 * 7 * 3 + 4 * 7 * 7)),
    ],
)
def test_layers_are_counted_as_by_hand(network: nn.Module, shape: tuple[int, ...], flops: int) -> None:
    model = TorchModel(network, classes=CLASSES, outputs="logits", features=FEATURES)
    assert flops_of(model, {(torch.float32, *shape): 10}) == (10.0 * flops, "counted")


def test_of_layers_that_are_not_known_no_number_is_made_up() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    for own in (Own(), nn.Sequential(nn.Linear(3, 1), Own()), nn.TransformerEncoderLayer(4, 2)):
        model = TorchModel(own, classes=CLASSES, outputs="logits", features=FEATURES)
        assert flops_of(model, {(torch.float32, 3): 10}) == (None, "")


def test_a_network_without_an_answer_about_zeros_is_not_counted_and_audited_all_the_same() -> None:
    class Refuses(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not float(x.sum()):
                raise ValueError("nothing there")
            return x[:, :1]

    model = TorchModel(Refuses(), classes=CLASSES, outputs="logits", features=FEATURES)
    noted = taken_by_probe(model)
    model.predict_proba(pd.DataFrame(np.ones((4, 3)), columns=list(FEATURES)))
    assert noted(asked()).flops is None


def test_an_audit_says_what_it_took_and_the_same_seed_still_gives_the_same_report(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(root: Path) -> AuditReport:
        class Here(Meter):
            def __init__(self, device: str) -> None:
                super().__init__(device, root)

        monkeypatch.setattr(audit, "Meter", Here)

        def used(name: str) -> None:
            machine.set("intel-rapl:0", int((machine.root / "intel-rapl:0" / "energy_uj").read_text()) + 1_000_000)
            # Longer than the clock of processor time takes for a tick.
            until = time.process_time() + 0.03
            while time.process_time() < until:
                pass

        return run_audit(network(), rows(200), [Performance(), GroupFairness()], progress=used)

    with_counter, without = once(machine.root), once(machine.root / "nothing")
    assert with_counter.energy is not None and without.energy is not None
    assert with_counter.energy.joules == pytest.approx(2.0) and without.energy.joules is None
    assert [p.probe for p in without.energy.probes] == ["performance", "group_fairness"]
    assert all_of(p.cpu_s >= 0.0 for p in without.energy.probes) and without.energy.cpu_s >= 0.03
    assert without.energy.gpu_s == 0.0 and without.energy.flops_by == "counted"
    assert (without.energy.flops or 0.0) >= 200 * 40
    one, other = (r.model_dump(mode="json", exclude=set(NOT_REPEATED)) for r in (with_counter, without))
    assert one == other
    assert AuditReport.from_json(with_counter.to_json()) == with_counter


MEASURED = EnergyRecord(
    of="audit",
    cpu_s=12.34,
    gpu_s=0.0,
    flops=3.2e9,
    flops_by="counted",
    counters=(EnergyCounter(name="RAPL <b>x</b>", counts="package", resolution_j=1e-6, joules=41.5),),
)
UNMEASURED = EnergyRecord(
    of="training", cpu_s=1.0, gpu_s=2.0, not_measured=(NotMeasured(counter="RAPL", why="root_only"),)
)


def controls(energy: EnergyRecord | None) -> dict[str, str]:
    """What the two controls that ask for it say, by the words of their cells."""
    packs, _ = load_policies(["nist-ai-rmf", "eu-ai-act"])
    report = with_policies(sample_report().model_copy(update={"energy": energy}), packs, date(2026, 11, 28))
    return {
        f"{control.id}: {cell.what}": f"{cell.kind}: {cell.said}{cell.reason}"
        for control in report.controls
        for cell in control.cells
        if control.id in ("MEASURE 2.12", "Annex IV 2(c)") and ("energy of this" in cell.what or "time" in cell.what)
    }


def test_two_rule_packs_take_it_as_evidence_and_no_time_for_energy() -> None:
    told, silent, before = controls(MEASURED), controls(UNMEASURED), controls(None)
    of_energy = [name for name in told if "energy of" in name]
    assert len(told) == 3 and len(of_energy) == 2
    assert all_of(told[name].startswith("evidence: 41.5 J") for name in of_energy)
    assert all_of(silent[name].startswith("not measured: Energy NOT MEASURED: RAPL: only root") for name in of_energy)
    (of_time,) = set(told) - set(of_energy)
    assert silent[of_time].startswith("evidence: Training, with any audits in it, took 1.0 s of processor time, 2.0")
    assert all_of(said.startswith("not measured: ") for said in before.values())


def test_the_line_is_told_in_both_languages_with_every_reason() -> None:
    for language in ("en", "de"):
        words = shipped(language)
        say = Catalogue(language, words)
        for reason in NotMeasured.model_fields["why"].annotation.__args__:  # type: ignore[union-attr]
            record = UNMEASURED.model_copy(update={"not_measured": (NotMeasured(counter="RAPL", why=reason),)})
            assert words[f"energy.{reason}"] in record.describe(say)
        assert none_of("{" in record.describe(say) for record in (MEASURED, UNMEASURED))


def test_models_beside_each_other_have_files_of_their_own() -> None:
    names = ["llama-3.2-1B", "llama-3.2-3B", "m.pt", "m.safetensors"]
    places = [energy_place(Path("x") / name).name for name in names]
    assert places == [f"{name}.energy.json" for name in (*names[:2], "m", names[3])]
