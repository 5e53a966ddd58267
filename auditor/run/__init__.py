"""An audit from beginning to end: asked, measured, judged, recorded; and the version of the tool that does so."""

__version__ = "0.1.0"
