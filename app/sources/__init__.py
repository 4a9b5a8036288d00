"""The sources that jobs collect records from."""
