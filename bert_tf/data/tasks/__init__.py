"""Files of GLUE, SQuAD and a user's own tasks to token sequences."""
