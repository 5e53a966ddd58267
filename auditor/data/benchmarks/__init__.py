"""Readers of the published bias benchmarks for language models: files in, typed examples out, with the file's digest.

The files are the user's (``--benchmark crows_pairs=PATH``); none is shipped or fetched. Every reader raises UsageError
where there is no file, and DataError that names the missing column or key where it is another file.
"""
