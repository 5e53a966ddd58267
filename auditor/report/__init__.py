"""Report renderings; each is a function of the record alone."""
