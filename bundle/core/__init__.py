"""Files, output, shapes of data, and what people see; imports `errors` only."""
