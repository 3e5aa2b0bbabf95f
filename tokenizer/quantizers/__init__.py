"""Quantizers: latents <-> integers. One interface (`base`), one file per kind."""
