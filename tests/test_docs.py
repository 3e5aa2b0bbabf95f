"""The commands of the README and of docs/ run as they stand, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from published_files import gpt2m_files
from warm_python import warm_python

from training.sweeps.snapshot import PACKAGES

ROOT = Path(__file__).parent.parent

PAGES = ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
FEW_DRIVES = [
    "data.source.carracing.num_train=2",
    "data.source.carracing.num_val=1",
    "data.source.carracing.num_test=1",
    "data.source.carracing.seconds=4.0",
]
# Long enough that one is lost on the grass.
LOST_DRIVES = [
    *FEW_DRIVES,
    "data.source.carracing.num_train=4",
    "data.source.carracing.seconds=20.0",
]
TWO_STEPS = [
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "callbacks.media=null",
    "data.num_workers=0",
]
# Added to a command, so that it takes seconds: sizes only, never what it does.
SHORT = {
    "train.py +experiment=tokenizer_video": ["+debug=fast"],
    "train.py +experiment=musik": ["+debug=fast"],
    "train.py +experiment=tokenizer_tiny init_from": [*TWO_STEPS, *FEW_DRIVES],
    "train.py +experiment=tokenizer": ["+debug=fast"],
    "train.py +experiment=gpt_tiny init_from": TWO_STEPS,
    "train.py +experiment=gpt": ["+debug=fast"],
    "train.py +experiment=occupancy": ["+debug=fast"],
    "train.py +experiment=codec": ["+debug=fast"],
    "train.py +experiment=video": ["+debug=fast"],
    "-m worldmodel.video_decoder": ["num_clips=1", "clip_frames=13"],
    "eval.py ckpt=runs/occupancy": [
        "cards.occupancy.num_windows=2",
        "cards.occupancy.num_samples=2",
        "cards.occupancy.reward_steps=2",
    ],
    "eval.py ckpt=models/gpt2m card=commavq": [],
    "eval.py ckpt=runs/tokenizer": [],
    "eval.py ckpt=models/gpt2m": [
        "card=teacher_forced",
        "cards.teacher_forced.version=short",
        "cards.teacher_forced.num_windows=4",
    ],
    "eval.py": [
        "card=[teacher_forced,rollout]",
        "cards.teacher_forced.version=short",
        "cards.teacher_forced.num_windows=4",
        "cards.rollout.version=short",
        "cards.rollout.num_clips=1",
        "cards.rollout.horizon_s=0.2",
    ],
    "-m worldmodel.evaluation.decoding_bench": ["num_frames=2", "repeats=1"],
    "-m worldmodel.evaluation.videos": ["max_clips=4", "metrics=single,duplicates"],
    "-m worldmodel.rollout ckpt=runs/occupancy": ["num_clips=1"],  # as long as a sample
    "-m worldmodel.rollout": ["num_clips=1", "horizon_s=0.1"],
    "-m worldmodel.heads": [*LOST_DRIVES, "steps=20"],
    "-m worldmodel.proving_ground": [
        *LOST_DRIVES,
        "num_tracks=2",
        "num_graded=3",
        "horizons_s=[0.3]",
        "num_workers=1",
        "cloning.steps=20",
        "dream_training.rounds=1",
        "dream_training.num_candidates=4",
        "dream_training.num_starts=1",
        "dream_training.seconds=0.2",
    ],
    "-m worldmodel.evaluation.kinds_table": ["--num-windows=2", "--num-frames=2"],
    "-m tokenizer.encode": FEW_DRIVES,
    "-m tokenizer.compare": ["num_clips=2", "clip_frames=8", "video_s=0.5"],
    "-m worldmodel.evaluation.tokenizer_sweep": [
        "data=few_drives",
        "trainer.max_steps=2",
        "data.batch_size=2",
    ],
}
# What this test does not do: install again, run itself, or train a base model's whole shape.
LEFT_OUT = r"^(make |python3 -m venv|pip install|python -m pytest|python -m benchmarks)"


def short_ladder(file: Path, folder: Path) -> Path:
    """The same ladder with short runs."""
    text = re.sub(
        r"max_steps: (\d+)", lambda found: f"max_steps: {int(found[1]) // 30}", file.read_text()
    )
    short = folder / file.name
    short.write_text(text.replace("num_val_windows=5994", "num_val_windows=64"))
    assert short.read_text() != file.read_text()
    return short


def commands_of(page: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not re.match(LEFT_OUT, line)]


def shortened(line: str, folder: Path) -> str:
    line = line.replace("/path/to/drives", str(next((folder / "data").glob("carracing*"), "")))
    shared = os.environ.get("DASHCAST_SHARED", str(ROOT.parent / "shared"))
    line = line.replace("/path/to/tokens.npy", f"{shared}/data/commavq/tokens.npy")
    line = line.replace("/path/to/commavq/", f"{shared}/parity/commavq_vqvae/")
    line = line.replace("/path/to/real", f"{shared}/data/udacity/lake")
    line = line.replace("/path/to/fake", f"{shared}/data/udacity/mountain")
    if (ladder := re.search(r"configs/ladder/\w+\.yaml", line)) is not None:
        line = line.replace(ladder[0], str(short_ladder(ROOT / ladder[0], folder)))
    if "/path/to/gpt2m/" in line:
        gpt2m_files(folder)
        line = line.replace("/path/to/gpt2m/", f"{folder}/")
    comment = line.find(" #")
    line = line if comment < 0 else line[:comment]
    for start, extra in SHORT.items():
        if start in line.replace("-m +exp", "+exp"):
            name = re.search(r"run=\S+", line)
            keep = [] if name else ["run='${paths.runs}/${name}'"]
            extra = [*extra, *(keep if "train.py" in start and " -m " not in line else [])]
            return f"{line} {' '.join(extra)}"
    return line


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    with warm_python(tmp_path_factory.mktemp("python")) as folder:
        yield folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_the_commands_of_a_page_run(page, python, tmp_path, shared):
    for name in ("train.py", "eval.py", *PACKAGES):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PATH": f"{python}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DASHCAST_SHARED": str(shared),
        "WANDB_MODE": "disabled",
        "PYTHONPATH": str(tmp_path),
    }
    for command in commands_of(page):
        result = subprocess.run(
            ["bash", "-ec", shortened(command, tmp_path)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, (
            f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
        )


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [page for page in PAGES[1:] if page not in readme] == []
