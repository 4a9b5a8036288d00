"""What a client gets of a finished job to read, to keep or to load elsewhere."""
