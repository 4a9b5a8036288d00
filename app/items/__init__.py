"""Items: the smallest resource that is kept in Postgres."""
