"""Evaluation of world models: scores beside their floors and ceilings."""
