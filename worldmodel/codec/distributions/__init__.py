"""What gives every token its distribution, before it is coded."""
