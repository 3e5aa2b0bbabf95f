"""Motion between frames, what does not follow it, and first guesses of frames made with it."""
