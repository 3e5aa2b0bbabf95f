"""Readers of foreign formats, each with a file that it reads."""

from attacks.foreign_files import (
    SHARED,
    archive,
    bag,
    bag_metadata,
    comma_file,
    comma_zip,
    episodes,
    lerobot_file,
    listed,
    logged,
    nanogpt,
    npy_tokens,
    nuplan_database,
    nuscenes_table,
    read_tokens,
    read_v1,
    read_v2,
    real,
    recorded,
    table_of,
    token_file,
    udacity_log,
)
from attacks.own_readers import COUNT_SLOW, COUNT_SLOWEST, Reader
from onex_files import write_onex_v1, write_onex_v2

from drives.importers.recordings.zipped import read_array
from drives.importers.tokens.commavq_bin import read_segments as read_bin
from drives.importers.tokens.dmc_latents import read_latents
from drives.importers.tokens.npy_tokens import read_tokens as read_npy_tokens

# Where the real recordings are.
REAL_READERS = {
    "real comma2k19, CAN/speed/value": Reader(
        real("comma2k19/Example_1/*/40/processed_log/CAN/speed/value"),
        lambda file: read_array(file, ()),
        False,
        COUNT_SLOW,
    ),
    "real commaVQ, tokens.npy": Reader(real("commavq/tokens.npy"), read_tokens, False, COUNT_SLOW),
    "real Donkey Car, catalog_0.catalog": Reader(
        real("donkeycar/tub.tar.gz"),
        recorded("donkeycar", frames=False, fps=20.0),
        False,
        COUNT_SLOWEST,
    ),
}
IMPORTED_READERS = {
    **(REAL_READERS if SHARED.is_dir() else {}),
    "segments.tar": Reader(archive("a.tar"), read_tokens, False),
    "segments.tar.gz": Reader(archive("a.tar.gz"), read_tokens, True),
    "token.npy": Reader(token_file, read_tokens, False),
    "driving_log.csv": Reader(udacity_log, recorded("udacity", frames=False), False),
    "1X v1.1, metadata.json": Reader(
        lambda folder: write_onex_v1(folder / "a") / "metadata.json", read_v1, False
    ),
    "1X v1.1, joint_pos.bin": Reader(
        lambda folder: write_onex_v1(folder / "a") / "actions/joint_pos.bin", read_v1, False
    ),
    "1X v2.0, metadata_0.json": Reader(
        lambda folder: write_onex_v2(folder / "a") / "metadata_0.json", read_v2, False
    ),
    "1X v2.0, segment_idx_0.bin": Reader(
        lambda folder: write_onex_v2(folder / "a") / "segment_idx_0.bin", read_v2, False
    ),
    **{
        f"comma2k19, {name}": Reader(
            comma_file(name), recorded("comma2k19", up, frames), False, n, "40"
        )
        for name, up, frames, n in (
            ("global_pose/frame_times", 2, False, COUNT_SLOW),
            ("global_pose/frame_orientations", 2, False, COUNT_SLOW),
            ("processed_log/CAN/speed/value", 4, False, COUNT_SLOW),
            ("video.hevc", 1, True, COUNT_SLOW),
        )
    },
    "comma2k19, chunk.zip": Reader(comma_zip, recorded("comma2k19"), False, COUNT_SLOW),
    **{
        f"ROS, {kind}": Reader(bag(kind), recorded("rosbag", 0), False, COUNT_SLOWEST)
        for kind in ("bag", "db3", "mcap")
    },
    "ROS, metadata.yaml": Reader(bag_metadata, recorded("rosbag"), False, COUNT_SLOWEST),
    "control suite, hdf5": Reader(episodes(), recorded("dmc", fps=50), False, COUNT_SLOW),
    "latents, hdf5": Reader(episodes("vae_latents"), read_latents, False, COUNT_SLOW),
    **{
        f"LeRobot, {name}": Reader(
            lerobot_file(name), recorded("lerobot", up), False, COUNT_SLOW, "set"
        )
        for name, up in (
            ("meta/info.json", 2),
            ("meta/episodes/chunk-000/file-000.parquet", 4),
            ("data/chunk-000/file-000.parquet", 3),
        )
    },
    "nanoGPT, train.bin": Reader(nanogpt, lambda file: list(read_bin(file)), False),
    "tokens.npy": Reader(npy_tokens, read_npy_tokens, False),
    **{
        f"nuScenes, {name}.json": Reader(
            nuscenes_table(name), recorded("nuscenes", 2, frames=False), False, COUNT_SLOW
        )
        for name in ("scene", "sample", "sample_data", "ego_pose")
    },
    "nuPlan, log.db": Reader(nuplan_database, recorded("nuplan", 0), False, COUNT_SLOWEST),
    **{
        f"OpenDV, {name}": Reader(listed(name), recorded("opendv", up), False, COUNT_SLOW, "set")
        for name, up in (("meta/OpenDV-YouTube.json", 2), ("10hz_YouTube_val.json", 1))
    },
    **{
        f"Donkey Car, {name}": Reader(
            logged("tub", name, count=44), recorded("donkeycar", frames=False), False, COUNT_SLOW
        )
        for name in ("manifest.json", "catalog_0.catalog")
    },
    "Udacity's car, interpolated.csv": Reader(
        logged("interpolated", "interpolated.csv", count=24),
        recorded("udacity_car", frames=False, lock_deg=450.0),
        False,
        COUNT_SLOW,
    ),
    "Sully Chen, data.txt": Reader(
        logged("sully_folder", "data.txt", dated=True),
        recorded("sully_chen", frames=False),
        False,
        COUNT_SLOW,
    ),
    **{
        f"{kind}, drive.{suffix}": Reader(
            table_of(kind, suffix), recorded(kind, frames=False), False, COUNT_SLOW
        )
        for kind in ("videos", "frames")
        for suffix in ("csv", "parquet")
    },
}
