"""Questions about language models: one module a probe, one a published benchmark."""
