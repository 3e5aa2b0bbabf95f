"""A dream in one file: the page, the networks in 8 bits, and a small kernel that computes them."""
