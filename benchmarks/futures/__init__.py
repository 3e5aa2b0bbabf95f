"""World models at work: decoding, the codec, occupancy models, dreams that are driven."""
