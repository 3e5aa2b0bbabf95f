"""Guidance: the formula on real logits, its schedules, and that every flag does something."""

from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir

from drives.tokens.store import TokenSpec
from training.cli import plain
from training.errors import BadInput
from training.help import CONFIGS
from worldmodel.decoding import Guidance, Sampling
from worldmodel.decoding.base import token_shares
from worldmodel.decoding.config import sampling_from
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT, GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.text import TextContext
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

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
        tie_embeddings=False,
    )
    model = stirred(build_dynamics(config, SPEC, num_actions=2))
    assert isinstance(model, GPT)
    return model


def stirred(model: Dynamics) -> Dynamics:
    """Far from the start: no two logits alike."""
    for parameter in model.eval().parameters():
        parameter.data += 0.5 * torch.randn_like(parameter) * (parameter.ndim > 1)
    return model


def make_whole(inner_layers: int = 0, **layout: int) -> Dynamics:
    torch.manual_seed(0)
    config = LayoutConfig("continuous", **layout)
    sizes = {"dim": 24, "num_layers": 2, "num_heads": 2, "context_steps": 4}
    network = WholeFrameConfig(**sizes, inner_layers=inner_layers, layout=config)
    return stirred(build_dynamics(network, SPEC, num_actions=2))


def make_masked(**layout: int) -> Dynamics:
    torch.manual_seed(0)
    config = LayoutConfig("continuous", **layout)
    sizes = {"dim": 24, "num_layers": 2, "num_heads": 2, "context_steps": 4}
    sizes |= {"num_prompt_frames": 2, "look_back": 0}
    network = MaskedConfig(**sizes, factors=(11, 1), layout=config)
    return stirred(build_dynamics(network, SPEC, num_actions=2))


def make_clip(time: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 11, (2, time, 2, 3), generator=generator)
    return tokens, 3 * torch.randn(2, time + 9, 2, generator=generator)


def make_text(negative: int = -1) -> TextContext:
    generator = torch.Generator().manual_seed(2)
    embeddings = 3 * torch.randn(3, 2, 5, generator=generator)
    return TextContext(embeddings, torch.tensor([[0, 0, 1], [1, 1, -1]]), negative)


def futures(
    model: Dynamics, guidance: Guidance | None, text: TextContext | None = None, **options
) -> torch.Tensor:
    tokens, actions = make_clip()
    sampling = Sampling(seed=3, guidance=guidance)
    return rollout(model, tokens, actions, 5, sampling, 2, captions=text, **options)


# Every method, on a model that it can decode.
METHODS = {
    "raster": lambda: make_model(),
    "speculative": lambda: make_model(),
    "diagonal": lambda: make_model(),
    "maskgit": make_masked,
    "whole": make_whole,
    "whole_raster": lambda: make_whole(inner_layers=1),
}


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


@pytest.mark.parametrize("method", METHODS)
def test_without_a_scale_every_method_draws_what_it_draws_unguided(method: str) -> None:
    """Beyond the context too, so that pairs of rows are read anew as well."""
    model = METHODS[method]()
    plain = futures(model, None, method=method)
    assert torch.equal(plain, futures(model, Guidance(0.0), method=method))
    assert torch.equal(plain, futures(model, Guidance(1e-9), method=method))  # two rows for one
    assert not torch.equal(plain, futures(model, Guidance(2.0), method=method))


@pytest.mark.parametrize("draft", ["previous", "jacobi", "model"])
def test_guesses_do_not_change_what_is_guided(draft: str) -> None:
    model, guidance = make_model(**BOTH), Guidance(1.5, last_token_share=0.3)
    options = {"draft": draft, "draft_model": make_model() if draft == "model" else None}
    expected = futures(model, guidance, make_text())
    guessed = futures(model, guidance, make_text(), method="speculative", **options)
    assert torch.equal(expected, guessed)


def test_drafts_of_whole_frames_guess_alike_for_both_rows() -> None:
    model, guidance = make_model(), Guidance(1.5)
    options = {"draft": "model", "draft_model": make_whole()}
    expected = futures(model, guidance)
    assert torch.equal(expected, futures(model, guidance, method="speculative", **options))


@pytest.mark.parametrize("inner_layers", [0, 1])
def test_whole_frames_take_the_best_of_the_guided_logits(inner_layers: int) -> None:
    model, (tokens, given) = make_whole(inner_layers), make_clip()
    sampling = Sampling(greedy=True, guidance=Guidance(1.5, last_token_share=0.2))
    guided = rollout(model, tokens, given, 2, sampling)[:, 0]
    clip, drop = torch.cat([tokens, guided], dim=1), torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        acted, other = model(clip, given)[:, 2:], model(clip, given, drop)[:, 2:]
    t = torch.tensor([1.5 * (1 - 0.8 * i / 5) for i in range(6)])[:, None]
    assert torch.equal(guided.flatten(2), ((1 + t) * acted - t * other).argmax(-1))
    assert not torch.equal(guided.flatten(2), acted.argmax(-1))


def test_masked_frames_take_the_best_of_the_guided_logits() -> None:
    """Of one pass, for every factor on its own."""
    model, (tokens, given) = make_masked(), make_clip()
    sampling = Sampling(greedy=True, guidance=Guidance(1.5, last_token_share=0.2))
    guided = rollout(model, tokens, given, 2, sampling, num_steps=1)[:, 0]
    clip, drop = torch.cat([tokens, guided], dim=1), torch.ones(2, dtype=torch.bool)
    factors = model.factors.split(clip.flatten(2))
    with torch.no_grad():
        acted, other = model(factors, None, given)[:, 2:], model(factors, None, given, drop)[:, 2:]
    t = torch.tensor([1.5 * (1 - 0.8 * i / 5) for i in range(6)])[:, None]
    best = model.factors.best((1 + t) * acted - t * other)
    assert torch.equal(factors[:, 2:], best)
    assert not torch.equal(factors[:, 2:], model.factors.best(acted))


def test_a_guided_decoder_scores_frames_by_the_guided_logits() -> None:
    model, (tokens, given) = make_model(), make_clip(3)
    decoder = open_decoder(model, Sampling(guidance=Guidance(1.5, last_token_share=0.2)))
    assert isinstance(decoder, Decoder)
    decoder.start(tokens[:, :2], given)
    nats = decoder.score_next(tokens[:, 2], given[:, 1])
    with torch.no_grad():
        drop = torch.ones(2, dtype=torch.bool)
        acted, other = model(tokens, given)[:, 2], model(tokens, given, drop)[:, 2]
    t = torch.tensor([1.5 * (1 - 0.8 * i / 5) for i in range(6)])[:, None]
    logits = ((1 + t) * acted - t * other).log_softmax(-1)
    expected = -logits.gather(-1, tokens[:, 2].flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(nats, expected, atol=1e-4, rtol=1e-4)


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
    model, text = make_model(**BOTH), make_text(negative=2)
    plain = Guidance(2.0)
    before = replace(plain, num_decay_frames=2) if "num_full_frames" in change else plain
    silent = replace(text, negative=-1)
    first = futures(model, before, silent)
    again = futures(model, before, silent)
    other = futures(model, replace(plain, **change), text if "negative" in change else silent)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_scale_falls_over_tokens_and_frames_as_gaia_1_has_it() -> None:
    linear = Guidance(2.0, last_token_share=0.5)
    assert linear.level(7) == 2.0
    assert token_shares(linear, 5).tolist() == pytest.approx([1, 0.875, 0.75, 0.625, 0.5])
    decay = Guidance(2.0, num_full_frames=2, num_decay_frames=4)
    levels = [decay.level(frame) for frame in range(9)]
    assert levels == pytest.approx([2, 2, 2, 1.7071, 1, 0.2929, 0, 0, 0], abs=1e-4)


@pytest.mark.parametrize("method", ["raster", "maskgit", "whole"])
def test_a_negative_prompt_is_what_the_other_rows_read(method: str) -> None:
    make = {"raster": make_model, "maskgit": make_masked, "whole": make_whole}[method]
    model, text, (tokens, given) = make(**BOTH), make_text(negative=2), make_clip()
    options = {"num_steps": 1} if method == "maskgit" else {}
    sampling = Sampling(greedy=True, guidance=Guidance(1.5, condition="text", negative="fog"))
    guided = rollout(model, tokens, given, 2, sampling, captions=text, **options)[:, 0]
    clip = torch.cat([tokens, guided], dim=1)
    fog = replace(text, index=torch.full_like(text.index, 2))
    clip = model.factors.split(clip.flatten(2)) if method == "maskgit" else clip
    hidden = {"masked": None} if method == "maskgit" else {}
    with torch.no_grad():
        asked = model(clip, **hidden, actions=given, captions=text)[:, 2:]
        other = model(clip, **hidden, actions=given, captions=fog)[:, 2:]
    best, found = (2.5 * asked - 1.5 * other)[..., :11].argmax(-1), guided.flatten(2)
    assert torch.equal(found, best)
    assert not torch.equal(found, asked[..., :11].argmax(-1))


def test_what_cannot_be_guided_is_refused() -> None:
    model = make_model()
    with pytest.raises(BadInput, match=r"guidance.condition=text.*it reads: actions"):
        futures(model, Guidance(1.0, condition="text"))
    with pytest.raises(BadInput, match=r"guidance.condition=both.*it reads: none"):
        futures(make_model("none"), Guidance(1.0))
    with pytest.raises(BadInput, match=r"negative='fog' needs its embedding"):
        futures(make_model(**BOTH), Guidance(1.0, negative="fog"), make_text())


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
    assert sampling_from(values) == Sampling(guidance=Guidance(1.5, condition="text"))


@pytest.mark.parametrize("command", ["eval", "commands/decoding_bench", "commands/rollout"])
def test_commands_sample_as_the_dataclass_says(command: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        values = plain(compose(command, overrides=["ckpt=none"]).sampling)
    given = sampling_from(values)
    assert replace(given, guidance=None) == Sampling()
    assert not given.guided
