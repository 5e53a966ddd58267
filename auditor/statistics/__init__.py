"""Estimates with uncertainty at every confidence level, and the arithmetic behind them.

A probe measures before anybody knows how many findings a scan will have, so it cannot print an interval: it returns an
:class:`~auditor.statistics.estimate.Estimate`, which keeps the sufficient statistics and answers ``bounds(alpha)``
later, at the level that the whole family of findings allows. Everything else (``interval``, ``p_value``) inverts
``bounds``, so an interval and a judgement made from the same estimate cannot disagree.

Proportions are bounded by Clopper and Pearson's exact method, and their differences and ratios so that no table of
counts of any size breaks the promise. The score intervals of Wilson and Newcombe are the usual choice at 95 %; at the
levels that a family of findings needs they are not safe. Enumerated over all outcomes, Newcombe's one-sided bound at
alpha = 0.001 with groups of 5 and 200 misses the truth 33 times as often as promised, and with 100 and 1,000 five
times; with Clopper-Pearson limits in it, 8 and 2.4 times. The bounds used here miss at most 0.4 times as often as
allowed (``tests/statistics/test_statistics.py`` shows it all).

``intervals`` is the arithmetic on plain arrays, ``random_weights`` that of means of few possible values; ``estimate``
what every estimate can do; ``rates``, ``groups``, ``means``, ``ranks`` and ``distances`` the kinds of them, and
``kinds`` their closed union; ``families`` and ``planning`` what is decided over many of them.
"""
