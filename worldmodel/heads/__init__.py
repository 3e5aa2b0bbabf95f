"""Heads on the tokens of a frozen world model: what a frame says of reward, road and end."""
