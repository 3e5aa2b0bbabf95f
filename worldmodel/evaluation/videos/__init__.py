"""The ruler: scores of two folders of videos of any system; no Lightning, no Hydra, no model."""
