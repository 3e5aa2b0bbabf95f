"""Images and their grids of tokens: what all tokenizers have to say about sizes."""
