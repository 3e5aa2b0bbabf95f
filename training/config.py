"""Settings that every training run has; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, one_of, positive, share, within

MAX_SEED = 2**32 - 1  # numpy's
SCHEDULES = ("cosine", "wsd", "constant")


@dataclass(frozen=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019) with warm-up and a schedule.

    Attributes:
        lr: peak learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the square root of the latter.
        weight_decay: of matrices; norms and biases have none.
        schedule: "cosine" (to `min_lr_ratio`), "wsd" (warm-up, stable, linear decay over the
            last `decay_share` of the steps; Hu et al. 2024, arXiv 2404.06395), or "constant".
        warmup_steps: steps of linear warm-up, at most half of the run.
        min_lr_ratio: of "cosine": the last learning rate, as a share of `lr`.
        decay_share: of "wsd": share of the steps in which the rate falls.
        schedule_share: share of the schedule that the steps of the run go through; 0.5 ends in
            its middle, as where accumulated batches are counted and optimizer steps are taken.
        clip_norm: global gradient norm above which gradients are scaled down; 0 is off.
    """

    lr: float = 3e-4
    betas: Sequence[float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    schedule: str = "cosine"
    warmup_steps: int = 100
    min_lr_ratio: float = 0.1
    decay_share: float = 0.2
    schedule_share: float = 1.0

    def __post_init__(self) -> None:
        one_of(SCHEDULES, "optimizer.", schedule=self.schedule)
        positive("optimizer.", lr=self.lr, eps=self.eps)
        if self.lr >= 10:
            raise BadInput(f"optimizer.lr={self.lr}: give a smaller rate, such as 3e-4")
        at_least(0.0, "optimizer.", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        at_least(0, "optimizer.", warmup_steps=self.warmup_steps)
        share("optimizer.", min_lr_ratio=self.min_lr_ratio, decay_share=self.decay_share)
        within(0.01, 1, "optimizer.", schedule_share=self.schedule_share)
        if len(self.betas) != 2:
            raise BadInput(f"optimizer.betas={list(self.betas)}: give two, such as [0.9, 0.95]")
        for beta in self.betas:
            share("optimizer.", betas=beta)
            if beta == 1:
                raise BadInput("optimizer.betas=1: an average that never moves; give less than 1")


@dataclass(frozen=True)
class MuonConfig(AdamWConfig):
    """Muon for the matrices of a network's blocks, AdamW for everything else.

    Attributes:
        muon_lr: peak learning rate of the matrices; widths transfer it as it is.
        momentum: decay of their running mean of the gradient.
        ns_steps: iterations that orthogonalise it (Newton and Schulz).
    """

    muon_lr: float = 1e-2
    momentum: float = 0.95
    ns_steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("optimizer.", muon_lr=self.muon_lr)
        share("optimizer.", momentum=self.momentum)
        at_least(1, "optimizer.", ns_steps=self.ns_steps)


# Those that end in "-true" convert the batch, which Lightning refuses for frozen dataclasses.
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
SHORT_PRECISIONS = ("32", "16", "bf16", 32, 16)  # Lightning's other names for them
STRATEGIES = ("auto", "ddp", "fsdp")
PROFILERS = ("simple", "advanced", "pytorch")
POLICIES = ("stop", "skip")  # for samples that cannot be read
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings at the root of train.yaml.

    Attributes:
        name: of the recipe, which sets it.
        stage: what is trained: worldmodel | tokenizer | semantic | video_decoder | joint; the
            recipe sets it.
        run: the run folder; the same name continues the same run.
        ckpt: "auto" resumes this run folder if it has checkpoints; null begins anew.
        init_from: a run, checkpoint, export or shipped name whose weights a new run begins with;
            null: random ones.
        seed: of the weights at the start, the order of the data, and everything else.
        other_data: resume though the data is not what the run began with.
        fps: frames per second of the data that the recipe was made for; null is any.
        max_passes: stop after this many passes over the training data.
        plan: print what the run will need and take; train nothing.
        plan_device: h200 h100 a100-80 a100-40 4090 3090 cpu; null is what is at hand.
        plan_mfu: share of the peak FLOP/s; null is 0.4 on GPUs, 0.35 on CPUs.
        needs_gpu: recipes too large for a CPU say so at once.
        compile: torch.compile the blocks of the network.
        checkpoint_activations: recompute activations in the backward pass, which saves memory.
        max_skipped_steps: steps in a row that may be NaN and are skipped; 0 stops.
        requeue: under Slurm, SIGUSR2 saves and starts the job again.
    """

    name: str | None = None
    stage: str = "worldmodel"
    run: str = "${paths.runs}/${name}"
    ckpt: str | None = "auto"
    init_from: str | None = None
    other_data: bool = False
    seed: int = 0
    fps: float | None = None
    max_passes: float | None = None
    plan: bool = False
    plan_device: str | int | None = None
    plan_mfu: float | None = None
    needs_gpu: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    max_skipped_steps: int = 0
    requeue: bool = True

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed, max_skipped_steps=self.max_skipped_steps)
        if self.seed > MAX_SEED:
            raise BadInput(f"seed={self.seed}: give a whole number up to {MAX_SEED}")
        if self.plan_mfu is not None:
            share(plan_mfu=self.plan_mfu)
        for name in ("max_passes", "fps", "plan_mfu"):
            if (value := getattr(self, name)) is not None:
                positive(**{name: value})


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """What Lightning's Trainer is given; everything is counted in optimizer steps.

    Attributes:
        accelerator: auto | cpu | gpu | cuda | mps.
        devices: how many, or which; "auto" is all of them.
        num_nodes: machines.
        max_steps: optimizer steps of the run.
        val_check_interval: optimizer steps between validations.
        log_every_n_steps: optimizer steps between logged rows.
        accumulate_grad_batches: batches per optimizer step.
        strategy: "auto" (ddp where there are several devices), "ddp" or "fsdp".
        profiler: "simple" (time of each hook), "advanced" (of each function) or "pytorch" (of each
            operator), written into the run folder.
        precision: "auto" is bf16-mixed where the device of the first start computes in bf16,
            else 32-true.
    """

    accelerator: str = "auto"
    devices: int | str | Sequence[int] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str | int = "auto"
    max_steps: int = 1000
    val_check_interval: int = 500
    log_every_n_steps: int = 20
    accumulate_grad_batches: int = 1
    profiler: str | None = None

    def __post_init__(self) -> None:
        names = ("max_steps", "val_check_interval", "log_every_n_steps", "accumulate_grad_batches")
        for name in (*names, "num_nodes"):
            at_least(1, "trainer.", **{name: getattr(self, name)})
        if self.precision not in SHORT_PRECISIONS:
            one_of(PRECISIONS, "trainer.", precision=self.precision)
        one_of(ACCELERATORS, "trainer.", accelerator=self.accelerator)
        if self.profiler is not None:
            one_of(PROFILERS, "trainer.", profiler=self.profiler)
        one_of(STRATEGIES, "trainer.", strategy=self.strategy)
        if isinstance(self.devices, str):
            one_of(("auto",), "trainer.", devices=self.devices)
        elif isinstance(self.devices, Sequence):
            at_least(0, "trainer.", devices=self.devices)
            at_least(1, **{"len(trainer.devices)": len(self.devices)})
        elif self.devices != -1:
            at_least(1, "trainer.", devices=self.devices)


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """When checkpoints are written.

    Attributes:
        every_steps: optimizer steps between checkpoints.
        keep: how many stay; null keeps all.
        background: write from a thread, while training goes on.
    """

    every_steps: int = 500
    keep: int | None = 2
    background: bool = False

    def __post_init__(self) -> None:
        at_least(1, "checkpoints.", every_steps=self.every_steps)
        if self.keep is not None:
            at_least(2, "checkpoints.", keep=self.keep)


@dataclass(frozen=True)
class PathSettings:
    """Folders that a machine sets once, by DASHCAST_DATA and DASHCAST_RUNS.

    Attributes:
        data: embedded drives, token stores, frame caches.
        runs: run folders.
    """

    data: str = "${oc.env:DASHCAST_DATA,data}"
    runs: str = "${oc.env:DASHCAST_RUNS,runs}"


@dataclass(frozen=True, kw_only=True)
class ExamineSettings:
    """Which run is examined.

    Attributes:
        run: a run folder.
        reference: curves of healthy runs; null: those that ship for its recipe, if any.
        out: where the picture goes; null: RUN/curves.png.
    """

    run: str
    reference: str | None = None
    out: str | None = None


@dataclass(frozen=True)
class ProgressBarConfig:
    """Lightning's progress bar.

    Attributes:
        refresh_rate: steps between redraws; 0 is no bar.
        leave: whether it stays when the run is over.
    """

    refresh_rate: int = 20
    leave: bool = False

    def __post_init__(self) -> None:
        at_least(0, "callbacks.progress_bar.", refresh_rate=self.refresh_rate)


# The settings of train.yaml that nothing is built from, by where they lie.
TRAINING: dict[str, type] = {
    "": RunSettings,
    "trainer": TrainerSettings,
    "checkpoints": CheckpointSettings,
    "paths": PathSettings,
}
