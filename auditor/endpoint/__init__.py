"""A model behind a URL: what is sent to it, what comes back, and what its server does with what it is told."""
