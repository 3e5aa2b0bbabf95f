"""From token grids to smooth video: a diffusion decoder, and one that takes a single pass."""
