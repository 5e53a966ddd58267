"""Examination of single media files: file type, provenance, and a detector's verdict with its explanation."""
