"""Reports of finished jobs, to read, keep or load into other programs."""
