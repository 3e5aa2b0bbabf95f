"""Tokens that a world model dreams, by both decoders: which frames are judged, what is refused."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tokenizer.load import load_tokenizer
from tokenizer.metrics import psnr
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.dreams import compare_dreams, dreamt, open_dreamer, prompt_of
from worldmodel.video_decoder.judge import RecordedClips, VideoJudge
from worldmodel.video_decoder.networks.config import OnePassDecoderConfig
from worldmodel.video_decoder.networks.kinds import build_video_decoder

PROMPT, STEPS = 3, 6
GREEDY = Sampling(greedy=True)


@cache
def decoder(name: str = "carracing", fps: float = 10.0) -> TokenVideoDecoder:
    torch.manual_seed(0)
    tokenizer = load_tokenizer(name)
    config = OnePassDecoderConfig(
        dim=16, num_layers=1, num_heads=2, patch=8, detail=4, window_frames=5, spacings=(1,)
    )
    network = build_video_decoder(config, tokenizer.spec(fps)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return TokenVideoDecoder(network.requires_grad_(False), tokenizer)


def clips(steering: float = 0.0) -> RecordedClips:
    frames = torch.rand(1, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    frames = frames * torch.linspace(0.9, 1, STEPS)[:, None, None, None]

    def rows(names: Any) -> Any:
        return torch.full((STEPS, len(names)), steering).numpy()

    drive: Any = SimpleNamespace(id="d", select_actions=rows)
    return RecordedClips(frames, [(drive, 0)])


def test_a_prompt_is_kept_and_what_follows_is_dreamt_under_the_recorded_actions() -> None:
    model, tokens = open_dreamer("carracing", decoder()), decoder().tokenizer.encode(clips().frames)
    asked = (tokens, PROMPT, GREEDY, {})
    still, turned = dreamt(model, clips(), *asked), dreamt(model, clips(0.8), *asked)
    assert still.shape == tokens.shape
    assert torch.equal(still[:, :PROMPT], tokens[:, :PROMPT])
    assert not torch.equal(still[:, PROMPT:], tokens[:, PROMPT:])
    assert not torch.equal(still, turned)


def test_rows_are_of_the_frames_after_the_prompt_by_both_decoders() -> None:
    frames = clips().frames
    tokens = decoder().tokenizer.encode(frames)
    dreams = torch.cat([tokens[:, :PROMPT], tokens[:, PROMPT:].flip(1)], 1)
    judge = VideoJudge(frames[:, PROMPT:], None)
    found = compare_dreams(decoder(), judge, tokens, dreams)
    rows = {(row["tokens"], row["name"]): row for row in found.rows}
    assert list(rows) == [
        ("-", "recorded"),
        ("recorded", "tokenizer"),
        ("recorded", "video decoder"),
        ("dreamt", "tokenizer"),
        ("dreamt", "video decoder"),
        ("-", "last given frame, held"),
    ]
    own = decoder().tokenizer.decode(tokens)[0, PROMPT:]
    value = rows["recorded", "tokenizer"]["psnr"]
    assert value == pytest.approx(psnr(own, frames[0, PROMPT:]).mean().item())
    assert len({row["psnr"] for row in rows.values()}) == 6
    held = found.videos["- last given frame, held"]
    assert torch.equal(held[:, 0], held[:, -1])


def test_models_of_other_tokens_or_another_rate_and_long_prompts_are_refused() -> None:
    with pytest.raises(BadInput, match=r"has tokens of .*; give one of the same tokenizer"):
        open_dreamer("carracing", decoder("udacity"))
    with pytest.raises(BadInput, match="has 10 frames per second, and the video decoder 20"):
        open_dreamer("carracing", decoder(fps=20.0))
    with pytest.raises(BadInput, match="world_model=nothing: no such run or checkpoint"):
        open_dreamer("nothing", decoder())
    model = open_dreamer("carracing", decoder())
    context = model.network.config.context_steps
    assert prompt_of(model, None, 33) == max(2, context // 2)
    for prompt, frames in ((context + 1, 33), (2, 4)):
        with pytest.raises(BadInput, match=f"prompt_steps={prompt}: "):
            prompt_of(model, prompt, frames)
    assert prompt_of(model, 2, 5) == 2
