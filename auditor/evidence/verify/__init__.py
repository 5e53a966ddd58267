"""Independent verification of bundles and dossiers: every number is recomputed."""
