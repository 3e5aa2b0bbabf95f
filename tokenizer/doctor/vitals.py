"""Health figures of a tokenizer in training, collected without a device wait per step."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

SUMS = ("input_variance", "output_variance", "gan_ratio", "logit_gap")


@dataclass(frozen=True)
class Figures:
    """Figures of a window of steps; NaN where not measured, e.g. GAN figures before `gan_start`.

    Attributes:
        usage: codes seen, as a share of those that as many uniformly drawn tokens would show.
        perplexity: exp(entropy of the codes), as a share of its maximum.
        low, high: the extreme values of the input frames.
        variance: variance within a reconstructed frame, as a share of the input's.
        gan_ratio: norm of the GAN's weighted gradient at the last layer, over that of the other
            losses.
        logit_gap: mean logit of real frames minus mean logit of reconstructions.
    """

    usage: float
    perplexity: float
    low: float
    high: float
    variance: float
    gan_ratio: float
    logit_gap: float

    def row(self) -> dict[str, float]:
        """For the loggers; without NaN figures."""
        return {f"doctor/{k}": v for k, v in asdict(self).items() if math.isfinite(v)}


class Vitals:
    """Sums over the two halves of a window that slides by half a window.

    Args:
        num_codes: size of the vocabulary.
        device: where the frames are.

    Attributes:
        counts, sums, extremes: per half; the second one is being filled.
        gan_batches: batches of each half that trained the discriminator.
    """

    def __init__(self, num_codes: int, device: torch.device) -> None:
        at: Any = {"device": device}
        self.counts: Int[Tensor, "half code"] = torch.zeros(2, num_codes, dtype=torch.int64, **at)
        self.sums: Float[Tensor, "half figure"]
        self.sums = torch.zeros(2, len(SUMS), dtype=torch.float64, **at)
        # The minimum, and the negated maximum: both are minima.
        self.extremes: Float[Tensor, "half 2"] = torch.full((2, 2), torch.inf, **at)
        self.gan_batches = [0, 0]

    @torch.no_grad()
    def update(self, observed: dict[str, Tensor]) -> None:
        """Add what `TokenizerModule.observed` holds of a batch."""
        frames, pred, indices = (observed[k] for k in ("frames", "pred", "indices"))
        flat = indices.detach().flatten().long()
        self.counts[1].index_add_(0, flat, torch.ones_like(flat))
        values = [_variance(frames), _variance(pred)]
        if "real_logits" in observed:
            grad_norms = [observed[k].float().norm() for k in ("gan_grad", "loss_grad")]
            logits = [observed[k].float().mean() for k in ("real_logits", "fake_logits")]
            values += [grad_norms[0] / (grad_norms[1] + 1e-12), logits[0] - logits[1]]
            self.gan_batches[1] += 1
        self.sums[1, : len(values)] += torch.stack(values)
        ends = torch.stack([frames.min(), -frames.max()]).float()
        self.extremes[1] = torch.minimum(self.extremes[1], ends)

    def slide(self) -> None:
        """Drop the older half and begin a new one."""
        for value, empty in ((self.counts, 0), (self.sums, 0), (self.extremes, torch.inf)):
            value[0] = value[1]
            value[1] = empty
        self.gan_batches = [self.gan_batches[1], 0]

    def read(self) -> Figures:
        """The figures of the window over all processes; waits for the device."""
        united = self.united()
        counts = united["counts"].sum(0).double()
        tokens, codes = counts.sum().item(), len(counts)
        share = counts / tokens
        entropy = -torch.special.xlogy(share, share).sum().item()
        sums = dict(zip(SUMS, united["sums"].sum(0).tolist(), strict=True))
        low, high = united["extremes"].amin(0).tolist()
        processes = _processes()
        gan = sum(self.gan_batches) * processes
        return Figures(
            usage=(counts > 0).sum().item() / (codes * -math.expm1(-tokens / codes)),
            perplexity=math.exp(entropy) / min(codes, tokens),
            low=low,
            high=-high,
            variance=sums["output_variance"] / (sums["input_variance"] + 1e-12),
            gan_ratio=sums["gan_ratio"] / gan if gan else math.nan,
            logit_gap=sums["logit_gap"] / gan if gan else math.nan,
        )

    def united(self) -> dict[str, Tensor]:
        """Sums over all processes, as copies."""
        kinds = {"counts": "SUM", "sums": "SUM", "extremes": "MIN"}
        found = {name: getattr(self, name).clone() for name in kinds}
        if _processes() > 1:
            for name, value in found.items():
                torch.distributed.all_reduce(
                    value, getattr(torch.distributed.ReduceOp, kinds[name])
                )
        return found

    def state_dict(self) -> dict[str, Any]:
        return {**self.united(), "gan_batches": list(self.gan_batches)}

    def load_state_dict(self, state: dict[str, Any], first: bool = True) -> None:
        """Args: first: whether this process continues the sums of all processes."""
        self.gan_batches = list(state["gan_batches"])
        if first:
            for name in ("counts", "sums", "extremes"):
                getattr(self, name).copy_(state[name])


def _variance(frames: Float[Tensor, "*n h w"]) -> Float[Tensor, ""]:
    """Mean variance within a frame: 0 for a solid colour, whatever the rest of the batch."""
    return frames.float().var((-2, -1)).mean()


def _processes() -> int:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1
