"""Provenance statements in a media file: signed Content Credentials and unsigned metadata."""
