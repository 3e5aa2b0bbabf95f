"""Near-duplicates: the same footage in two splits, re-encoded, cropped or at another rate."""
