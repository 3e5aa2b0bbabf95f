"""GENIE as published: every number of the golden files; nothing else passes for one."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.maskgit import MaskGIT
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.published.genie import Genie

GREEDY = Sampling(greedy=True)


@pytest.fixture(params=["a", "b"])
def golden(request, shared, tmp_path):
    """(files, tensors, values) of a variant; the files as the hub lays them out."""
    folder = shared / "parity" / "genie_stmaskgit"
    variant = json.loads((folder / "config.json").read_text())["variants"][request.param]
    config = tmp_path / "config.json"
    config.write_text(json.dumps(variant["model"]))
    files = [folder / variant["weights"], config]
    return files, load_file(folder / variant["io"]), variant


def opened(files):
    found = Genie().open(files)
    assert found.left_out == []
    network = build_dynamics(found.config, found.spec, len(found.action_names))
    network.load_state_dict(found.weights)
    return network.eval()


def zeros_for(steps, variant, network):
    """The numbers that decide tokens, which greedy decoding does not look at."""
    num_factors = variant["model"]["num_factored_vocabs"]
    return torch.zeros(steps, num_factors, variant["batch"], network.spec.tokens_per_step)


def grids(flat, network):
    return flat.unflatten(1, (network.config.context_steps, *network.spec.grid[1:]))


def test_logits_loss_and_accuracy(golden):
    files, io, _ = golden
    network = opened(files)
    factors = network.factors
    masked = grids(io["mask"], network).flatten(2)
    shown = factors.split(grids(io["input_ids"] * ~io["mask"], network).flatten(2))
    real = factors.split(grids(io["labels"], network).flatten(2))
    with torch.no_grad():
        logits = network(shown, masked)
    theirs = io["logits"].flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(logits, theirs, atol=2e-4, rtol=0)
    counted = masked.clone()
    counted[:, 0] = False
    loss = factors.token_nll(logits, real)[counted].mean()
    torch.testing.assert_close(loss, io["loss"], atol=1e-4, rtol=0)
    correct = (factors.best(logits) == real).all(-1)[counted]
    torch.testing.assert_close(correct.float().mean(), io["acc"])


@pytest.mark.parametrize("name", ["steps1", "steps2_random", "steps2_greedy"])
@pytest.mark.parametrize("also", [0, 1])
def test_generation(golden, name, also):
    files, io, variant = golden
    network = opened(files)
    steps = int(name[5]) + also * (name != "steps1")
    name = name.replace("2", str(steps))
    start = variant["gen"]["out_t"]
    decoder = MaskGIT(network, GREEDY, num_steps=steps)
    decoder.start(io["gen_prompt"][:, :start])
    uniform = zeros_for(steps, variant, network)
    noise = io["gen_noise"] if "random" in name else None
    frame = decoder.fill(uniform, noise)
    assert torch.equal(frame, io[f"gen_{name}"].flatten(1))
    hidden = torch.ones_like(frame, dtype=torch.bool)
    logits = decoder.logits(network.factors.split(frame), hidden)
    theirs = io["gen_logits"].flatten(3).permute(0, 3, 2, 1).flatten(2)
    torch.testing.assert_close(logits, theirs, atol=2e-4, rtol=0)


def test_evaluation(golden):
    files, io, _ = golden
    network = opened(files)
    video = grids(io["eval_video"], network)
    with torch.no_grad():
        scores = network.score(video)
        logits = network(network.factors.split(video.flatten(2)), None)[:, 1:]
    theirs = io["eval_logits"].flatten(4).permute(0, 3, 4, 2, 1).flatten(3)
    torch.testing.assert_close(logits, theirs, atol=2e-4, rtol=0)
    torch.testing.assert_close(scores.nats[:, 1:].mean(), io["eval_loss"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["steps1", "steps2_random", "steps2_greedy"])
def test_samples_of_the_evaluation(golden, name):
    files, io, variant = golden
    network = opened(files)
    video = grids(io["eval_video"], network)
    frames = []
    for time in range(1, video.shape[1]):
        decoder = MaskGIT(network, GREEDY, num_steps=int(name[5]))
        decoder.start(video[:, :time])
        uniform = zeros_for(int(name[5]), variant, network)
        noise = io["eval_noise"][time - 1][None] if "random" in name else None
        frames.append(decoder.fill(uniform, noise))
    drawn = torch.stack(frames, dim=1)
    assert torch.equal(drawn, io[f"eval_samples_{name}"].flatten(2))
    share = (drawn == video[:, 1:].flatten(2)).float().mean()
    torch.testing.assert_close(share, io[f"eval_acc_{name}"])


def test_what_the_config_says_of_the_tokens(golden):
    files, _, variant = golden
    spec = Genie(fps=5.0).open(files).spec
    side, vocab = round(variant["model"]["S"] ** 0.5), variant["model"]["image_vocab_size"]
    assert spec == TokenSpec(
        (1, side, side), vocab, 5.0, 1, (16 * side, 16 * side), "magvit2", bit_order="little"
    )
    assert Genie().open(files[::-1]).spec.fps == 2.0


def test_every_key_is_needed_and_none_is_left(golden, tmp_path):
    (weights, config), _, _ = golden
    tensors = load_file(weights)
    lacking = {k: v for k, v in tensors.items() if k != "out_x_proj.bias"}
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(BadInput, match=r"lacks out_x_proj\.bias"):
        Genie().open([tmp_path / "lacking.safetensors", config])
    save_file(tensors | {"decoder.norm.weight": torch.ones(3)}, tmp_path / "more.safetensors")
    with pytest.raises(BadInput, match=r"no place for: decoder\.norm\.weight"):
        Genie().open([config, tmp_path / "more.safetensors"])
    with pytest.raises(BadInput, match="genie needs two files"):
        Genie().open([weights])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"d_model": 256}, "token_embed.mask_token_embed is"),
        ({"num_layers": None}, "num_layers is missing"),
        ({"num_experts": 4}, "num_experts is unknown"),
        ({"num_layers": "3"}, "num_layers='3': give a valid integer"),
        ({"num_heads": 0}, "num_heads=0: give greater than 0"),
        ({"S": 15}, "S=15"),
        ({"num_factored_vocabs": 5}, "multiply to"),
    ],
)
def test_a_config_that_is_not_the_weights_is_refused(golden, changed, message):
    (weights, config), _, variant = golden
    values = {k: v for k, v in (variant["model"] | changed).items() if v is not None}
    config.write_text(json.dumps(values))
    with pytest.raises(BadInput, match=message):
        Genie().open([weights, config])


def test_published_sizes_are_those_of_the_published_files():
    """SEEDS: parameters counted from the sizes of the downloads."""
    small = MaskedConfig(256, 32, 8, context_steps=16, factors=(512, 512), look_back=0)
    spec = TokenSpec((1, 16, 16), 2**18, 2.0, 1, (256, 256), "magvit2")
    with torch.device("meta"):
        assert build_dynamics(small, spec, 0).num_parameters() == 35_218_688
        assert build_dynamics(replace(small, dim=512), spec, 0).num_parameters() == 137_545_216
