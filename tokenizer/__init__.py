"""Pixels to tokens and back: drives and clips, quantizers, autoencoders, losses, encoding."""

import training  # noqa: F401  (first: it repairs torchvision before lightning or lpips import it)
