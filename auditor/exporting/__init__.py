"""A model as one file that needs no auditor: encoding, network and group rule together."""
