"""Drives the dream of a checkpoint in a local page: `python -m worldmodel.drive ckpt=...`."""
