"""Tokenizers: frames to tokens and back, alone and over whole drives."""
