"""Frames of drives at a network's size: cut into clips, scaled, cached, streamed, balanced."""
