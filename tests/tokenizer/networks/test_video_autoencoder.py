"""The causal video autoencoder: nothing sees the future, and chunks equal the whole."""

import pytest
import torch
from einops import rearrange

from tokenizer.networks.kinds import build_network
from tokenizer.networks.video.blocks import TimeAttention
from tokenizer.networks.video.causal_conv import PastFrames
from tokenizer.networks.video.config import VideoAutoencoderConfig
from tokenizer.networks.video.haar import haar, inverse_haar
from tokenizer.networks.video.video_autoencoder import VideoAutoencoder
from tokenizer.quantizers.config import FSQConfig
from training.errors import BadInput

SIZE = (16, 24)


def config(**changes) -> VideoAutoencoderConfig:
    values = {
        "image_size": SIZE,
        "quantizer": FSQConfig((15, 15, 9)),
        "clip_frames": 9,
        "time_downsampling": 4,
        "space_downsampling": 8,
        "patch": 2,
        "channels": 8,
        "multipliers": (1, 2, 2),
        "num_res_blocks": 1,
        "latent_channels": 4,
        "attention_levels": (1,),
    }
    return VideoAutoencoderConfig(**{**values, **changes})


def network(**changes) -> VideoAutoencoder:
    torch.manual_seed(0)
    built = build_network(config(**changes)).eval()
    for name, parameter in built.named_parameters():
        # Residual branches, attention and codes must all matter, or the tests below see nothing.
        parameter.data += 0.1 * torch.randn_like(parameter)
        if "to_codes.weight" in name:
            parameter.data *= 12
    return built


def clip(frames: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(frames, 3, 4, 6, generator=generator) * 2 - 1  # noise would average out
    return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.mark.parametrize(
    ("time", "space", "patch", "multipliers"),
    [(8, 16, 4, (1, 1, 1)), (8, 8, 4, (1, 1, 1)), (4, 8, 2, (1, 1, 1)), (1, 8, 1, (1, 1, 1, 1))],
)
@pytest.mark.parametrize("early", [False, True])
def test_every_frame_comes_back_and_17_make_the_stated_grids(
    time, space, patch, multipliers, early
):
    built = network(
        image_size=(32, 48),
        clip_frames=17,
        time_downsampling=time,
        space_downsampling=space,
        patch=patch,
        multipliers=multipliers,
        attention_levels=(),
        early_upsampling=early,
    )
    frames = torch.rand(34, 3, 32, 48) * 2 - 1
    fake, quantized = built(frames)
    steps = 1 + 16 // time
    assert fake.shape == frames.shape
    assert quantized.indices.shape == (2, steps, 32 // space, 48 // space)
    assert built.config.steps_per_clip == steps
    assert built.config.grid == (1, 32 // space, 48 // space)
    clips = rearrange(frames, "(b t) c h w -> b t c h w", t=17)
    assert torch.equal(quantized.indices, built.encode(clips))
    torch.testing.assert_close(
        rearrange(built.decode(quantized.indices), "b t c h w -> (b t) c h w"), fake.clamp(-1, 1)
    )
    assert built.flops_per_frame > 0


def test_haar_keeps_constants_and_is_undone():
    x = torch.rand(2, 3, 4, 8, 6)
    assert haar(x).shape == (2, 24, 2, 4, 3)
    torch.testing.assert_close(inverse_haar(haar(x)), x)
    assert torch.equal(haar(torch.ones(1, 1, 2, 2, 2)).flatten(), torch.eye(8)[0])


def test_nothing_depends_on_the_future():
    built, frames = network(), clip(17)
    changed = frames.clone()
    changed[9:] = clip(8, seed=2)
    tokens, others = built.encode(frames), built.encode(changed)
    assert torch.equal(tokens[:3], others[:3])
    assert not torch.equal(tokens[3:], others[3:])
    pixels, pixels_others = built.decode(tokens), built.decode(torch.cat([tokens[:3], others[3:]]))
    torch.testing.assert_close(pixels[:9], pixels_others[:9])
    assert not torch.allclose(pixels[9:], pixels_others[9:], atol=1e-3)


@pytest.mark.parametrize("attention_steps", [0, 4])
def test_in_bfloat16_too_attention_does_not_see_where_a_stream_is_cut(attention_steps):
    torch.manual_seed(0)
    attention = TimeAttention(64, attention_steps).bfloat16()
    x = torch.randn(1, 64, 17, 16, 16).bfloat16()
    with torch.no_grad():
        whole, past = attention(x, PastFrames()), PastFrames()
        parts = [attention(part, past) for part in x.split(3, 2)]
    assert torch.equal(torch.cat(parts, 2), whole)


def test_the_first_frame_stands_alone():
    built, frames = network(), clip(9)
    assert torch.equal(built.encode(frames)[:1], built.encode(frames[:1]))
    assert built.decode(built.encode(frames[:1])).shape == (1, 3, *SIZE)


@pytest.mark.parametrize(
    ("batch", "steps"), [(1, 0), (4, 0), (16, 0), (1, 2), (3, 2), (7, 2), (21, 2)]
)
def test_a_stream_gives_the_tokens_and_frames_of_the_whole(batch, steps):
    built, frames = network(attention_steps=steps), clip(21)
    whole = built.encode(frames)
    streamed = torch.cat(list(built.encode_stream(frames.split(batch))))
    assert torch.equal(whole, streamed)
    assert len(whole.unique()) > 15
    pixels = torch.cat(list(built.decode_stream(whole.split(max(1, batch // 3)))))
    torch.testing.assert_close(pixels, built.decode(whole), atol=1e-5, rtol=0)


def test_latents_of_a_stream_equal_the_whole_to_float_precision():
    built, frames = network(), rearrange(clip(17), "t c h w -> 1 c t h w")
    past = PastFrames()
    with torch.no_grad():
        whole = built.encoder(frames)
        parts = [built.encoder(frames[:, :, :1], past)]
        past.begun = True
        parts += [built.encoder(part, past) for part in frames[:, :, 1:].split(8, 2)]
    torch.testing.assert_close(torch.cat(parts, 2), whole, atol=1e-5, rtol=0)


def test_frames_short_of_a_step_are_left_out():
    built = network()
    assert sum(map(len, built.encode_stream(clip(20).split(6)))) == 5
    assert list(built.encode_stream([])) == []


def test_the_memory_of_a_stream_is_bounded_by_attention_steps():
    frames = clip(33)
    sizes = {}
    for steps in (0, 2):
        built, past = network(attention_steps=steps), PastFrames()
        built.encode(frames[:17], past)
        before = sum(t.numel() for t in past.values())
        built.encode(frames[17:], past)
        sizes[steps] = sum(t.numel() for t in past.values()) - before
    assert sizes[0] > 0
    assert sizes[2] == 0


def test_attention_looks_back_as_far_as_it_is_told():
    frames = clip(17)
    assert not torch.equal(network().encode(frames), network(attention_steps=1).encode(frames))


def test_attention_levels_are_built_where_they_are_asked_for():
    names = [network(attention_levels=levels).state_dict().keys() for levels in ((), (0, 2))]
    assert len(names[1]) > len(names[0])


def test_early_upsampling_doubles_time_one_level_earlier():
    late, early = (network(early_upsampling=flag).decoder.state_dict() for flag in (False, True))
    assert late.keys() != early.keys()


def test_the_last_layers_gradient_is_autograds():
    built = network()
    frames = torch.cat([clip(9, 1), clip(9, 2)])
    fake, _ = built(frames)
    direction = torch.randn_like(fake)
    (fake * direction).sum().backward()
    expected = built.last_layer.grad.flatten(1)[:, :, None, None]
    torch.testing.assert_close(built.decoder.last_layer_gradient(direction), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_frames": 8}, "clip_frames=8"),
        ({"image_size": (20, 24)}, r"image_size=\[20, 24\]"),
        ({"patch": 3}, "patch=3"),
        ({"time_downsampling": 16}, "time_downsampling=16"),
        ({"space_downsampling": 1}, "space_downsampling=1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        config(**changes)


def test_wrong_clips_are_refused():
    built = network()
    with pytest.raises(BadInput, match="1 \\+ a multiple of 4"):
        built.encode(clip(8))
    past = PastFrames()
    built.encode(clip(1), past)
    with pytest.raises(BadInput, match="takes a multiple of 4"):
        built.encode(clip(5), past)
    with pytest.raises(BadInput, match=r"\(16, 24\)"):
        built.encode(torch.zeros(9, 3, 16, 16))
    with pytest.raises(BadInput, match="clips of 9"):
        built(clip(10))
