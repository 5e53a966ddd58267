"""Which test an interval inverts, in words, by the kind of its estimate."""

from __future__ import annotations

from collections.abc import Mapping

_OF_PAIRS = "exact tests of every pair of groups, inverted together"
_OF_GROUPS = "Clopper and Pearson's exact binomial tests of all groups together"
_OF_CLUSTERS = "t tests with cluster-robust variance (CR2, Satterthwaite's degrees of freedom)"
_OF_PARTS = "the tests that its parts' own bounds invert, all together"
_OF_CURVES = "Hoeffding's inequality above and Massart's of distribution functions below, over every pair of groups"
_BINOMIAL = "Clopper and Pearson's exact binomial test"

INVERTS: Mapping[str, str] = {
    "undefined": "",
    "exact": "",
    "upper_bound": "none: an upper bound by accounting, without sampling",
    "proportion": _BINOMIAL,
    "excess_share": f"{_BINOMIAL}, moved by the promise",
    "odds": f"{_BINOMIAL} of the first count given the sum of both",
    "exposure": f"{_BINOMIAL} of the share of candidates that are as likely",
    "corrected_proportion": f"{_BINOMIAL} of the count, of the misses and of the false alarms, together",
    "worst_corrected_difference": f"{_BINOMIAL} of count, misses and false alarms of every group, over every pair",
    "difference": "an exact test of two binomial counts",
    "weighted_sum": "exact binomial tests of all shares, as one joint region",
    "worst_difference": _OF_PAIRS,
    "worst_ratio": _OF_PAIRS,
    "ratio_to_largest": f"{_OF_PAIRS}, over every group that may be the largest",
    "worst_odds_ratio": _OF_PAIRS,
    "differential_fairness": "exact tests of every ratio of every outcome, inverted together",
    "worst_mean_difference": "exact binomial tests of all rates of a pair, as one joint region, over all pairs",
    "smallest_rate": _OF_GROUPS,
    "largest_rate": _OF_GROUPS,
    "largest_disparity": _OF_PARTS,
    "worst_gap": _OF_PARTS,
    "worst_value_gap": _OF_PARTS,
    "largest_value": _OF_PARTS,
    "largest_gap": _OF_PARTS,
    "lowest_area": _OF_PARTS,
    "largest_drop": _OF_PARTS,
    "strongest_attack": "the tests that the attacks' own bounds invert, each with its share of the level",
    "student_t": "Student's t test; for display, and not judged",
    "standardized_difference": "the noncentral t test; for display, and not judged",
    "bounded_mean": "tests of a mean of bounded values that hold at every size and skew",
    "ratio_between": "tests of two ratios of totals, one below and one above",
    "ratio_of_totals": "tests of bounded means over clusters, of every ratio that none of them rules out",
    "idealized_association": "tests of two bounded means together, over the extremes of both",
    "bracketed_mean": "tests of two bounded means, one below and one above",
    "worst_paired_difference": "tests of bounded paired differences of every pair, together",
    "clustered_mean": _OF_CLUSTERS,
    "clustered_value": _OF_CLUSTERS,
    "worst_clustered_difference": f"{_OF_CLUSTERS}, of every pair of groups",
    "worst_clustered_ratio": f"{_OF_CLUSTERS}, of every pair of groups",
    "smallest_clustered_rate": f"{_OF_CLUSTERS}, of every group",
    "rate_change": "an exact test of the rows gained and lost",
    "gap_change": "exact tests of the rows gained and lost, over every pair of groups",
    "worst_distance": _OF_CURVES,
    "worst_value_distance": _OF_CURVES,
    "calibration_error": "exact binomial tests of all bins, as one joint region",
    "benefit_inequality": f"{_BINOMIAL} of every kind of error, over the extremes of all",
    "area_under_curve": "DeLong's test, with room for rows that were not seen",
    "area_difference": "DeLong's paired test, with room for rows that were not seen",
    "average_precision": "tests of two means of bounded values, combined",
    "true_positive_rate_at": "exact tests of the threshold and of the rate, as one joint region",
    "equal_error_rate": "exact tests of false alarms and misses, as one joint region",
    "quantile": "the sign test of order statistics, exact for any distribution",
    "confirmed_count": "Holm's step-down procedure; a lower bound alone",
    "at_most": f"{_BINOMIAL}; an upper bound alone",
    "at_least": f"{_BINOMIAL}; a lower bound alone",
    "bracket": f"{_BINOMIAL} of what was proved and of what nothing broke",
    "worst_bracket_difference": f"{_BINOMIAL} of what was proved and of what nothing broke, over every pair of groups",
}
