"""Where jobs collect records from."""
