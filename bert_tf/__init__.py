"""BERT pre-training and fine-tuning with TensorFlow, Keras 3 and Horovod."""
