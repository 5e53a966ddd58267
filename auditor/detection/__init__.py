"""What is said of a single file: its kind, its own account of its making, a detector's verdict and why."""
