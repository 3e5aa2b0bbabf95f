"""The ruler on folders: result, page, refusals and exit codes; probes ordered as they must be."""

import json

import numpy as np
import pytest
import torch
from browser import DESKTOP, PHONE, opened, overflow, resize
from encoded_videos import smooth_frames

from drives.video import read_frames, write_video
from training.errors import BadInput
from worldmodel.evaluation.videos.command import main, read_settings
from worldmodel.evaluation.videos.config import METRICS, RulerConfig
from worldmodel.evaluation.videos.frechet import Frechet
from worldmodel.evaluation.videos.i3d import i3d_features, load_i3d
from worldmodel.evaluation.videos.ruler import measure, open_subject

PLAIN = ("statistics", "single", "duplicates")
COUNT, LENGTH = 6, 40


def refuse_constant(name):
    raise AssertionError(f"{name} is no JSON")


def recordings():
    """Some videos of one world, with the yaw that moved each sideways."""
    picture = smooth_frames(1, 80, 200)[0]
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        steps = rng.integers(-3, 4, LENGTH)
        places = 80 + np.concatenate([[0], np.cumsum(steps)[:-1]])
        frames = [picture[8 + number :][:48, np.clip(x, 0, 136) :][:, :64] for x in places]
        yield f"v{number}", np.stack(frames), steps / 10


def write_folder(folder, change=lambda frames: frames, prefix="", actions=True):
    for name, frames, yaw in recordings():
        place = folder / f"{prefix}{name}"
        place.mkdir(parents=True)
        write_video(place / "video.mp4", change(frames), 10)
        if actions:
            rows = "".join(f"{value}\n" for value in yaw)
            (place / "actions.csv").write_text(f"yaw_rate_rad_s\n{rows}")
    return folder


def noised(frames):
    noise = np.random.default_rng(1).normal(0, 25, frames.shape)
    return (frames + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    return write_folder(root / "real"), write_folder(root / "fake", noised, actions=False)


def settings(real, fake, **changes):
    small = {"clip_frames": 8, "min_clips": 8, "metrics": PLAIN}
    return RulerConfig(str(real), str(fake), **(small | changes))


@pytest.fixture(scope="module")
def result(folders, tmp_path_factory):
    """One run of the command."""
    out = tmp_path_factory.mktemp("ruler") / "out"
    real, fake = folders
    places = [f"real={real}", f"fake={fake}", f"out={out}"]
    sizes = ["clip_frames=8", "min_clips=8", "horizons=4"]
    main([*places, *sizes, "metrics=statistics,single,duplicates,paired"])
    text = (out / "metrics.json").read_text()
    return out, json.loads(text, parse_constant=refuse_constant)


def test_every_score_has_an_interval_and_its_floors(result):
    _, found = result
    distance = found["distances"]["statistics"]
    assert distance["low"] < distance["value"] < distance["high"]
    assert set(distance["floors"]) == {"copy_first_frame", "real_other_half"}
    assert distance["curve"]["num_clips"][-1] == distance["num_real"] == 30
    pairs = found["paired"]
    assert pairs["num_pairs"] == COUNT
    assert pairs["seconds"][0] == pytest.approx(0.1)
    for metric in ("psnr", "ssim", "lpips"):
        fake, floor = (pairs["mean"][row][metric] for row in ("fake", "floor_copy_last"))
        assert fake["low"] <= fake["value"] <= fake["high"]
        assert fake["num_drives"] == COUNT
        over = pairs["over_floor"][metric]
        assert over["value"] == pytest.approx(fake["value"] - floor["value"])
        assert len(pairs["by_horizon"]["fake"][metric]) == len(pairs["seconds"])
    sharpness = found["single"]["sharpness"]
    assert sharpness["fake"]["low"] > sharpness["real"]["high"]  # noise is sharp
    assert pairs["added_flicker"]["value"] > 5
    assert found["near_duplicates"]["fake_of_real"]["num_clips"] == 30


def test_everything_is_hashed(result, folders):
    _, found = result
    assert len(found["ruler"]["code_sha256"]) == 64
    assert found["ruler"]["settings"]["clip_frames"] == 8
    assert len(found["weights"]["lpips_alex"]) == 64
    for side in ("real", "fake"):
        assert [v["name"] for v in found[side]["videos"]] == [f"v{i}" for i in range(COUNT)]
        assert len({v["sha256"] for v in found[side]["videos"]}) == COUNT
    assert found["warnings"].keys() == {"clip_frames"}


def test_the_same_folders_give_the_same_digits_whatever_the_batch(folders):
    subject = open_subject(settings(*folders, batch_size=5))
    found = measure(subject)
    assert found == measure(open_subject(settings(*folders, batch_size=5)))
    alone = measure(open_subject(settings(*folders, batch_size=1, metrics=("statistics",))))
    values = [r["distances"]["statistics"]["value"] for r in (alone, found)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_the_page_opens_from_disk(result):
    with opened(result[0] / "ruler.html", PHONE) as page:
        text = page.inner_text("body")
        assert overflow(page) <= 0
        page.click("th button >> nth=0")
        resize(page, DESKTOP)
        assert overflow(page) <= 0
    for word in ("floor: real, frozen", "Near-duplicates", "clip_frames", "PSNR"):
        assert word in text
    assert (result[0] / "ruler.html").stat().st_size < 20e6


def test_a_page_that_fails_costs_no_score(folders, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise OSError("no space for the page")

    out = tmp_path / "out"
    words = [f"real={folders[0]}", f"fake={folders[1]}", f"out={out}", "clip_frames=8"]
    words += ["min_clips=8", "metrics=single"]
    with monkeypatch.context() as patched:
        patched.setattr("worldmodel.evaluation.videos.command.write_page", fails)
        with pytest.raises(OSError, match="no space for the page"):
            main(words)
    assert "sharpness" in capsys.readouterr().out
    assert json.loads((out / "metrics.json").read_text())["single"]
    main(words)  # the same folder is taken again
    assert (out / "ruler.html").exists()
    (out / "metrics.json").write_text('{"cards": {}}')  # as eval.py writes
    with pytest.raises(BadInput, match="is no result of ours"):
        main(words)


def test_probes_of_the_same_folder_are_ordered(folders, tmp_path):
    real, _ = folders
    probes = {
        "same": (lambda x: x, "duplicates"),
        "noised": (noised,),
        "frozen": (lambda x: np.repeat(x[:1], len(x), 0), "single"),
    }
    found = {}
    for name, (change, *more) in probes.items():
        fake = write_folder(tmp_path / name, change)
        subject = open_subject(settings(real, fake, metrics=("statistics", *more)))
        found[name] = measure(subject)
    values = {name: r["distances"]["statistics"]["value"] for name, r in found.items()}
    assert values["same"] == pytest.approx(0, abs=1e-6)
    floors = found["same"]["distances"]["statistics"]["floors"]
    assert values["same"] < floors["real_other_half"]["value"]
    assert values["frozen"] == pytest.approx(floors["copy_first_frame"]["value"], rel=0.3)
    assert values["frozen"] > floors["real_other_half"]["value"]
    assert values["noised"] > values["same"]
    copies = found["same"]["near_duplicates"]["fake_of_real"]
    assert copies["num_near_duplicates"] == copies["num_clips"] == 30
    assert copies["pairs"][0]["clip"] == copies["pairs"][0]["other"]
    assert found["frozen"]["single"]["change"]["fake"]["value"] < 0.5


@pytest.mark.slow
def test_control_reads_the_yaw_that_moved_the_pictures(folders, tmp_path):
    real, _ = folders
    backward = write_folder(tmp_path / "backward", lambda x: x[:, :, ::-1], actions=False)
    found = {}
    for name, fake in (("same", real), ("mirrored", backward)):
        subject = open_subject(settings(real, fake, metrics=("control",)))
        found[name] = measure(subject)["control"]["yaw_rate_rad_s"]
    assert found["same"]["real"]["correlation"]["value"] > 0.7
    assert found["mirrored"]["fake"]["correlation"]["value"] < -0.7
    floor = found["same"]["floor_frozen"]
    assert found["same"]["fake"]["error"]["value"] < floor["error"]["value"]
    assert found["mirrored"]["fake"]["error"]["value"] > floor["error"]["value"]


def test_what_would_mislead_is_refused_with_the_reason(folders, tmp_path):
    real, fake = folders
    with pytest.raises(BadInput, match=r"metrics=fvd: needs min_clips=64 .* real has 18, fake 18"):
        open_subject(settings(real, fake, clip_frames=12, min_clips=64, metrics=("fvd",)))
    with pytest.raises(BadInput, match=r"metrics=fid: needs inception=FILE"):
        open_subject(settings(real, fake, metrics=("fid",)))
    with pytest.raises(BadInput, match=r"no clip of 99 frames"):
        open_subject(settings(real, fake, clip_frames=99))
    with pytest.raises(BadInput, match="I3D needs 9 frames, clip_frames=8"):
        open_subject(settings(real, fake, metrics=("fvd",)))
    other = write_folder(tmp_path / "other", prefix="w", actions=False)
    with pytest.raises(
        BadInput, match=r"nothing can be measured: .* no video of one folder is named"
    ):
        open_subject(settings(real, other, clip_frames=99, metrics=()))
    subject = open_subject(settings(real, other, metrics=()))
    refused = {metric for metric in METRICS if subject.refusal(metric)}
    assert refused == {"fvd", "fid", "paired", "control"}


def test_settings_are_read_and_judged():
    given = ["real=1", "fake=b", "fps=10", "metrics=fvd,paired", "i3d=null", "side=212"]
    assert read_settings(given) == RulerConfig(
        "1", "b", fps=10, metrics=("fvd", "paired"), i3d=None, side=212
    )
    for arguments, message in (
        (["real=a"], "fake: has no default"),
        (["real=a", "fake=b", "clip_framez=3"], "clip_framez: no such setting; did you mean clip_"),
        (["real=a", "fake=b", "clip_frames=x"], "clip_frames='x': give a valid integer"),
        (["real=a", "fake=b", "min_clips=1"], "min_clips=1: give a whole number from 2 on"),
        (["real=a", "fake=b", "metrics=fvdd"], r"metrics\[0\]='fvdd'"),
        (["real=a", "fake=b", "folder"], "folder: write setting=value"),
    ):
        with pytest.raises(BadInput, match=message):
            read_settings(arguments)


def test_a_folder_that_is_no_result_is_not_replaced(folders, tmp_path):
    real, fake = folders
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInput, match="is no result of ours"):
        main([f"real={real}", f"fake={fake}", f"out={tmp_path / 'mine'}"])
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.slow
def test_fvd_of_probes_of_a_real_drive_is_ordered(shared):
    """Frozen, reversed, noised and half-set probes, as the true I3D sees them."""
    frames = list(read_frames(shared / "data/udacity/mountain/video.mp4", 0, 16 * 16))
    clips = torch.from_numpy(np.stack(frames)).unflatten(0, (-1, 16))
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0)) * 40
    probes = {
        "reversed": clips.flip(1),
        "frozen": clips[:, :1].expand_as(clips),
        "noised": (clips.float() + noise).clamp(0, 255).to(torch.uint8),
    }
    network = load_i3d()
    real = i3d_features(network, clips).numpy()
    found = {name: Frechet(real, i3d_features(network, x).numpy())() for name, x in probes.items()}
    half = Frechet(real[::2], real[1::2])()
    assert Frechet(real, real)() == pytest.approx(0, abs=1e-3)
    assert 0 < found["reversed"] < found["frozen"] < found["noised"]
    assert half < found["frozen"]
