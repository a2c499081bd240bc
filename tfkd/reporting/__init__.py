"""Statistics, tables and figures from rows of results."""
