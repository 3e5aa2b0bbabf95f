"""Captions in every kind of world model: read at their step, decoded as scored, and obeyed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from drives.tokens.store import TokenSpec
from drives.writing import write_drive
from training.errors import BadInput
from worldmodel.conditioning.dropout import ConditionShares
from worldmodel.decoding import Guidance, Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.text import TextContext
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.evaluation.judge import judge

ROOT = Path(__file__).parents[3]
SPEC = TokenSpec((1, 2, 3), 8, 10.0, 1, (16, 24), "test")
SIZES = {"dim": 24, "num_layers": 2, "num_heads": 2, "context_steps": 4}
TOLD = LayoutConfig("continuous", text_tokens=3, text_width=5)
MASKED = MaskedConfig(**SIZES, num_prompt_frames=1, look_back=0, layout=TOLD)
GPT_SIZES = {**SIZES, "tie_embeddings": False}
CONFIGS = {
    "prefix": GPTConfig(**GPT_SIZES, layout=TOLD),
    "cross-attention": GPTConfig(
        **GPT_SIZES, context_tokens=3, context_dim=5, layout=LayoutConfig("continuous")
    ),
    "masked": MASKED,
    "whole": WholeFrameConfig(**SIZES, layout=TOLD),
    "whole_raster": WholeFrameConfig(**SIZES, inner_layers=1, layout=TOLD),
}


def make_model(kind: str) -> Dynamics:
    """Far from the start: no two logits alike."""
    torch.manual_seed(0)
    model = build_dynamics(CONFIGS[kind], SPEC, 2).eval()
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter) * (parameter.ndim > 1)
    return model


def make_clip(time: int = 4) -> tuple[Tensor, Tensor, TextContext]:
    torch.manual_seed(1)
    index = torch.tensor([[0, 0, 1, 2, 1, -1, 0], [-1, 2, 2, 0, 0, 1, 2]])
    text = TextContext(3 * torch.randn(3, 3, 5), index)
    return torch.randint(0, 8, (2, time, 2, 3)), torch.randn(2, time + 9, 2), text


def logits_of(model: Dynamics, tokens: Tensor, actions: Tensor, said: TextContext) -> Tensor:
    if isinstance(model.config, MaskedConfig):
        factors = model.factors.split(tokens.flatten(2))
        return model(factors, None, actions, captions=said)
    return model(tokens, actions, captions=said)


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_a_caption_is_told_to_its_frame_and_seen_by_later_ones(kind: str) -> None:
    model, (tokens, actions, text) = make_model(kind), make_clip()
    plain = logits_of(model, tokens, actions, text)
    index = text.index.clone()
    index[:, 2] = -1
    changed = logits_of(model, tokens, actions, replace(text, index=index))
    difference = (changed - plain).abs().amax(dim=(0, 3))
    assert difference[:2].max() == 0
    assert difference[2:].min() > 0
    scores = [model.score(tokens, actions, captions=said).nats for said in (text, None)]
    assert not torch.equal(*scores)
    dropped = model.score(tokens, actions, captions=text.drop(torch.ones(2, dtype=torch.bool)))
    torch.testing.assert_close(dropped.nats, scores[1])


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_what_is_decoded_is_what_the_forward_finds_likeliest(kind: str) -> None:
    """For two futures, beyond the context, where the newest captions are read."""
    model, (tokens, actions, text) = make_model(kind), make_clip(3)
    options = {"num_steps": 1} if kind == "masked" else {}
    greedy = Sampling(greedy=True)
    futures = rollout(model, tokens, actions, 6, greedy, 2, captions=text, slide_steps=1, **options)
    clip = torch.cat([tokens, futures[:, 1]], dim=1)
    longer = torch.cat([text.index, text.index[:, -1:].expand(-1, 2)], dim=1)
    for step in range(3, 9):
        first = max(0, step - 3)
        window = replace(text, index=longer[:, first:])
        logits = logits_of(model, clip[:, first : step + 1], actions[:, first:step], window)
        assert torch.equal(logits[:, -1].argmax(-1), clip[:, step].flatten(1))
    assert len(futures.unique()) > 3


@pytest.mark.parametrize("kind", CONFIGS)
def test_captions_that_do_not_fit_are_refused(kind: str) -> None:
    model, (tokens, actions, text) = make_model(kind), make_clip()
    narrow = replace(text, embeddings=text.embeddings[..., :4])
    with pytest.raises(BadInput, match=r"\(3, 4\).*reads \(3, 5\)"):
        model.score(tokens, actions, captions=narrow)
    with pytest.raises(BadInput, match=r"reads \(3, 5\)"):
        rollout(model, tokens[:, :1], actions, 1, captions=narrow)
    deaf = replace(CONFIGS[kind], layout=LayoutConfig("continuous"))
    deaf = replace(deaf, context_tokens=0, context_dim=0) if kind == "cross-attention" else deaf
    with pytest.raises(BadInput, match="reads no captions"):
        build_dynamics(deaf, SPEC, 2).loss(tokens, actions, captions=text)


def lit_clips(num: int, steps: int = 4) -> tuple[Tensor, Tensor, TextContext]:
    """Every step is day or night, and three tokens of four are then 4 .. 7 or 0 .. 3."""
    said = torch.randint(2, (num, steps))
    obeys = torch.rand(num, steps, 2, 3) < 0.75
    day = torch.where(obeys, said[..., None, None], 1 - said[..., None, None])
    words = torch.eye(2, 5)[:, None] * torch.tensor([1.0, 1.0, 0.0])[:, None]
    tokens = 4 * day + torch.randint(4, day.shape)
    return tokens, torch.zeros(num, steps, 2), TextContext(words, said)


def obedience(model: Dynamics, scale: float, condition: str = "text") -> float:
    """Share of tokens that are as the captions of their steps say."""
    tokens, actions, text = lit_clips(64)
    sampling = Sampling(guidance=Guidance(scale, condition=condition))
    futures = rollout(model, tokens[:, :1], actions, 3, sampling, captions=text)[:, 0]
    return ((futures >= 4) == text.index[:, 1:, None, None].bool()).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_trained_model_obeys_its_captions_and_guidance_makes_it_obey_more(kind: str) -> None:
    torch.manual_seed(0)
    model, shares = build_dynamics(CONFIGS[kind], SPEC, 2), ConditionShares(0.2, 0.2, 0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        tokens, actions, text = lit_clips(32)
        no_actions, no_text = shares.draw(32, tokens.device)
        loss = model.loss(tokens, actions, no_actions, captions=text.drop(no_text))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    unguided, guided = obedience(model, 0.0), obedience(model, 2.0)
    assert 0.65 < unguided < 0.85
    assert guided > unguided + 0.1


@pytest.fixture(scope="module")
def captioned_drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright drives and dark ones, which say so in their later half."""
    root, noise = tmp_path_factory.mktemp("captioned"), np.random.default_rng(0)
    for number, split in enumerate(["train", "train", "val", "test"]):
        level = 200 * (number % 2)
        frames = [level + noise.integers(0, 50, (64, 64, 3), dtype=np.uint8) for _ in range(24)]
        said = [{"text": "bright day" if level else "dark night", "start": 12, "stop": 24}]
        meta = {"fps": 10.0, "source": "test", "licence": "none", "split": split, "captions": said}
        write_drive(root / f"d{number}", frames, np.zeros((24, 1)), ["steering"], meta)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "text", "decoding"),
    [
        ("gpt_tiny", "context_tokens=2", "speculative"),
        ("masked_tiny", "layout.text_tokens=2", "maskgit"),
    ],
)
def test_captions_are_trained_on_and_guided_by_from_the_command_line(
    experiment: str, text: str, decoding: str, captioned_drives: Path, composed, fit, tmp_path: Path
) -> None:
    words = ["data=drives", f"data.root={captioned_drives}", f"model.network.{text}"]
    cut = ["model.network.dim=48", "model.network.num_layers=2", "model.network.num_heads=2"]
    few = ["trainer.max_steps=2", "trainer.val_check_interval=1", "data.batch_size=2"]
    encoder = ["+text_encoder@model.text=hashed_words", "model.conditions.none=0.2"]
    _, run, _ = fit(composed(experiment, *words, *cut, *few, *encoder, "data.num_workers=0"))
    overrides = [f"ckpt={run.folder}", f"decoding.method={decoding}", "device=cpu"]
    overrides += ["card=[teacher_forced,rollout]", "cards.rollout.version=few"]
    overrides += ["cards.rollout.num_clips=2", "cards.rollout.horizon_s=0.2"]
    overrides += ["cards.teacher_forced.version=few", "cards.teacher_forced.num_windows=4"]
    overrides += ["sampling.guidance.condition=text", "sampling.guidance.negative=fog"]
    cards = []
    for scale in (0, 100):
        asked = [*overrides, f"sampling.guidance.scale={scale}", f"out={tmp_path}/{scale}"]
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            judge(compose("eval", asked))
        cards.append(json.loads((tmp_path / f"{scale}/metrics.json").read_text())["cards"])
    assert cards[0]["teacher_forced"] == cards[1]["teacher_forced"]
    assert cards[0]["rollout"]["scores"] != cards[1]["rollout"]["scores"]
