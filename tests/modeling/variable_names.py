"""The names in google-research/bert's published checkpoints, for two layers."""

PER_LAYER = """
attention/self/query/kernel attention/self/query/bias
attention/self/key/kernel attention/self/key/bias
attention/self/value/kernel attention/self/value/bias
attention/output/dense/kernel attention/output/dense/bias
attention/output/LayerNorm/gamma attention/output/LayerNorm/beta
intermediate/dense/kernel intermediate/dense/bias
output/dense/kernel output/dense/bias output/LayerNorm/gamma output/LayerNorm/beta
""".split()
ENCODER = [
    *"""
bert/embeddings/word_embeddings bert/embeddings/token_type_embeddings
bert/embeddings/position_embeddings
bert/embeddings/LayerNorm/gamma bert/embeddings/LayerNorm/beta
bert/pooler/dense/kernel bert/pooler/dense/bias
""".split(),
    *(f"bert/encoder/layer_{n}/{name}" for n in range(2) for name in PER_LAYER),
]
HEADS = """
cls/predictions/transform/dense/kernel cls/predictions/transform/dense/bias
cls/predictions/transform/LayerNorm/gamma cls/predictions/transform/LayerNorm/beta
cls/predictions/output_bias
cls/seq_relationship/output_weights cls/seq_relationship/output_bias
""".split()
