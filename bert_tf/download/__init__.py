"""Data sets and published weights from the network, checked and safely unpacked."""
