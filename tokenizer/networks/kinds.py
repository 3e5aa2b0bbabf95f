"""The kinds of tokenizers: their names in checkpoints, and the network of each config."""

from tokenizer.networks.autoencoder import Autoencoder
from tokenizer.networks.base import TokenNetwork
from tokenizer.networks.config import (
    AutoencoderConfig,
    MusikConfig,
    SemanticConfig,
    VQGANConfig,
)
from tokenizer.networks.musik import Musik
from tokenizer.networks.semantic import SemanticTokenizer
from tokenizer.networks.video.config import VideoAutoencoderConfig
from tokenizer.networks.video.video_autoencoder import VideoAutoencoder
from tokenizer.networks.vqgan import VQGAN

PixelConfig = AutoencoderConfig | VQGANConfig | VideoAutoencoderConfig  # with a way back
NetworkConfig = PixelConfig | SemanticConfig | MusikConfig
KINDS: dict[str, type[NetworkConfig]] = {
    "autoencoder": AutoencoderConfig,
    "vqgan": VQGANConfig,
    "video_autoencoder": VideoAutoencoderConfig,
    "semantic": SemanticConfig,
    "musik": MusikConfig,
}
NETWORKS: dict[type, type[TokenNetwork]] = {
    AutoencoderConfig: Autoencoder,
    VQGANConfig: VQGAN,
    VideoAutoencoderConfig: VideoAutoencoder,
    SemanticConfig: SemanticTokenizer,
    MusikConfig: Musik,
}


def build_network(config: NetworkConfig) -> TokenNetwork:
    """The network that a config describes, as it starts."""
    return NETWORKS[type(config)](config)
