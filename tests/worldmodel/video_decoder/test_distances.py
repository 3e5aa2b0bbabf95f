"""Frechet distances of videos to the recording: what they are of, and when there are none."""

import pytest
import torch
from safetensors.torch import save_file

from training.errors import BadInput
from worldmodel.evaluation.videos.i3d import I3D
from worldmodel.video_decoder.distances import VideoDistances

DRIVES = ["a", "b"]


def videos(seed: int = 0, frames: int = 33) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(2, frames, 3, 32, 32, generator=draw) * 2 - 1


def statistics(real: torch.Tensor, min_clips: int = 4) -> VideoDistances:
    return VideoDistances(real, DRIVES, ["statistics"], min_clips)


def test_a_noisier_video_is_farther_and_the_recording_is_at_0() -> None:
    smooth = torch.linspace(-1, 1, 33)[None, :, None, None, None] * videos(frames=1)
    found = statistics(smooth)
    near, far = (
        found.of((smooth + std * videos(1)).clamp(-1, 1))["statistics"].value for std in (0.1, 0.6)
    )
    assert found.of(smooth)["statistics"].value == 0
    assert near is not None
    assert far is not None
    assert 0 < near < far
    facts = found.facts()
    assert (facts["num_clips"], facts["num_drives"], facts["clip_frames"]) == (4, 2, 16)
    assert facts["real_other_half"]["statistics"]["value"] > 0


def test_too_few_clips_have_no_distance_and_the_reason_is_told() -> None:
    found = statistics(videos(), 5)
    assert found.of(videos(1)) == {}
    assert "hold 4 of 16, and min_clips=5 are needed" in found.facts()["missing"]["statistics"]


def test_without_i3d_the_statistics_are_left_and_a_wrong_file_is_refused(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    found = VideoDistances(videos(), DRIVES, min_clips=4)
    assert "FVD needs I3D's weights" in found.facts()["missing"]["fvd"]
    assert list(found.of(videos(1))) == ["statistics"]
    file = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, file)
    with pytest.raises(BadInput, match="is not FVD's network"):
        VideoDistances(videos(), DRIVES, ["fvd"], 4, file)


def test_fvd_is_of_the_given_network(tmp_path, monkeypatch) -> None:
    """I3D itself takes seconds; here a feature is a pixel times the sum of one of its weights."""

    def features(self: I3D, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :400] * next(self.parameters()).abs().sum()

    monkeypatch.setattr(I3D, "forward", features)
    torch.manual_seed(0)
    network, values, hashes = I3D(), [], set()
    for number in range(2):
        file = tmp_path / f"{number}.safetensors"
        save_file(network.state_dict(), file)
        found = VideoDistances(videos(frames=16), DRIVES, ["fvd"], 2, file)
        values.append(found.of(videos(1, 16))["fvd"].value)
        hashes.add(found.facts()["weights"]["i3d"])
        next(network.parameters()).data *= 2
    assert values[0] > 0
    assert values[1] == pytest.approx(4 * values[0], rel=1e-3)
    assert [len(digest) for digest in hashes] == [64, 64]
