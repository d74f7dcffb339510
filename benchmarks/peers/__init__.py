"""Training and prediction by each system, behind one protocol; see `worker`."""
