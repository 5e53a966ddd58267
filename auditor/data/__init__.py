"""Rows to be audited and what is known of them: tables, texts, pictures, sound, groups, counts, swaps."""
