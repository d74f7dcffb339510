"""From losses to new weights: gradients, optimizers, schedules, checkpoints, logs."""
