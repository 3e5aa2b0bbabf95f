"""Decoding by small random networks: what is kept, what depends on what, what is refused."""

import math
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from drives.clips.preprocessing import to_uint8
from tokenizer.load import Tokenizer, load_tokenizer
from tokenizer.networks.base import MeaningOnly
from training.errors import BadInput
from worldmodel.env.dream import Dream
from worldmodel.env.pixels import DreamPixels
from worldmodel.env.starts import Start
from worldmodel.evaluation.clip_decoder import ClipDecoder, decode_grids
from worldmodel.load import load_world_model
from worldmodel.video_decoder.config import VideoDecoderModuleConfig, VideoDecodingConfig
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.judge import blended
from worldmodel.video_decoder.motion.drafts import FirstGuess, draft_of
from worldmodel.video_decoder.networks.backbone import patches_of
from worldmodel.video_decoder.networks.config import (
    TASKS,
    DiffusionDecoderConfig,
    OnePassDecoderConfig,
)
from worldmodel.video_decoder.networks.kinds import build_video_decoder
from worldmodel.video_decoder.networks.loss import DecoderLoss
from worldmodel.video_decoder.tasks import DecodingTask, draw_spacings, draw_tasks
from worldmodel.video_decoder.tokens import check_usable

SMALL: dict[str, Any] = {"dim": 16, "num_layers": 1, "num_heads": 2, "patch": 8, "detail": 4}
FAST = VideoDecodingConfig(num_steps=3)


@cache
def tokenizer() -> Tokenizer:
    return load_tokenizer("carracing")


def decoder(kind: type = DiffusionDecoderConfig, how: VideoDecodingConfig = FAST, **settings: Any):
    """A decoder whose zeros are random numbers, so that everything has an effect."""
    spec = tokenizer().spec(10.0)  # opening it draws numbers the first time
    torch.manual_seed(0)
    network = build_video_decoder(kind(**SMALL, **settings), spec).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return TokenVideoDecoder(network.requires_grad_(False), tokenizer(), how)


def grids(num: int = 1, steps: int = 9, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 1000, (num, steps, 8, 8), generator=draw)


def whole(tokens: Tensor, **changes: Any) -> DecodingTask:
    num, steps = tokens.shape[:2]
    none = torch.zeros(num, steps, dtype=torch.bool)
    task = DecodingTask(tokens, tokens >= 0, none, ~none[:, 0], torch.zeros(num).long())
    return replace(task, **changes)


def test_interpolation_keeps_the_frames_it_is_given() -> None:
    tokens = grids(steps=5)
    frames = torch.rand(1, 5, 3, 64, 64) * 2 - 1
    more = decoder().upsample(frames, tokens)
    assert more.shape[1] == 9
    assert torch.equal(more[:, ::2], frames)
    between = more[:, 1::2]
    assert between.abs().max() <= 1
    assert not torch.equal(between, decoder().upsample(-frames, tokens)[:, 1::2])


def test_frames_between_have_no_tokens() -> None:
    """The grids of even frames are read, and nothing takes their place in between."""
    frames = torch.zeros(1, 4, 3, 64, 64)
    made = decoder().upsample(frames, grids(steps=4))
    assert not torch.equal(made, decoder().upsample(frames, grids(steps=4, seed=1)))


def test_one_seed_is_one_video_and_another_is_another() -> None:
    tokens = grids()
    first = decoder().decode(tokens, seeds=[3])
    assert torch.equal(first, decoder().decode(tokens, seeds=[3]))
    assert not torch.equal(first, decoder().decode(tokens, seeds=[4]))
    assert torch.equal(first, decoder(how=replace(FAST, seed=3)).decode(tokens))


def test_a_clip_does_not_depend_on_its_batch() -> None:
    tokens = grids(num=3)
    together = decoder().decode(tokens, seeds=[5, 6, 7])
    alone = decoder().decode(tokens[1:2], seeds=[6])
    assert torch.allclose(together[1:2], alone, atol=1e-4)


@pytest.mark.parametrize(
    "changes", [{"num_steps": 4}, {"overlap": 3}, {"backwards": False}, {"image_weight": 0.0}]
)
def test_every_setting_of_decoding_changes_the_video(changes: dict[str, Any]) -> None:
    how = replace(FAST, image_share=1.0)
    asked = decoder(how=how).decode(grids(steps=12))
    assert not torch.allclose(asked, decoder(how=replace(how, **changes)).decode(grids(steps=12)))


def test_image_mode_is_mixed_in_where_it_is_drawn() -> None:
    """With weight 1 in every pass each frame is decoded alone, whatever its neighbours are."""
    how = replace(FAST, image_share=1.0, image_weight=1.0)
    images = decoder(how=how, tasks=("video",)).network
    tokens, other = grids(steps=7), grids(steps=7)
    other[:, 1:] = grids(steps=6, seed=9)
    noise = torch.randn(1, 7, 3, 64, 64)
    level = torch.full((1,), 0.5)
    alone, beside = (
        images.predict(noise, level, whole(t), noise, None, True) for t in (tokens, other)
    )
    assert torch.equal(alone[:, 0], beside[:, 0])
    mixed, never = (
        decoder(how=replace(how, image_share=s)).decode(grids(steps=7)) for s in (1.0, 0.0)
    )
    assert not torch.equal(mixed, never)


@pytest.mark.parametrize(
    ("tasks", "changes"),
    [
        (["video", "forward", "backward"], {"image_share": 1.0}),
        (["video", "forward"], {"backwards": False}),
        (["video", "backward"], {"backwards": False}),
    ],
)
def test_what_was_not_trained_is_not_decoded_by(tasks: list[str], changes: dict[str, Any]) -> None:
    tokens, other = grids(), replace(FAST, **changes)
    assert torch.equal(
        decoder(tasks=tasks).decode(tokens), decoder(how=other, tasks=tasks).decode(tokens)
    )
    assert not torch.equal(decoder().decode(tokens), decoder(how=other).decode(tokens))


def test_an_overlap_that_leaves_no_new_frame_is_refused_before_anything_is_decoded() -> None:
    with pytest.raises(BadInput, match=r"video\.overlap=7: give 1 to 6"):
        decoder(how=replace(FAST, overlap=7))


def test_the_newest_frame_does_not_depend_on_which_dreams_are_shown() -> None:
    tokens, video = grids(num=2), decoder()
    apart = (video.newest(tokens)[1] - video.newest(tokens[1:])[0]).abs().max()
    assert apart < 1e-3


def test_a_dream_is_shown_by_the_video_decoder_it_is_given() -> None:
    tokens, model = grids(steps=4)[0], load_world_model("carracing")
    none = np.zeros((0, 8, 8), np.int64)
    start = Start("d", 0, tokens, torch.zeros(4, len(model.action_names)), none, "", none)
    shown = []
    for video in (None, decoder()):
        dream = Dream(model, tokenizer(), video=video)
        dream.start([start])
        shown.append(dream.frames())
    assert torch.equal(shown[0][:, 0], decode_grids(tokenizer(), tokens[None, -1]))
    assert torch.equal(shown[1][:, 0], to_uint8(decoder().newest(tokens[None])))
    assert not torch.equal(*shown)


def test_tokens_without_pixels_are_refused() -> None:
    meaning = Mock(spec=Tokenizer, frames_per_step=1, network=Mock(spec=MeaningOnly))
    with pytest.raises(BadInput, match="its tokens have no pixels"):
        check_usable(meaning)


def test_drives_of_a_rollout_are_those_of_its_picture() -> None:
    """A clip alone has the noise of its number among all."""
    tokens, video = grids(num=2), decoder()
    both = ClipDecoder(tokenizer(), tokens, 4, [], video).real()
    alone = ClipDecoder(tokenizer(), tokens[1:], 4, [], video, first_number=1).real()
    other = ClipDecoder(tokenizer(), tokens[1:], 4, [], video).real()
    apart = [(frames[0].float() - both[1].float()).abs().mean() for frames in (alone, other)]
    assert apart[0] < 0.1 < 1 < apart[1]  # levels; a batch rounds otherwise


def test_the_newest_frame_is_that_of_a_window_that_ends_with_it() -> None:
    tokens, video = grids(), decoder(OnePassDecoderConfig)
    newest = video.newest(tokens)
    assert torch.allclose(newest, video.decode(tokens[:, 2:])[:, -1], atol=1e-6)
    short = torch.cat([tokens[:, :1].expand(-1, 5, -1, -1), tokens[:, :2]], dim=1)
    assert torch.allclose(video.newest(tokens[:, :2]), video.decode(short)[:, -1], atol=1e-6)
    page = DreamPixels(tokenizer(), video).fresh().newest(list(tokens.unbind(1)), [])
    assert torch.equal(page[:, 0], to_uint8(newest))
    own = DreamPixels(tokenizer()).newest(list(tokens.unbind(1)), [])
    assert page.shape == own.shape
    assert not torch.equal(page, own)


def test_one_step_ahead_reads_the_real_tokens_before_it() -> None:
    tokens, video = grids(num=2), decoder()
    clips = ClipDecoder(tokenizer(), tokens, 4, [], video)
    ahead = clips.one_step_ahead(grids(num=2, steps=5, seed=1))
    assert ahead.shape == clips.real()[:, 4:].shape
    real = clips.one_step_ahead(tokens[:, 4:])
    newest = to_uint8(video.newest(tokens, seeds=[0, 1]))
    assert torch.equal(real[:, -1], newest)
    assert not torch.equal(ahead[:, -1], newest)


def test_windows_that_are_given_nothing_leave_no_seam() -> None:
    """Of a decoder that reads the whole window: frames in common are a mean of both windows."""
    settings = {"causal": False, "tasks": ("video",)}
    video, tokens = decoder(OnePassDecoderConfig, **settings), grids(steps=12)
    windows = [video.decode(tokens[:, start : start + 7]) for start in (5, 0)]  # from the end
    shared = torch.stack([windows[0][:, :2], windows[1][:, 5:]])
    made = video.decode(tokens)
    weights = torch.tensor([1 / 3, 2 / 3]).view(1, 2, 1, 1, 1)
    assert torch.allclose(made[:, 5:7], torch.lerp(shared[1], shared[0], weights), atol=1e-5)


def test_noise_in_common_changes_training_and_decoding() -> None:
    tokens = grids()
    own, common = (decoder(shared_noise=share) for share in (0.0, 1.0))
    assert not torch.equal(own.decode(tokens), common.decode(tokens))
    frames = torch.rand(1, 7, 3, 64, 64) * 2 - 1
    losses = [
        d.network.loss(
            frames, whole(tokens[:, :7]), None, DecoderLoss(), torch.Generator().manual_seed(0)
        )
        for d in (own, common)
    ]
    assert float(losses[0][0]) != float(losses[1][0])


@pytest.mark.parametrize("kind", [DiffusionDecoderConfig, OnePassDecoderConfig])
def test_neighbours_moved_along_the_motion_are_read(kind: type) -> None:
    made = decoder(kind, draft=True, reach=2)
    assert made.network.patches.in_channels == (10 if kind is OnePassDecoderConfig else 13)
    assert made.decode(grids(steps=8)).shape == (1, 8, 3, 64, 64)


def test_images_are_decoded_without_the_attention_over_time() -> None:
    """Left out, or gated away: both are what the task `image` means."""
    network = decoder().network
    x, level = torch.randn(2, 7, 3, 64, 64), torch.tensor([0.2, 0.9])
    task = whole(grids(num=2, steps=7))
    with torch.no_grad():
        left_out = network(x, task, None, level, alone=True)
        gated = network(x, task.as_images(), None, level)
        video = network(x, task, None, level)
    assert torch.allclose(left_out, gated, atol=1e-6)
    assert not torch.allclose(left_out, video, atol=1e-3)


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_decoder_reads_nothing_after_a_frame(causal: bool) -> None:
    one_pass = decoder(OnePassDecoderConfig, causal=causal)
    tokens = grids(steps=7)
    changed = tokens.clone()
    changed[:, 4:] = grids(steps=3, seed=2)
    first, second = one_pass.decode(tokens), one_pass.decode(changed)
    assert torch.allclose(first[:, :4], second[:, :4], atol=1e-6) == causal
    assert not torch.allclose(first[:, 4:], second[:, 4:], atol=1e-3)


def test_a_draft_that_is_not_changed_is_the_tokenizers_own_video() -> None:
    torch.manual_seed(0)
    network = build_video_decoder(OnePassDecoderConfig(**SMALL, draft=True), tokenizer().spec(10.0))
    untrained = TokenVideoDecoder(network.eval(), tokenizer())
    tokens = grids()
    own = tokenizer().decode(tokens[0])
    assert torch.allclose(untrained.decode(tokens)[0], own, atol=1e-5)
    with torch.no_grad():
        dropped = whole(tokens[:, :7], has_token=torch.zeros(1, 7, 8, 8, dtype=torch.bool))
        own = untrained.tokenizer.decode(tokens[:, :7])
        draft = draft_of(dropped, torch.zeros_like(own), own)
        assert not draft.is_there.any()
        assert not network.frames(dropped, torch.zeros_like(own), draft).any()


def test_an_untrained_decoder_with_a_draft_interpolates_by_blending() -> None:
    torch.manual_seed(0)
    settings = OnePassDecoderConfig(
        **SMALL, draft=True, causal=False, tasks=("video", "interpolation")
    )
    network = build_video_decoder(settings, tokenizer().spec(10.0)).eval()
    frames = torch.rand(1, 5, 3, 64, 64) * 2 - 1
    made = TokenVideoDecoder(network, tokenizer()).upsample(frames, grids(steps=5))
    assert torch.allclose(made, blended(frames), atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "predicts", "said"),
    [("cosine", "v", None), ("straight", "x0", None), ("straight", "v", (0.5, 0.4))],
)
def test_a_diffusion_decoder_samples_what_its_network_says(
    schedule: str, predicts: str, said: tuple[float, float] | None
) -> None:
    """Frames are normal around the draft: untrained by its units, then by mean and std said."""
    torch.manual_seed(0)
    settings = {"schedule": schedule, "predicts": predicts, "draft_std": 0.05}
    config = DiffusionDecoderConfig(**SMALL, draft=True, **settings)
    network = build_video_decoder(config, tokenizer().spec(10.0)).eval().requires_grad_(False)
    mean, std = said or (0.0, 1.0)
    if said is not None:
        network.join[-1].bias[:3] = mean
        network.join[-1].bias[3:] = 3 * math.atanh(math.log(std) / 3)
    how = VideoDecodingConfig(num_steps=60, image_weight=0.0)
    tokens, given = grids(steps=7) * 0 + 500, torch.zeros(1, 7, 3, 64, 64)
    task, own = whole(tokens), tokenizer().decode(tokens[0])[None]
    draft = draft_of(task, given, own)
    spread = network.prior(draft, given)[1]
    off = (TokenVideoDecoder(network, tokenizer(), how).decode(tokens) - own) / spread
    assert float(off.mean()) == pytest.approx(mean, abs=0.03)
    assert float(off.std()) == pytest.approx(std, abs=0.05)
    frames = own + spread * (mean + std * torch.randn(own.shape))
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    loss, _ = network.loss(frames, task, draft, DecoderLoss(0.0, 1.0), draws[0])
    level = torch.rand(1, generator=draws[1])
    (alpha, sigma), (f, n) = network.diffusion.scales(level), network.diffusion.weights(level)
    open_still = std**2 / (alpha**2 * std**2 + sigma**2) * (alpha * n - sigma * f) ** 2
    assert float(loss) == pytest.approx(float(open_still), rel=0.05)


@pytest.mark.parametrize("layers", [0, 2])
def test_the_level_of_noise_is_told_to_single_pixels(layers: int) -> None:
    """By the layers at full size: without what the patches say, only they depend on it."""
    network, task = decoder(pixel_layers=layers).network, whole(grids(num=2, steps=7))
    network.to_detail.weight.zero_()
    x = torch.randn(2, 7, 3, 64, 64)
    low, high = (network(x, task, None, torch.full((2,), level)) for level in (0.2, 0.9))
    assert torch.allclose(low, high, atol=1e-3) == (layers == 0)
    assert not decoder(OnePassDecoderConfig).network.pixels


def test_a_draft_leaves_more_open_where_it_has_contrast() -> None:
    """A step of 0.6 between three and six of 3x3 pixels: their variance is 0.6^2 * 2 / 9 = 0.08."""
    frames = torch.full((1, 7, 3, 64, 64), -0.3)
    frames[..., 32:] = 0.3
    there = torch.ones(1, 7, 1, 64, 64, dtype=torch.bool)
    there[..., :8] = False
    mean, spread = decoder(draft=True, draft_std=0.1).network.prior(
        FirstGuess(frames, there), frames
    )
    assert torch.equal(mean, frames)
    expected = torch.full((64,), 0.1)
    expected[31:33], expected[:8] = (0.1**2 + 0.08) ** 0.5, 0.5
    assert torch.allclose(spread[0, 0, 0, 20], expected, atol=1e-5)


def test_one_pass_has_no_noise_in_it() -> None:
    """Pure noise tells nothing of the frames, so no network can make them depend on it."""
    how = VideoDecodingConfig(num_steps=1, image_weight=0.0)
    tokens = grids(steps=7)
    one, two = (decoder(how=how, draft=True).decode(tokens, seeds=[seed]) for seed in (3, 4))
    assert torch.allclose(one, two, atol=1e-5)


def test_a_loss_is_the_weighted_sum_of_its_terms() -> None:
    """Of frames that are asked for: given ones have no share in it."""
    tokens = grids(steps=7)
    frames = torch.rand(1, 7, 3, 64, 64) * 2 - 1
    one_pass = decoder(OnePassDecoderConfig).network

    def apart(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().amax((1, 2, 3))

    weights = {"l1": 0.2, "l2": 0.3, "change": 0.5, "lpips": 0.7}
    how = DecoderLoss(*(weights[n] for n in ("l1", "l2", "lpips", "change")), perceptual=apart)
    loss, terms = one_pass.loss(frames, whole(tokens), None, how)
    assert terms.keys() == weights.keys()
    assert float(loss) == pytest.approx(sum(w * float(terms[n]) for n, w in weights.items()))
    given = torch.arange(7)[None] < 6
    last = one_pass.loss(frames, whole(tokens, is_given=given), None, DecoderLoss(1.0, 0.0))[0]
    made = one_pass.frames(whole(tokens, is_given=given), frames, None)
    assert float(last) == pytest.approx(float((made - frames)[:, 6].abs().mean()), rel=1e-5)
    diffusion = decoder().network
    draw = [torch.Generator().manual_seed(0) for _ in range(2)]
    either = [
        diffusion.loss(frames, whole(tokens), None, DecoderLoss(*pair), generator)
        for pair, generator in zip(((1.0, 0.0), (0.0, 1.0)), draw, strict=True)
    ]
    assert [float(loss) for loss, _ in either] == [float(either[0][1][n]) for n in ("l1", "l2")]


def test_tasks_are_drawn_evenly_and_given_frames_fit_them() -> None:
    tokens = grids(num=1, steps=7).expand(4000, -1, -1, -1)
    draw = torch.Generator().manual_seed(0)
    task = draw_tasks(tokens, torch.zeros(4000).long(), TASKS, 0.15, draw)
    given = task.is_given
    images = ~task.is_video
    ends = given[:, 0] & given[:, 2] & ~given[:, 1] & given[:, 6]
    between = ends & ~task.has_token[:, 1].flatten(1).any(1)
    forward, backward = given[:, 0] & ~ends, given[:, 6] & ~ends
    video = task.is_video & ~given.any(1)
    shares = [float(kind.float().mean()) for kind in (images, video, forward, backward, between)]
    assert shares == pytest.approx([0.2] * 5, abs=0.03)
    assert torch.equal(ends, between)
    assert not (given & images[:, None]).any()
    assert given[forward].sum(1).unique().tolist() == [1, 2, 3, 4, 5, 6]
    kept = task.has_token[~between].float().mean()
    assert float(kept) == pytest.approx(0.85, abs=0.01)


def test_windows_are_cut_at_every_spacing_and_place() -> None:
    clips = torch.arange(25, dtype=torch.uint8).view(1, 25, 1, 1, 1).expand(300, -1, 3, 2, 2)
    frames, rate = draw_spacings(clips, 7, (1, 2, 4), torch.Generator().manual_seed(0))
    steps = frames[..., 0, 0, 0].long().diff(dim=1)
    assert torch.equal(steps, torch.tensor([1, 2, 4])[rate][:, None].expand(-1, 6))
    assert set(frames[rate == 0][:, 0, 0, 0, 0].tolist()) == set(range(19))
    assert frames.max() == 24


def test_a_spacing_is_told_to_the_network() -> None:
    made = [decoder().decode(grids(), fps=fps) for fps in (10.0, 5.0)]
    assert not torch.equal(*made)


def test_what_does_not_fit_is_refused() -> None:
    small = decoder()
    for fps, told in ((3.0, r"fps=3: .* at 10, 5, 2.5"), (4.9, "no multiple"), (-5.0, "fps=-5")):
        with pytest.raises(BadInput, match=told):
            small.decode(grids(), fps=fps)
    with pytest.raises(BadInput, match="6 frames are shorter than"):
        small.decode(grids(steps=6))
    with pytest.raises(BadInput, match=r"tokens are \(1, 9, 4, 8\)"):
        small.decode(grids()[:, :, :4])
    with pytest.raises(BadInput, match=r"in 0\.\.999"):
        small.decode(grids() + 500)
    with pytest.raises(BadInput, match="give one for each of the 2 clips"):
        small.decode(grids(num=2), seeds=[1])
    with pytest.raises(BadInput, match=r"was trained on tokens of .* not of"):
        TokenVideoDecoder(small.network, load_tokenizer("udacity"))
    with pytest.raises(BadInput, match="was not trained to interpolate"):
        decoder(tasks=("video",)).upsample(torch.zeros(1, 9, 3, 64, 64), grids())


def test_settings_that_exclude_each_other_are_refused() -> None:
    from training.config import AdamWConfig

    spec = tokenizer().spec(10.0)
    with pytest.raises(BadInput, match=r"patch=5: .* cells of 8 pixels"):
        patches_of(DiffusionDecoderConfig(patch=5), spec)
    with pytest.raises(BadInput, match=r"halvings=4: .* 8 pixels are left on a side"):
        patches_of(OnePassDecoderConfig(draft=True, reach=2, halvings=4), spec)
    with pytest.raises(BadInput, match="its step stands for 4 frames"):
        patches_of(DiffusionDecoderConfig(), replace(spec, frames_per_step=4))
    with pytest.raises(BadInput, match=r"spacings=\[2, 4\]: 1 has to be among them"):
        OnePassDecoderConfig(spacings=[2, 4])
    with pytest.raises(BadInput, match="window_frames=6: give an odd number"):
        DiffusionDecoderConfig(window_frames=6)
    with pytest.raises(BadInput, match="backward and interpolation give later frames"):
        OnePassDecoderConfig(tasks=TASKS)
    with pytest.raises(BadInput, match=r"perceptual_weight=1\.0: compares frames"):
        VideoDecoderModuleConfig(
            network=DiffusionDecoderConfig(), optimizer=AdamWConfig(), perceptual_weight=1.0
        )
