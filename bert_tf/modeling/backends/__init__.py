"""How the sub-layers of BERT are computed: by TensorFlow, or by the compiled library.

`interface` says what a backend does, `choice` chooses the one of each layer.
"""
