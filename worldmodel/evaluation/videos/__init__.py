"""The ruler: scores of two folders of videos of any system; needs no Lightning, Hydra or model."""
