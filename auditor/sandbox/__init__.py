"""The process that opens what is not trusted: the kernel's rules around it, its limits, its scratch folder."""
