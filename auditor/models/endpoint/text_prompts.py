"""Text prompts for a model to continue: passages of this tool, cut in the middle of a sentence."""

from __future__ import annotations

import numpy as np

# Of many subjects, so that the next word is open; none holds a name, a date or anything of a user's.
_PASSAGES = (
    "When the last ferry had left the island, the keeper of the small museum locked the door and walked along the "
    "harbour wall, where the fishermen were mending their nets and talking about the weather, the price of fuel "
    "and",
    "A good loaf of bread needs very little: flour, water, salt and time. Most people who bake at home hurry the "
    "dough, and then wonder why the crust is pale, the crumb is dense and the taste is",
    "The committee met for the third time on a rainy afternoon and agreed on almost nothing. Some members wanted "
    "to repair the old bridge, others hoped to build a new one further down the river, and a few said that",
    "In the mountains the first snow often comes before the leaves have fallen. The farmers bring their animals "
    "down from the high meadows, stack wood against the southern wall and check whether the roof will",
    "To learn an instrument as an adult is a lesson in patience. The fingers do not do what the ear asks of them, "
    "the neighbours complain, and yet after some months there comes an evening on which",
    "The library bought a machine that could read old handwriting, and for a week everybody brought letters from "
    "their attics. There were recipes, bills, a poem about a dog, two proposals of marriage and",
    "Water that falls on a city has few places to go. Streets and roofs carry it into pipes that were laid a "
    "century ago, and after a heavy storm these are full within minutes, so that engineers now plan",
    "My uncle repaired clocks in a shop behind the station, and he claimed that every clock had a temper of its "
    "own. Some ran fast before a storm, some stopped whenever a visitor stayed too long, and one of them",
    "Bees find their way home by the sun, by landmarks and by smell. When a hive is moved only a short distance "
    "in summer, many of its workers return to the old place and fly in circles, because they",
    "The report lists four causes of the delay, of which the first two are well known. Parts arrived late and "
    "were of the wrong size; the third cause is more surprising, since nobody had expected that",
    "At the edge of the desert there is a town where it rains on about ten days of the year. Its people have "
    "learned to keep every drop: cisterns lie under the courtyards, and in the gardens they grow",
    "On the first day of the course the teacher asked us to draw a chair without looking at the paper. We laughed "
    "at the results, but she hung all of them on the wall and explained that seeing is",
)
_SHORTEST = 6


def openings(n: int, rng: np.random.Generator) -> list[str]:
    """``n`` prompts in random order, all different as long as there are enough."""
    words = [passage.split() for passage in _PASSAGES]
    every = [" ".join(some[:end]) for some in words for end in range(_SHORTEST, len(some) + 1)]
    found: list[str] = []
    while len(found) < n:
        found += [every[i] for i in rng.permutation(len(every))]
    return found[:n]
