"""Drives and token stores on disk: pixels, actions, tokens. No network."""

import training  # noqa: F401  (first: it repairs torchvision before lightning or lpips import it)
