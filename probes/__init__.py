"""The table of probes: each asks one question of a model."""

from auditor.probe import Probe
from probes.fairness import GroupFairness

PROBES: dict[str, type[Probe]] = {
    "group_fairness": GroupFairness,
}
