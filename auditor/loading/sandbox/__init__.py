"""The sandbox for untrusted files: kernel restrictions, resource limits, and a scratch folder."""
