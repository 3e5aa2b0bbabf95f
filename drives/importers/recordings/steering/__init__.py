"""Data sets that people learn to steer from: an image per row of a log."""
