"""Documents to masked sentence pairs."""
