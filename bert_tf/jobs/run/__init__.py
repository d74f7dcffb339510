"""What all jobs share, from a config to a plan and through the steps of a training."""
