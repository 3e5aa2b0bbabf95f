"""Worlds that a planner plays in, one file each; they share the two protocols of `episode`."""
