"""Batch to logits to loss: the Keras model of BERT."""
