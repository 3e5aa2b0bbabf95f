"""Text in the GPT: prefix or cross-attention, causality, and a cached decoder that agrees."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT, GPTConfig
from worldmodel.dynamics.kinds import describe, from_description
from worldmodel.dynamics.layout import SequenceLayout
from worldmodel.dynamics.text import TextContext

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
LAYOUTS = ["none", "continuous", "binned"]
WAYS = ["prefix", "cross-attention"]


def make_model(actions: str, way: str = "prefix", **values) -> GPT:
    torch.manual_seed(0)
    prefix = {"text_tokens": 3, "text_width": 5} if way == "prefix" else {}
    layout = LayoutConfig(actions, num_bins=8, **prefix)
    if way == "cross-attention":
        values |= {"context_tokens": 3, "context_dim": 5, "num_kv_heads": 1}
    values = {"bias": True, "tie_embeddings": False, **values}
    config = GPTConfig(dim=24, num_layers=2, num_heads=2, context_steps=4, layout=layout, **values)
    model = GPT(config, SPEC, 2 if actions != "none" else 0).eval()
    for parameter in model.parameters():  # far from the start: no two logits alike
        parameter.data += 0.5 * torch.randn_like(parameter) * (parameter.ndim > 1)
    return model


def make_clip(time: int = 4) -> tuple[torch.Tensor, torch.Tensor, TextContext]:
    torch.manual_seed(1)
    index = torch.tensor([[0, 0, 1, 2, 1, -1, 0], [-1, 2, 2, 0, 0, 1, 2]])
    text = TextContext(3 * torch.randn(3, 3, 5), index)
    return torch.randint(0, 11, (2, time, 2, 3)), torch.randn(2, time + 9, 2), text


def test_text_stands_before_the_action_and_the_frame():
    config = LayoutConfig("binned", num_bins=8, text_tokens=3, text_width=5)
    layout = SequenceLayout(config, SPEC, 2)
    tokens, actions, _ = make_clip(2)
    ids = layout.sequence_ids(tokens, actions).view(2, 2, -1)
    assert ids.shape[2] == layout.step_length == 3 + 2 + 6
    assert (ids[:, :, :3] == layout.num_ids - 1).all()
    assert torch.equal(ids[:, 1:, 3:5], layout.action_ids(actions[:, :1]))
    assert torch.equal(ids[:, :, 5:], tokens.flatten(2))
    assert layout.predicting_positions(1)[0].tolist() == [4, 5, 6, 7, 8, 9]
    assert len(layout.coordinates(2).unique(dim=0)) == 2 * 11  # coordinates are unique


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("actions", LAYOUTS)
def test_a_caption_changes_its_frame_and_later_ones_only(actions: str, way: str) -> None:
    model, (tokens, given, text) = make_model(actions, way), make_clip()
    logits = model(tokens, given, captions=text)
    index = text.index.clone()
    index[:, 2] = -1
    changed = model(tokens, given, captions=replace(text, index=index))
    difference = (changed - logits).abs().amax(dim=(0, 3))
    assert difference[:2].max() == 0
    assert difference[2:].min() > 0


@pytest.mark.parametrize("way", WAYS)
def test_nothing_said_is_what_dropped_text_reads(way: str) -> None:
    model, (tokens, given, text) = make_model("continuous", way), make_clip()
    dropped = model(tokens, given, captions=text.drop(torch.tensor([True, False])))
    torch.testing.assert_close(dropped[0], model(tokens, given)[0])
    torch.testing.assert_close(dropped[1], model(tokens, given, captions=text)[1])


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("actions", LAYOUTS)
def test_cached_logits_equal_the_forward(actions: str, way: str, said: bool) -> None:
    positions = "learned" if actions == "binned" else "rope"
    model, (tokens, given, text) = make_model(actions, way, positions=positions), make_clip()
    read = text if said else None
    with torch.no_grad():
        expected = model(tokens, given, captions=read)
    decoder = Decoder(model)
    decoder.start(tokens[:, :1], given, captions=read)
    for step in range(1, 4):
        real, seen = tokens[:, step].flatten(1), []

        def choose(logits: Tensor, cells: slice, real: Tensor = real, seen: list = seen) -> Tensor:
            seen.append(logits)
            return real[:, cells]

        decoder.extend(choose, given[:, step - 1])
        torch.testing.assert_close(torch.cat(seen, 1), expected[:, step], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_beyond_the_context_the_newest_captions_are_read_and_the_last_goes_on(way: str) -> None:
    model, (tokens, _, text) = make_model("none", way), make_clip(3)
    greedy = Sampling(greedy=True)
    future = rollout(model, tokens, None, 6, greedy, captions=text, slide_steps=1)[:, 0]
    clip = torch.cat([tokens, future], dim=1)
    longer = torch.cat([text.index, text.index[:, -1:].expand(-1, 2)], dim=1)
    for step in range(3, 9):
        first = max(0, step - 3)
        window = replace(text, index=longer[:, first:])
        with torch.no_grad():
            logits = model(clip[:, first : step + 1], captions=window)[:, -1]
        assert torch.equal(logits.argmax(-1), clip[:, step].flatten(1))
    assert len(future.unique()) > 3


def test_wrong_text_is_refused_and_a_config_survives_its_manifest() -> None:
    model, (tokens, _, text) = make_model("none"), make_clip()
    with pytest.raises(BadInput, match=r"text of \(2, 5\).*but the model reads \(3, 5\)"):
        model(tokens, captions=replace(text, embeddings=text.embeddings[:, :2]))
    with pytest.raises(BadInput, match="text for 1 examples of 2"):
        model(tokens, captions=replace(text, index=text.index[:1]))
    assert from_description(describe(model.config)) == model.config


def test_loss_and_score_read_the_text() -> None:
    model, (tokens, _, text) = make_model("none"), make_clip()
    assert model.loss(tokens) != model.loss(tokens, captions=text)
    assert not torch.equal(model.score(tokens).nats, model.score(tokens, captions=text).nats)


def test_cross_attention_without_biases_adds_nothing_to_silence() -> None:
    """So that a model which heard nothing is the one that it was before."""
    model, (tokens, _, text) = make_model("none", "cross-attention"), make_clip()
    told = model(tokens, captions=text)
    for block in model.blocks:
        for part in (block.cross_attention.context_kv, block.cross_attention.proj):
            part.bias.data.zero_()
    silent = model(tokens)
    for block in model.blocks:
        block.reads_text = False
    torch.testing.assert_close(silent, model(tokens))
    assert (told - silent).abs().max() > 1e-2


def test_only_words_are_attended_to_and_one_caption_for_a_clip_is_one_for_all_steps() -> None:
    model, (tokens, _, text) = make_model("none", "cross-attention"), make_clip()
    one = replace(text, index=text.index[:, 1:2])
    every = replace(one, index=one.index.expand(-1, 4))
    torch.testing.assert_close(model(tokens, captions=one), model(tokens, captions=every))
    model.config = replace(model.config, context_tokens=0)  # any number
    padded = replace(one, embeddings=torch.cat([one.embeddings, torch.zeros(3, 2, 5)], dim=1))
    torch.testing.assert_close(model(tokens, captions=one), model(tokens, captions=padded))
