"""From a distribution over the next grid to futures: every way to decode, behind one door."""

from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.config import Guidance, Sampling
from worldmodel.decoding.diagonal import DiagonalDecoder
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.rollout import METHODS, Method, open_decoder, rollout
from worldmodel.decoding.sampling import sample
from worldmodel.decoding.speculative import SpeculativeDecoder
from worldmodel.decoding.weights import for_decoding

__all__ = [
    "METHODS",
    "Decoder",
    "DiagonalDecoder",
    "FrameDecoder",
    "Guidance",
    "Method",
    "Sampling",
    "SpeculativeDecoder",
    "for_decoding",
    "open_decoder",
    "rollout",
    "sample",
]
