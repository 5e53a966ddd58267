"""Keys of rows: what is the same rows, and an order of them that nobody can draw again."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.data.row_keys import order_of
from auditor.models.audited_model import AuditedModel
from probes.fairness.proxy_association import ProxyAssociation
from probes.fairness.subgroups import SubgroupDiscovery
from tests.quantifiers import all_of


def rows(n: int = 400, seed: int = 0) -> AuditData:
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"age": rng.integers(18, 78, n).astype(float), "job": rng.choice(list("abcdefgh"), n)})
    sex = pd.Series(rng.choice(["f", "m"], n))
    return AuditData.from_arrays(X, rng.integers(0, 2, n), classes=["0", "1"], sensitive_features={"sex": sex})


def as_reread(data: AuditData, order: np.ndarray) -> AuditData:
    """The rows in another order, whole numbers as such, columns the other way round."""
    taken = data.take(order)
    assert isinstance(taken.X, pd.DataFrame) and taken.y_true is not None
    X = taken.X.reset_index(drop=True).astype({"age": np.int64})[["job", "age"]]
    return AuditData.from_arrays(X, taken.y_true, classes=["0", "1"])


def test_shuffled_and_saved_anew_they_are_the_same_rows() -> None:
    data = rows()
    again = as_reread(data, np.random.default_rng(1).permutation(400))
    assert again.digest == data.digest
    assert again.take(slice(1, None)).digest != data.digest
    assert AuditData.from_arrays(data.X, 1 - np.asarray(data.y_true), classes=["0", "1"]).digest != data.digest


MADE = {
    "text": "np.asarray(['a', 'b \\ud800', 'ä'], object)",
    "image": "np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)",
    "sound": "np.arange(12, dtype=np.int16).reshape(3, 4)",
}


@cache
def digests(seed: str) -> dict[str, str]:
    """Of each kind of rows, as a process of its own says them."""
    says = "".join(f"print(AuditData(X={made}).digest)\n" for made in MADE.values())
    code = f"import numpy as np\nfrom auditor.data.audit_data import AuditData\n{says}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
    )
    return dict(zip(MADE, done.stdout.split(), strict=True))


@pytest.mark.parametrize("kind", MADE)
def test_keys_are_the_same_in_every_process(kind: str) -> None:
    """Python's own hash of a text is salted anew in every process."""
    said = {digests(seed)[kind] for seed in ("1", "2")}
    assert len(said) == 1 and len(said.pop()) == 64


def test_an_order_is_that_of_the_contents_and_hardly_moves_when_a_row_goes() -> None:
    data = rows()
    order = data.order("halves")
    assert sorted(order.tolist()) == list(range(400))
    first = set(data.keys[order[:200]].tolist())
    shuffled = np.random.default_rng(2).permutation(400)
    again = as_reread(data, shuffled)
    assert set(again.keys[again.order("halves")[:200]].tolist()) == first
    moved = []
    for gone in range(50):
        less = data.take(np.delete(np.arange(400), gone))
        now = set(less.keys[less.order("halves")[:200]].tolist())
        moved.append(len(now ^ first))
    assert max(moved) <= 2
    assert data.order("another").tolist() != order.tolist()


def test_an_order_is_as_good_as_random_for_rows_of_few_values() -> None:
    """Two hundred equal rows are halved like any others: a key alone would put all of them on one side."""
    keys = np.repeat(np.asarray([3, 7, 11, 19], np.uint64), 200)
    sides = []
    for i in range(300):
        half = np.zeros(800, bool)
        half[order_of(keys, f"purpose {i}")[:400]] = True
        sides.append([int(half[keys == key].sum()) for key in np.unique(keys)])
    counted = np.asarray(sides, float)
    # Hypergeometric: 400 drawn of 800, 200 of them of each key.
    expected = 200 * 0.5 * 0.5 * (1 - 199 / 799)
    assert abs(counted.mean() - 100) < 0.1
    assert counted.var(axis=0) == pytest.approx([expected] * 4, rel=0.3)
    # And neighbours in the file are not kept together.
    half = np.zeros(800, bool)
    half[order_of(keys, "halves")[:400]] = True
    assert 330 < int((half[1:] != half[:-1]).sum()) < 470


def faultless(seed: int, n: int) -> tuple[AuditedModel, AuditData]:
    """No subgroup is worse than any other: every row's error is a coin of its own."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"job": rng.choice(list("abcdefgh"), n)} | {f"x{i}": rng.normal(size=n) for i in range(4)})
    y = rng.integers(0, 2, n)
    X["predicted"] = np.where(rng.random(n) < 0.25, 1 - y, y).astype(float)
    data = AuditData.from_arrays(X, y, classes=["0", "1"], sensitive_features={"sex": rng.choice(["f", "m"], n)})
    return AuditedModel.from_callable(lambda r: r["predicted"].to_numpy(), classes=["0", "1"]), data


FEATURES = ["job", "x0", "x1", "x2", "x3", "sex"]


@pytest.mark.parametrize("probe", [SubgroupDiscovery(features=FEATURES), ProxyAssociation()])
def test_another_seed_is_no_other_split(probe: SubgroupDiscovery | ProxyAssociation) -> None:
    model, data = faultless(3, 600)
    first, *others = (probe.measure(model, data, np.random.default_rng(seed)) for seed in range(6))
    assert all_of(other == first for other in others)


def test_the_best_of_six_seeds_confirms_what_one_confirms() -> None:
    """A split drawn by the seed let whoever tried six of them FAIL 13 of 100 faultless models, and one 3."""
    failed = []
    for world in range(20):
        model, data = faultless(world, 1000)
        probe = SubgroupDiscovery(features=FEATURES, depth=1, top=1)
        counts = [probe.measure(model, data, np.random.default_rng(seed))[0].estimate.value for seed in range(6)]
        failed.append(max(counts) > 0)
        assert len(set(counts)) == 1
    # Each FAILs with at most 5 %: more than 4 of 20 once in 400 such tests.
    assert sum(failed) <= 4
