"""Our weights to and from the files of others."""
