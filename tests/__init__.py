"""The tests, in the folders of what they test; ``ROOT`` is the checkout that they lie in."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
