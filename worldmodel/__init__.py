"""Tokens to futures: windows, networks, decoding, rollouts, evaluation, codec, environment."""

import training  # noqa: F401  (first: it repairs torchvision before lightning or lpips import it)
