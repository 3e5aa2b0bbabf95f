"""Judgement: how well a world model predicts, beside what costs nothing and what is possible."""
