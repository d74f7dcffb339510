"""The arithmetic of BERT's sub-layers, by TensorFlow or by the compiled library.

`reference` defines a backend, `choice` chooses the one of each layer.
"""
