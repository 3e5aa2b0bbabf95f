"""Provenance of checkpoints, and the data that they may not be judged on."""
