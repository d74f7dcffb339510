"""`evaluate suite`: inputs, a model that scores them, and the rows of a table."""
