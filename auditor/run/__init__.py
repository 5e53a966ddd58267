"""The whole audit: configuration, measuring, judging, recording; and the version of the tool."""

__version__ = "0.1.0"
