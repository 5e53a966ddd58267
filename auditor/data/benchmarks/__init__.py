"""Readers of published bias benchmarks for language models: typed examples, with the digests of the files.

The files are the user's (``--benchmark crows_pairs=PATH``); none is shipped or fetched. Every reader raises UsageError
where there is no file, and DataError that names the missing column or key where it is another file.
"""
