"""How well measures agree with people: values for the rows of a table, statistics, a page."""
