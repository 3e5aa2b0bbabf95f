"""Where a checkpoint comes from, and what it may not be judged on."""
