"""Instances to record files and their metadata, and back."""
