"""Agreement of measures with human judgements: values for the rows of a table, statistics, an HTML page."""
