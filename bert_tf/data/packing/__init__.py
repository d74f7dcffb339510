"""Several sequences in one row: the plan, and the layout of rows."""
