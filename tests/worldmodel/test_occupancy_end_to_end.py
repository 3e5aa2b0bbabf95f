"""The tokenizers of Video Occupancy Models, each from the suite's HDF5 to a sampled future."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from dmc_files import write_dmc
from vqgan_by_name import ByName

from drives.exporters.__main__ import main as export_main
from drives.importers.__main__ import main as import_main
from drives.tokens.store import TokenStore
from tokenizer.published import convert
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.load import load_world_model

RUN = [
    "trainer.max_steps=1",
    "trainer.precision=32-true",
    "callbacks.media=null",
    "data.batch_size=2",
    "data.num_workers=0",
    "data.duplicates=off",
    "max_passes=null",
    "fps=20",
]
SMALL = ["model.network.dim=48", "model.network.num_layers=1", "model.network.num_heads=2"]
OF_FEATURES = {
    "musik_tiny": ["model.network.channels=[8,16]", "model.network.num_negatives=15"],
    "vqkd_vits16": [
        "model.weights=random",
        "model.network.image_size=[64,64]",
        "model.network.dim=32",
        "model.network.depth=1",
        "model.network.heads=2",
        "model.network.encoder_depth=1",
    ],
}
ACTIONS = tuple(f"action_{joint}" for joint in range(6))


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Two episodes of stacked frames, imported."""
    write_dmc(tmp_path / "in/cheetah.hdf5", (100, 100), stack=3)
    words = ["--fps=20", "--num-workers=0", "--split", "0.6", "0.2", "0.2", "--size", "64", "64"]
    import_main(["dmc", str(tmp_path / "in"), str(tmp_path / "drives"), *words])
    return tmp_path / "drives"


def sampled(run: Path, clips: TokenStore) -> None:
    """Samples of the discounted future of a state, of the right tokens."""
    model = load_world_model(run)
    assert model.action_names == ACTIONS
    assert clips.columns == (*ACTIONS, "reward")
    drive = clips.drives("train")[0]
    state = model.network.state_steps
    grid = model.network.layout.height, model.network.layout.width
    tokens = torch.from_numpy(np.asarray(drive.tokens[:state], np.int64)).reshape(1, state, *grid)
    actions = torch.from_numpy(np.array(drive.actions[None, :state], np.float32))
    stack = model.network.sample_steps
    futures = rollout(model.network, tokens, actions, stack, Sampling(seed=1), 3)
    assert futures.shape == (1, 3, stack, *grid)
    assert int(futures.min()) >= 0
    assert int(futures.max()) < clips.spec.vocab_size


def store_below(folder: Path) -> TokenStore:
    (manifest,) = folder.glob("tokens/*/manifest.json")
    return TokenStore(manifest.parent)


@pytest.mark.slow
def test_latents_that_are_stored(tmp_path: Path, composed, fit) -> None:
    """`vae_latents` of files become tokens; a model of them samples."""
    write_dmc(tmp_path / "in/cheetah.hdf5", (12,) * 6, stack=3, latents="vae_latents")
    import_main(["dmc_latents", str(tmp_path / "in"), str(tmp_path / "store"), "--fps=20"])
    data = ["data=tokens", f"data.root={tmp_path}/store"]
    _, run, _ = fit(composed("occupancy_tiny", *data, *RUN, *SMALL))
    sampled(run.folder, TokenStore(tmp_path / "store"))


@pytest.mark.long
def test_a_published_vqgan_of_the_cheetah(drives, tmp_path: Path, composed, fit) -> None:
    """cheetah_vq_vae_model.pth has taming's keys; its tokens go out as latents and come back."""
    network = ByName("taming", 8)
    network.frames(network.looked_up(network.tokens(network.latents(torch.rand(1, 3, 64, 64)))))
    weights = {**network.weights, "loss.discriminator.main.0.weight": torch.ones(2)}
    weights["quantize.embedding.weight"] = torch.randn(1024, 8)  # as many codes as upstream
    torch.save(weights, tmp_path / "cheetah_vq_vae_model.pth")
    out = tmp_path / "tokenizer"
    convert("video_occupancy", [tmp_path / "cheetah_vq_vae_model.pth"], out, image_size=[64, 64])
    data = ["data=drives", f"data.root={drives}", f"data.tokenizer={out}"]
    places = [f"paths.data={tmp_path}/data"]
    _, run, _ = fit(composed("occupancy_tiny", *data, *RUN, *SMALL, *places))
    store = store_below(tmp_path / "data")
    sampled(run.folder, store)
    export_main(["dmc", str(drives), str(tmp_path / "h5"), f"--latents={store.root}"])
    with h5py.File(tmp_path / "h5/train.hdf5") as file:
        latents = file["vae_latents"][()]
    kept = [np.asarray(d.tokens, np.int64).reshape(d.num_steps, -1) for d in store.drives("train")]
    np.testing.assert_array_equal(latents, np.concatenate(kept))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OF_FEATURES)
def test_tokens_of_features(recipe: str, drives, tmp_path: Path, composed, fit) -> None:
    """MUSIK's, and those of a frozen network's features (VQ-KD)."""
    where = ["data=drives", f"data.root={drives}", f"paths.data={tmp_path}/data", *RUN[:-2]]
    run = fit(composed(recipe, *where, *OF_FEATURES[recipe], "data.num_val_clips=2"))[1].folder
    data = ["data=drives", f"data.root={drives}", f"data.tokenizer={run}"]
    places = [f"paths.data={tmp_path}/data"]
    _, trained, _ = fit(composed("occupancy_tiny", *data, *RUN, *SMALL, *places))
    sampled(trained.folder, store_below(tmp_path / "data"))
