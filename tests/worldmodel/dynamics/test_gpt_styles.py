"""From GPT-2 to Llama: every setting does something, and decoding knows all of them."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT, GPTConfig
from worldmodel.dynamics.kinds import describe, from_description
from worldmodel.dynamics.text import TextContext

SPEC = TokenSpec((1, 2, 3), 12, 10.0, 1, (16, 24), "test")
PLAIN = GPTConfig(
    dim=24, num_layers=2, num_heads=4, context_steps=4, look_back=0, tie_embeddings=False
)
BARE = LayoutConfig(separator=False)
LLAMA = replace(
    PLAIN, norm="rms", mlp="swiglu", num_kv_heads=2, head_channels=8, qk_norm_eps=1e-5, layout=BARE
)
YARN: dict[str, Any] = {"yarn_scale": 4.0, "yarn_original": (20, 20)}
STYLES = {
    "llama": LLAMA,
    "cosmos": replace(LLAMA, sinusoid=True, **YARN),
    "text": replace(LLAMA, context_dim=5, cross_every=2),
    "vavim": replace(PLAIN, positions="factored", attention_scale=0.2, layout=BARE),
    "factored positions and separators": replace(PLAIN, positions="factored"),
    "factors": replace(PLAIN, factors=(2, 3, 2)),
}


def make(config: GPTConfig, like: GPT | None = None) -> GPT:
    """A network far from its start; with the weights of `like` wherever they fit."""
    torch.manual_seed(0)
    model = GPT(config, SPEC, 0).eval()
    for name, parameter in model.named_parameters():
        scale = 0.1 if name.endswith("norm.weight") else 0.4
        parameter.data += scale * torch.randn_like(parameter)
    if like is not None:
        own = model.state_dict()
        same = {k: v for k, v in like.state_dict().items() if k in own and v.shape == own[k].shape}
        model.load_state_dict(same, strict=False)
    return model


def clip(time: int = 4) -> Tensor:
    return torch.randint(0, 12, (2, time, 2, 3), generator=torch.Generator().manual_seed(1))


def captions(batch: int = 2) -> TextContext:
    """One per clip, of three words; the last one goes on, so it holds for every step."""
    embeddings = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(2))
    embeddings[:, 3] = 0
    return TextContext(embeddings, torch.arange(batch)[:, None] % 2)


def told(config: GPTConfig) -> dict[str, TextContext]:
    return {"captions": captions()} if config.context_dim else {}


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (PLAIN, {"norm": "rms"}),
        (PLAIN, {"norm_affine": False}),
        (PLAIN, {"norm_eps": 0.5}),
        (PLAIN, {"qk_norm_eps": 0.5}),
        (PLAIN, {"mlp": "swiglu"}),
        (PLAIN, {"mlp_hidden": 30}),
        (PLAIN, {"num_kv_heads": 2}),
        (PLAIN, {"head_channels": 8}),
        (PLAIN, {"attention_scale": 0.1}),
        (PLAIN, {"sinusoid": True}),
        (PLAIN, {"output_scale": 2.0}),
        (PLAIN, {"positions": "factored"}),
        (PLAIN, {"factors": (4, 3)}),
        (PLAIN, YARN),
        (replace(PLAIN, **YARN), {"yarn_beta_fast": 9.0}),
        (replace(PLAIN, **YARN), {"yarn_beta_slow": 0.1}),
        (replace(PLAIN, **YARN), {"yarn_original": (90, 20)}),
        (replace(PLAIN, **YARN), {"yarn_original": (20, 90)}),
        (PLAIN, {"layout": BARE}),
        (STYLES["text"], {"cross_every": 1}),
    ],
)
@torch.no_grad()
def test_every_setting_changes_what_is_predicted(base: GPTConfig, change: dict[str, Any]) -> None:
    """With the same weights, as far as they fit, and every other number the same."""
    plain = make(base)
    changed = make(replace(base, **change), plain)
    difference = changed(clip(), **told(base)) - plain(clip(), **told(base))
    assert difference.abs().max() > 1e-4


def test_the_head_may_know_the_separator() -> None:
    model = make(replace(PLAIN, head_ids="all"))
    ids = model.layout.sequence_ids(clip())
    assert model.sequence_logits(ids).shape == (2, 28, 13)
    assert model(clip()).shape == (2, 4, 6, 12)
    assert make(PLAIN).sequence_logits(ids).shape == (2, 28, 12)


@torch.no_grad()
def test_grouped_queries_read_repeated_keys() -> None:
    """A full attention whose keys and values are copies gives the same."""
    grouped = make(replace(PLAIN, num_kv_heads=2))
    full = make(PLAIN, grouped)
    for ours, theirs in zip(full.blocks, grouped.blocks, strict=True):
        query, rest = theirs.attention.qkv.weight.split((24, 24))
        copies = rest.view(2, 2, 6, 24).repeat_interleave(2, dim=1).reshape(48, 24)
        ours.attention.qkv.weight.copy_(torch.cat([query, copies]))
    torch.testing.assert_close(grouped(clip()), full(clip()))


@torch.no_grad()
def test_factored_positions_are_a_table_of_sums() -> None:
    factored = make(replace(PLAIN, positions="factored"))
    table = make(replace(PLAIN, positions="learned"), factored)
    time, space = factored.time_position.weight, factored.space_position.weight
    table.position.weight.copy_((time[:, None] + space).flatten(0, 1))
    torch.testing.assert_close(factored(clip()), table(clip()))


@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_what_is_decoded_is_what_the_forward_finds_likeliest(style: str) -> None:
    """With the cache, for several futures, also after the window has slid."""
    model = make(STYLES[style])
    prompt, given = clip(2), told(STYLES[style])
    futures = rollout(
        model, prompt, None, 4, Sampling(greedy=True), num_futures=2, slide_steps=1, **given
    )
    assert torch.equal(futures[:, 0], futures[:, 1])
    whole = torch.cat([prompt, futures[:, 0]], dim=1)
    for end in (4, 5, 6):  # the newest four frames, the last of them generated
        logits = model(whole[:, end - 4 : end], **given)
        assert torch.equal(logits[:, -1].argmax(-1), whole[:, end - 1].flatten(1))
    scores = model.score(whole[:, -4:], **given)
    assert scores.correct[:, -1].all()


@pytest.mark.parametrize("style", STYLES)
def test_every_parameter_learns(style: str) -> None:
    model = make(STYLES[style])
    model.loss(clip(), **told(STYLES[style])).backward()
    for name, parameter in model.named_parameters():
        unused = name == "embed.others.weight" and not model.layout.prefix_length
        assert unused or (parameter.grad is not None and parameter.grad.any()), name


@pytest.mark.parametrize("style", STYLES)
def test_a_checkpoint_can_say_it(style: str) -> None:
    config = STYLES[style]
    assert from_description(describe(config)) == config
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in describe(config).items()}
    assert asdict(from_description(lists)) == asdict(config)


@torch.no_grad()
def test_without_a_separator_the_last_token_predicts_the_next_frame() -> None:
    model = make(replace(PLAIN, layout=BARE))
    tokens = clip()
    changed = tokens.clone()
    changed[:, 1, 1, 2] = (changed[:, 1, 1, 2] + 1) % 12  # the last token of frame 1
    difference = (model(changed) - model(tokens)).abs().amax((0, 3)).flatten()
    assert difference[:12].max() == 0
    assert difference[12:].min() > 0
    assert not model(tokens)[:, 0, 0].any()  # uniform
    assert torch.equal(model.layout.coordinates(2)[:, 1].unique(), torch.arange(2))


def test_captions_that_do_not_fit_are_refused() -> None:
    given = captions()
    narrow = replace(given, embeddings=given.embeddings[..., :4])
    with pytest.raises(BadInput, match=r"this GPT reads no captions"):
        make(PLAIN)(clip(), captions=given)
    with pytest.raises(BadInput, match=r"reads no captions"):
        rollout(make(PLAIN), clip(2), None, 1, captions=captions())
    with pytest.raises(BadInput, match=r"\(any, 5\)"):
        make(STYLES["text"])(clip(), captions=narrow)
    with pytest.raises(BadInput, match=r"\(3, 5\)"):
        make(replace(STYLES["text"], context_tokens=3))(clip(), captions=captions())
    with pytest.raises(BadInput, match=r"text for 3 examples of 2"):
        open_decoder(make(STYLES["text"])).start(clip(2), captions=captions(batch=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "layer, rms"),
        ({"mlp": "relu"}, "gelu, swiglu"),
        ({"head_ids": "none"}, "frame, all"),
        ({"positions": "none"}, "rope, learned, factored"),
        ({"num_kv_heads": 3}, "num_kv_heads=3"),
        ({"num_kv_heads": -1}, "num_kv_heads=-1"),
        ({"head_channels": -2}, "head_channels=-2"),
        ({"mlp_hidden": -1}, "mlp_hidden=-1"),
        ({"context_dim": -1}, "context_dim=-1"),
        ({"attention_scale": -1.0}, "attention_scale=-1"),
        ({"context_tokens": -1}, "context_tokens=-1"),
        ({"cross_every": 0}, "cross_every=0"),
        ({"context_tokens": 4, "layout": LayoutConfig(text_tokens=4)}, "set one to 0"),
        ({"yarn_scale": 0.0}, "yarn_scale=0"),
        ({"yarn_beta_slow": 8.0}, "slow below fast"),
        ({"positions": "learned", "sinusoid": True}, "positions=rope"),
        ({"layout": BARE, "look_back": 3}, "look_back=3"),
        ({"factors": (4, 3), "look_back": 3}, "look_back=0"),
        ({"factors": (4, 3), "tie_embeddings": True}, "tie_embeddings=false"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(PLAIN, **change)


def test_a_layout_without_separator_has_no_place_for_actions() -> None:
    with pytest.raises(BadInput, match=r"layout.actions=none"):
        LayoutConfig("continuous", separator=False)
    with pytest.raises(BadInput, match=r"first_target_step=1"):
        LayoutConfig(separator=False, first_target_step=0)


def test_sequences_that_are_not_ids_alone_are_refused() -> None:
    with pytest.raises(BadInput, match="look_back=0"):
        make(replace(PLAIN, look_back=3)).sequence_logits(torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(BadInput, match="sees 28"):
        make(PLAIN).sequence_logits(torch.zeros(1, 29, dtype=torch.int64))
