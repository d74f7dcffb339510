"""Predictions of a model, the answers made of them, and their scores."""
