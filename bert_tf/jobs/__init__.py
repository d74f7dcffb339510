"""Configs to a finished run; also the Python API."""
