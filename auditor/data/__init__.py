"""Audit data: tables, texts, images, sound, groups, counts and identity swaps."""
