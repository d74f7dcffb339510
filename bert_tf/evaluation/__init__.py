"""Model to numbers."""
