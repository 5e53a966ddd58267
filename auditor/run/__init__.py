"""An audit from beginning to end: asked, measured, judged, recorded."""
