"""MUSIK: upstream's InfoNCE, and actions that can be told from codes in a world where they show."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tokenizer.load import load_tokenizer, manifest_of
from tokenizer.networks.config import MusikConfig
from tokenizer.networks.kinds import build_network
from tokenizer.networks.musik import ActionEnergy, Musik
from tokenizer.quantizers.config import FSQConfig
from training.checkpoints.folder import write_checkpoint
from training.errors import BadInput

CONFIG = MusikConfig(
    image_size=(16, 16),
    quantizer=FSQConfig((5, 5, 5, 5)),
    patch=2,
    channels=(16, 32),
    attention=False,
    num_actions=2,
    clip_frames=3,
    num_negatives=15,
    hidden=64,
)


def test_the_loss_is_upstreams(shared):
    folder = shared / "parity/voc_td"
    io = {k: v for k, v in load_file(folder / "io.safetensors").items() if "musik" in k}
    weights = load_file(folder / "weights.safetensors")
    names = {"layer1.0": "project", "layer1.1": "norm", "layer2": "out"}
    said = json.loads((folder / "config.json").read_text())["musik"]
    energy = ActionEnergy(said["enc"], said["action"], said["hidden"])
    energy.load_state_dict(
        {
            key.replace(f"musik.projector.{theirs}", ours): value
            for theirs, ours in names.items()
            for key, value in weights.items()
            if key.startswith(f"musik.projector.{theirs}.")
        }
    )
    first, later = (io[f"musik_{name}"].requires_grad_() for name in ("x1", "x2"))
    candidates = torch.cat([io["musik_action"][:, None], io["musik_negatives"]], 1)
    logits = -energy.train()(first, later, candidates)
    loss = torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
    torch.testing.assert_close(logits, io["musik_logits"], atol=2e-4, rtol=0)
    torch.testing.assert_close(loss, io["musik_loss"], atol=1e-5, rtol=0)
    loss.backward()
    for state, name in ((first, "x1"), (later, "x2")):
        torch.testing.assert_close(state.grad, io[f"musik_grad_{name}"], atol=1e-5, rtol=1e-3)


def world(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Three frames of a square that each action moves, before a background that it does not."""
    actions = torch.rand(count, 3, 2, generator=generator) * 2 - 1
    moves = torch.cat([torch.zeros(count, 1, 2), 4 * actions[:, :2]], 1).cumsum(1)
    places = 8 + moves  # centre of the square, in pixels
    axis = torch.arange(16) + 0.5
    inside = (axis - places[..., None]).abs() < 2.5  # [count time xy pixel]
    square = inside[:, :, 1, :, None] & inside[:, :, 0, None, :]
    noise = torch.rand(count, 1, 3, 1, 1, generator=generator) - 1
    frames = torch.where(square[:, :, None], torch.ones(()), noise).contiguous()
    return frames, actions


@pytest.mark.slow
def test_the_first_action_is_told_far_above_chance():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network = build_network(CONFIG)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(100):
        loss, _, _ = network.loss(*world(64, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    frames, actions = world(512, generator)
    with torch.no_grad():
        told = network.loss(frames, actions)[1]["accuracy"]
        shuffled = network.loss(frames, actions.roll(1, 0))[1]["accuracy"]
    chance = 1 / (1 + CONFIG.num_negatives)
    assert told > 3 * chance
    assert shuffled < 2 * chance  # from the frames of another drive, nothing can be told
    assert network.encode(frames[:, 0]).unique().numel() > 5


def test_false_actions_have_the_range_of_true_ones():
    network = build_network(CONFIG).train()
    codes = torch.zeros(4, 4, 4, 4)
    actions = torch.tensor([[10.0, -3.0], [30.0, 3.0], [20.0, 0.0], [20.0, 1.0]])
    network.logits(codes, codes, actions)
    assert network.low.tolist() == [10, -3]
    assert network.high.tolist() == [30, 3]
    seen = []
    network.energy.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    network.eval().logits(codes, codes, actions)
    torch.testing.assert_close(seen[0][:3, 0], torch.tensor([[-1.0, -1], [1, 1], [0, 0]]))
    assert seen[0][:, 1:].abs().max() <= 1
    network.logits(codes, codes, actions * 100)
    assert network.high.tolist() == [30, 3]  # fixed once trained


def test_it_is_opened_as_a_tokenizer_that_has_no_pixels(tmp_path):
    network = build_network(CONFIG)
    weights = {f"ema.module.{k}": v for k, v in network.state_dict().items()}
    write_checkpoint(tmp_path / "musik", weights, manifest_of(CONFIG))
    opened = load_tokenizer(tmp_path / "musik")
    assert isinstance(opened.network, Musik)
    frames = torch.rand(2, 3, 16, 16) * 2 - 1
    tokens = opened.encode(frames)
    assert torch.equal(tokens, network.eval().encode(frames))
    assert opened.spec(10.0).grid == (1, *tokens.shape[1:])
    with pytest.raises(BadInput, match="no pixels"):
        opened.decode(tokens)
    with pytest.raises(BadInput, match=r"\(16, 16\)"):
        opened.encode(torch.zeros(1, 3, 8, 8))


def test_data_without_actions_and_clips_without_a_later_frame_are_refused():
    with pytest.raises(BadInput, match="the data has none"):
        build_network(MusikConfig())
    with pytest.raises(BadInput, match="clip_frames=1"):
        MusikConfig(clip_frames=1)
