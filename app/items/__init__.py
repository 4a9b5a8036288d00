"""Items: the smallest resource stored in Postgres."""
