"""A tokenizer and a world model of its tokens, trained together on the pixels of drives."""
