"""Records and examples to the batches of each step."""
