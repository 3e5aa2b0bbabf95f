"""The image autoencoder: resolutions of the decoder alone."""

import pytest
import torch

from tokenizer.networks.autoencoder import Autoencoder
from tokenizer.networks.config import AutoencoderConfig, MusikConfig
from training.config import MuonConfig
from training.errors import BadInput
from training.optimization.muon import MuonWithAdamW
from training.optimization.optimizers import build_optimizer


def network_of(*upsampled: int) -> Autoencoder:
    torch.manual_seed(0)
    config = AutoencoderConfig(image_size=(32, 48), patch=4, channels=(8, 16), upsampled=upsampled)
    return Autoencoder(config)


@pytest.mark.parametrize(("upsampled", "patch"), [((), 4), ((8,), 2), ((8, 4), 1)])
def test_the_decoder_alone_has_further_resolutions(upsampled, patch) -> None:
    network = network_of(*upsampled)
    assert network.last_layer.shape == (3 * patch**2, upsampled[-1] if upsampled else 8, 3, 3)
    frames = torch.rand(2, 3, 32, 48) * 2 - 1
    recon, quantized = network(frames)
    assert recon.shape == frames.shape
    assert quantized.indices.shape == (2, 4, 6)  # the grid stays
    gradient = torch.randn_like(recon)
    recon.backward(gradient)
    torch.testing.assert_close(
        network.decoder.last_layer_gradient(gradient), network.last_layer.grad
    )


def test_the_encoder_is_the_same_with_and_without() -> None:
    frames = torch.rand(1, 3, 32, 48) * 2 - 1
    torch.testing.assert_close(network_of(8).latents(frames), network_of().latents(frames))
    assert network_of(8).decoder.state_dict().keys() > network_of().decoder.state_dict().keys()


@pytest.mark.parametrize("upsampled", [(8, 8, 8), (0,)])
def test_resolutions_that_cannot_be_are_refused(upsampled) -> None:
    with pytest.raises(BadInput, match="upsampled"):
        network_of(*upsampled)


def test_musik_has_no_decoder_to_upsample() -> None:
    with pytest.raises(BadInput, match="no decoder"):
        MusikConfig(patch=4, upsampled=(8,))


def test_a_tokenizer_s_kernels_are_muon_s_but_for_the_first_and_the_last():
    network = network_of(8)
    optimizer, _ = build_optimizer(network, MuonConfig(), 10)
    names = {id(p): name for name, p in network.named_parameters()}
    assert isinstance(optimizer, MuonWithAdamW)
    moved = {names[id(p)] for group in optimizer.muon.param_groups for p in group["params"]}
    kernels = {name for name, p in network.named_parameters() if p.ndim == 4}
    rest = {"encoder.layers.0.weight", "encoder.conv_out.weight", "decoder.conv_out.weight"}
    assert moved == kernels - rest
