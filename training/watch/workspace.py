"""A saved wandb workspace for five questions: python -m training.watch.workspace ENTITY/PROJECT

Is it learning, is it fast, is it stable, what does it dream, can it resume.
Needs `pip install -e '.[workspace]'` and a wandb login; prints the address of the workspace.
"""

import re
import sys
from typing import Any

from training.cli import fail

AXIS = "trainer/global_step"
# Question -> panels; every panel shows one or more metrics over the steps.
SECTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Is it learning?": (
        ("train/loss", "val/loss"),
        ("train/bits_per_token", "val/bits_per_token"),
        ("val/psnr",),
        ("val/ssim",),
        ("val/lpips",),
    ),
    "Is it fast?": (
        ("perf/tokens_per_s",),
        ("perf/mfu", "perf/mfu_causal"),
        ("perf/step_time_s",),
        ("perf/peak_memory_gb",),
        ("data/wait_share",),
    ),
    "Is it stable?": (
        ("train/grad_norm",),
        ("train/lr",),
        ("train/skipped_steps", "data/corrupt_samples"),
        ("val/codebook_usage",),
        ("val/codebook_perplexity",),
        ("train/logits_real", "train/logits_fake"),
    ),
    "What does it dream?": (("rollout/clips",), ("rollout/reconstructions",)),
    "Can it resume?": (("ckpt/step",), ("ckpt/stall_s",), ("perf/goodput",)),
}
MEDIA = "rollout/"


def build(entity: str, project: str) -> Any:
    """The workspace, not yet saved; runs are grouped by sweep."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    def panel(metrics: tuple[str, ...]) -> Any:
        if metrics[0].startswith(MEDIA):
            return panels.MediaBrowser(media_keys=list(metrics))
        return panels.LinePlot(title=" and ".join(metrics), x=AXIS, y=list(metrics))

    sections = [
        workspaces.Section(name=name, panels=[panel(m) for m in metrics], is_open=True)
        for name, metrics in SECTIONS.items()
    ]
    settings = workspaces.WorkspaceSettings(x_axis=AXIS)
    return workspaces.Workspace(
        entity=entity, project=project, name="dashcast", sections=sections, settings=settings
    )


def main(arguments: list[str]) -> None:
    match = re.fullmatch(r"([\w.-]+)/([\w.-]+)", arguments[0]) if len(arguments) == 1 else None
    if match is None:
        fail("give one ENTITY/PROJECT of wandb: python -m training.watch.workspace me/dashcast")
    try:
        workspace = build(*match.groups())
    except ImportError:
        fail("wandb-workspaces is not installed: pip install -e '.[workspace]'")
    workspace.save()
    print(workspace.url)


if __name__ == "__main__":
    main(sys.argv[1:])
