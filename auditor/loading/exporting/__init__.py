"""Export of a model as one file that does not need auditor: encoding, network and group rule together."""
