"""The training loop: its speed, what it adds, memory, and time lost to kills."""
