"""The nouns of an audit: model, data, statistics, finding, run, report, evidence."""

__version__ = "0.1.0"
