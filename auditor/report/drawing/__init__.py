"""Figures as data, and their drawing: identical in every report format."""
