"""Guidance: the formula on real logits, its schedules, and that every flag does something."""

from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir

from tokenizer.token_store import TokenSpec
from training.cli import CONFIGS, plain
from training.errors import BadInput
from worldmodel.decoding import Decoder, Guidance, Method, Sampling, rollout
from worldmodel.decoding.guided import GuidedDecoder
from worldmodel.decoding.rollout import METHODS
from worldmodel.dynamics.gpt import GPT, GPTConfig
from worldmodel.dynamics.layout import LayoutConfig
from worldmodel.dynamics.text import TextContext
from worldmodel.evaluation.judge import sampling_from

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
BOTH = {"text_tokens": 2, "text_width": 5}


def make_model(actions: str = "continuous", **layout: int) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        dim=24,
        num_layers=2,
        num_heads=2,
        context_steps=4,
        layout=LayoutConfig(actions, num_bins=8, **layout),
    )
    model = GPT(config, SPEC, num_actions=2).eval()
    for parameter in model.parameters():  # far from the start: no two logits alike
        parameter.data += 0.5 * torch.randn_like(parameter) * (parameter.ndim > 1)
    return model


def make_clip(time: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 11, (2, time, 2, 3), generator=generator)
    return tokens, 3 * torch.randn(2, time + 9, 2, generator=generator)


def make_text(against: int = -1) -> TextContext:
    generator = torch.Generator().manual_seed(2)
    embeddings = 3 * torch.randn(3, 2, 5, generator=generator)
    return TextContext(embeddings, torch.tensor([[0, 0, 1], [1, 1, -1]]), against)


def futures(model: GPT, guidance: Guidance | None, text: TextContext | None = None, horizon=5):
    tokens, actions = make_clip()
    sampling = Sampling(seed=3, guidance=guidance)
    return rollout(model, tokens, actions, horizon, sampling, num_futures=2, captions=text)


@pytest.mark.parametrize("actions", ["continuous", "binned"])
def test_greedy_decoding_takes_the_best_of_the_guided_logits(actions: str) -> None:
    model, guidance = make_model(actions), Guidance(1.5, last_token_share=0.2)
    tokens, given = make_clip()
    guided = rollout(model, tokens, given, 2, Sampling(greedy=True, guidance=guidance))[:, 0]
    clip = torch.cat([tokens, guided], dim=1)
    drop = torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        with_actions, without = model(clip, given)[:, 2:], model(clip, given, drop)[:, 2:]
    t = torch.tensor([1.5 * (1 - 0.8 * i / 5) for i in range(6)])[:, None]
    expected = ((1 + t) * with_actions - t * without).argmax(-1)
    assert torch.equal(guided.flatten(2), expected)
    assert not torch.equal(expected, with_actions.argmax(-1))  # or the formula proves nothing


def test_scale_zero_is_no_guidance_bit_for_bit() -> None:
    model = make_model()
    plain = futures(model, None)
    assert torch.equal(plain, futures(model, Guidance(0.0)))
    assert not torch.equal(plain, futures(model, Guidance(2.0)))


def test_pairs_at_scale_zero_draw_what_single_rows_draw() -> None:
    model = make_model()
    tokens, actions = make_clip()
    plain, pairs = (Decoder(model, Sampling(seed=3)) for _ in range(2))
    guided = GuidedDecoder(pairs, Guidance(0.0))
    for decoder in (plain, guided):
        decoder.start(tokens, actions, num_futures=3)
    for step in range(4):  # beyond the context, so pairs are read anew as well
        action = actions[:, step + 1].repeat_interleave(3, dim=0)
        assert torch.equal(plain.next_frame(action), guided.next_frame(action))


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 3.0},
        {"last_token_share": 0.0},
        {"num_decay_frames": 2},
        {"num_decay_frames": 2, "num_full_frames": 1},
        {"condition": "actions"},
        {"condition": "text"},
        {"negative": "fog"},
    ],
)
def test_every_setting_changes_the_futures(change: dict) -> None:
    model, text = make_model(**BOTH), make_text(against=2)
    plain = Guidance(2.0)
    before = replace(plain, num_decay_frames=2) if "num_full_frames" in change else plain
    silent = replace(text, against=-1)
    first = futures(model, before, silent)
    again = futures(model, before, silent)
    other = futures(model, replace(plain, **change), text if "negative" in change else silent)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_scale_falls_over_tokens_and_frames_as_gaia_1_has_it() -> None:
    linear = Guidance(2.0, last_token_share=0.5).scales(7, 5)
    assert linear == pytest.approx([2, 1.75, 1.5, 1.25, 1])
    decay = Guidance(2.0, num_full_frames=2, num_decay_frames=4)
    levels = [decay.scales(frame, 1)[0] for frame in range(9)]
    assert levels == pytest.approx([2, 2, 2, 1.7071, 1, 0.2929, 0, 0, 0], abs=1e-4)


def test_a_negative_prompt_is_what_the_other_rows_read() -> None:
    model, text = make_model("none", **BOTH), make_text(against=2)
    tokens, _ = make_clip()
    sampling = Sampling(greedy=True, guidance=Guidance(1.5, condition="text", negative="fog"))
    guided = rollout(model, tokens, None, 2, sampling, captions=text)[:, 0]
    clip = torch.cat([tokens, guided], dim=1)
    fog = replace(text, index=torch.full_like(text.index, 2))
    with torch.no_grad():
        asked, other = model(clip, captions=text)[:, 2:], model(clip, captions=fog)[:, 2:]
    assert torch.equal(guided.flatten(2), (2.5 * asked - 1.5 * other).argmax(-1))


def test_what_cannot_be_guided_is_refused(monkeypatch) -> None:
    model, (tokens, actions) = make_model(), make_clip()
    with pytest.raises(BadInput, match=r"guidance.condition=text.*it reads: actions"):
        futures(model, Guidance(1.0, condition="text"))
    with pytest.raises(BadInput, match=r"guidance.condition=both.*it reads: none"):
        futures(make_model("none"), Guidance(1.0))
    with pytest.raises(BadInput, match=r"negative='fog' needs its embedding"):
        futures(make_model(**BOTH), Guidance(1.0, negative="fog"), make_text())
    monkeypatch.setitem(METHODS, "plain", Method(GPT, METHODS["raster"].open))
    with pytest.raises(BadInput, match=r"guidance: plain has none; decode without it, or by: ras"):
        rollout(model, tokens, actions, 1, Sampling(guidance=Guidance(1.0)), method="plain")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": -1.0}, "scale=-1.0"),
        ({"scale": float("inf")}, "scale=inf"),
        ({"condition": "speed"}, "choose one of actions, text, both"),
        ({"last_token_share": 1.5}, "last_token_share=1.5"),
        ({"num_decay_frames": -1}, "num_decay_frames=-1"),
        ({"num_full_frames": 3}, "give num_decay_frames too"),
        ({"negative": "fog", "condition": "actions"}, "choose condition=text"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Guidance(**values)


def test_eval_takes_guidance_from_its_config() -> None:
    overrides = ["ckpt=none", "sampling.guidance.scale=1.5", "sampling.guidance.condition=text"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        values = plain(compose("eval", overrides=overrides).sampling)
    assert sampling_from(values) == Sampling(top_k=50, guidance=Guidance(1.5, condition="text"))
