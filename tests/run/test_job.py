"""A job on its way to the measuring process, and what is made of its probes before they are asked."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from datetime import date

import pytest
from pydantic import TypeAdapter

from auditor.core.errors import UsageError
from auditor.data.table_schema import PublicColumn, TableSchema
from auditor.loading.job_specs import (
    DataSpec,
    Job,
    Limits,
    MitigationSpec,
    ModelSpec,
    ProbeSpec,
    RecordedSpec,
    TableTrainingSpec,
    TrainSpec,
)
from auditor.run.parent_process import _send_job
from auditor.run.probe import Probe
from auditor.run.scan import workloads
from probes.language.generation_bias import GenerationBias

LIMITS = Limits(memory_bytes=1 << 30, seconds=1.5)
OPTIONS = {"n": 3, "shares": [0.25, None, True], "by": {"é": "\u202e\x00"}, "day": date(2026, 11, 27), "nan": math.nan}
SCHEMA = TableSchema(columns={"age": PublicColumn(low=0.0, high=99.0), "sex": PublicColumn(levels=("f", "m"))})
JOBS = [
    Job(model=ModelSpec(path="model.pt"), data=None, probes=(), seed=0, limits=LIMITS),
    Job(
        model=ModelSpec(path="é.pt", classes=("no", "yes"), threshold=0.5, architecture_args={"hidden": [8]}),
        data=DataSpec(
            path="rows.csv", sensitive=("sex",), labels={"sex.f": "women"}, reference_groups={"sex": ("f", "0.5")},
            recorded=RecordedSpec(score=("s",)),
        ),
        probes=(ProbeSpec(name="robustness", target="a:B", options=OPTIONS),),
        seed=7,
        limits=Limits(memory_bytes=1, seconds=math.inf),
        mitigation=MitigationSpec(name="reweighing", target="a:B", out="new.pt", options={}),
    ),
    Job(
        model=ModelSpec(path=None),
        data=None,
        probes=(),
        seed=0,
        limits=LIMITS,
        table_training=TableTrainingSpec(
            table=TrainSpec(data="a.csv", target="y", schema=SCHEMA),
            out="m.pt",
            train_out="a",
            test_out="b",
            predictions_out="c",
        ),
    ),
]  # fmt: skip


def sent(job: Job) -> bytes:
    echo = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    with subprocess.Popen([sys.executable, "-Ic", echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        _send_job(child, job)
        assert isinstance(child.stdout, io.BufferedReader)
        return child.stdout.read()


@pytest.mark.parametrize("job", JOBS)
def test_a_job_arrives_as_it_was_sent(job: Job) -> None:
    types = TypeAdapter(Job)
    assert types.dump_json(types.validate_json(sent(job))) == types.dump_json(job)


@pytest.mark.parametrize("rate", [math.nan, math.inf, 0.1])
def test_a_number_that_is_none_is_not_taken_for_one_that_nobody_gave(rate: float) -> None:
    training = TableTrainingSpec(
        table=TrainSpec(data="a.csv", target="y", learning_rate=rate),
        out="m.pt",
        train_out="a",
        test_out="b",
        predictions_out="c",
    )
    job = Job(model=ModelSpec(path=None), data=None, probes=(), seed=0, limits=LIMITS, table_training=training)
    arrived = TypeAdapter(Job).validate_json(sent(job)).table_training
    assert arrived is not None and str(arrived.table.learning_rate) == str(rate)


def test_a_path_that_is_not_in_utf_8_is_refused() -> None:
    with pytest.raises(UsageError, match="not in UTF-8"):
        sent(Job(model=ModelSpec(path="\udcff.pt"), data=None, probes=(), seed=0, limits=LIMITS))


class Quiet:
    """A probe that takes its time to be made, and has nothing to say of a workload."""

    name = "quiet"
    made = 0

    def __init__(self) -> None:
        Quiet.made += 1


def test_only_probes_with_a_workload_are_made_to_tell_it() -> None:
    catalogue: dict[str, type[Probe]] = {"quiet": Quiet, "generation_bias": GenerationBias}  # type: ignore[dict-item]
    specs = tuple(ProbeSpec(name=name, target="a:B") for name in (*catalogue, "of_others"))
    job = Job(model=ModelSpec(path="m"), data=None, probes=specs, seed=0, limits=LIMITS)
    assert workloads(job, catalogue) == {"generation_bias": "generation_bias: 380 continuations of at most 10 tokens"}
    assert Quiet.made == 0
