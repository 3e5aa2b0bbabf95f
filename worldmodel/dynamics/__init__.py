"""Kinds of world models, all asked through `base.Dynamics`."""
