"""The kernel's sandbox of the measuring process: what it may open, and what it may ask of the kernel at all."""
