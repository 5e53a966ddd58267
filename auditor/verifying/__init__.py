"""A stranger's check of what an audit left: bundles and dossiers, every number of them anew."""
