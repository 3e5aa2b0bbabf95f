"""The networks of video decoders: a backbone, the kinds, what each learns and how it decodes."""
