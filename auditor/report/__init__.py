"""The renderings of a record; each is a function of the record alone."""
