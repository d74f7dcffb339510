"""Raw text to documents, sentences and token ids."""
