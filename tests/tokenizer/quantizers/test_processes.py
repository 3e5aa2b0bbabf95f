"""Several processes learn one codebook: that of one process with the whole batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tokenizer.losses.terms import LeCam
from tokenizer.quantizers.config import LFQConfig, VQConfig
from tokenizer.quantizers.kinds import build_quantizer

BATCHES = [torch.randn(64, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
STILL = {"kmeans_batches": 0, "dead_below": 0.0}
CODEBOOKS = {
    "normalised": VQConfig(16, 4, 4, decay=0.5, **STILL),
    "plain": VQConfig(16, 4, 4, normalize=False, decay=0.5, **STILL),
    "placed": VQConfig(16, 4, 4, decay=0.5, kmeans_batches=2, dead_below=0.5),
}


def learned(config, rank: int, world: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    torch.manual_seed(rank)  # ranks draw different numbers
    for batch in BATCHES:
        quantizer(batch.chunk(world)[rank])
    return quantizer.state_dict()


def entropy_gradient(rank: int, world: int) -> dict[str, torch.Tensor]:
    lfq = build_quantizer(LFQConfig(4, temperature=1.0, commitment_weight=0.0))
    z = BATCHES[0].chunk(world)[rank].clone().requires_grad_()
    weight = torch.ones(4, requires_grad=True)  # what DDP would average the gradient of
    sum(lfq(z * weight).losses.values()).backward()
    gradient = weight.grad / world
    if world > 1:
        dist.all_reduce(gradient)
    return {"batch": lfq.entropies(z)[1].detach(), "gradient": gradient}


def everything(rank: int, world: int) -> dict[str, dict[str, torch.Tensor]]:
    found = {name: learned(config, rank, world) for name, config in CODEBOOKS.items()}
    lecam = LeCam(0.9)
    half = BATCHES[0].view(64, 1, 2, 2).chunk(world)[rank]
    lecam(half, -half)
    return {**found, "lfq": entropy_gradient(rank, world), "lecam": lecam.state_dict()}


def run_rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    torch.save(everything(rank, world), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    mp.start_processes(run_rank, (2, str(tmp_path)), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = everything(0, 1)
    for kind, values in first.items():
        for name, value in values.items():
            assert torch.equal(value, second[kind][name]), (kind, name)
            if kind != "placed":  # where codes are drawn, one process draws from more
                torch.testing.assert_close(value, alone[kind][name])
    assert first["placed"]["codebook"].isfinite().all()
