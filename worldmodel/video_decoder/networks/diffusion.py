"""Noise and frames: schedules, what a network may predict, and DDIM.

x_t = alpha x_0 + sigma eps, from t = 0 (frames) to t = 1 (noise). A prediction is a x_0 + b eps, so
with x_t it gives x_0 and eps by one small system of equations, whatever it is.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-4  # of alpha and sigma as divisors


class Diffusion:
    """A schedule and what the network predicts.

    Args:
        schedule: "cosine": alpha, sigma = cos, sin of t pi / 2; "straight": 1 - t, t.
        predicts: "v" (the velocity dx_t/dt up to a factor), "eps" or "x0".
    """

    def __init__(self, schedule: str, predicts: str) -> None:
        self.schedule, self.predicts = schedule, predicts

    def scales(self, t: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """alpha and sigma."""
        if self.schedule == "straight":
            return 1 - t, t
        angle = t * (math.pi / 2)
        return angle.cos(), angle.sin()

    def weights(self, t: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """Weights of x_0 and of eps in what is predicted."""
        zero, one = torch.zeros_like(t), torch.ones_like(t)
        if self.predicts == "x0":
            return one, zero
        if self.predicts == "eps":
            return zero, one
        if self.schedule == "straight":
            return -one, one
        alpha, sigma = self.scales(t)
        return -sigma, alpha

    def noised(
        self, frames: Float[Tensor, "b *n"], noise: Float[Tensor, "b *n"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b *n"]:
        """x_t of frames and noise."""
        alpha, sigma = (_as(value, frames) for value in self.scales(t))
        return alpha * frames + sigma * noise

    def target(
        self, frames: Float[Tensor, "b *n"], noise: Float[Tensor, "b *n"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b *n"]:
        """What the network should predict."""
        of_frames, of_noise = (_as(value, frames) for value in self.weights(t))
        return of_frames * frames + of_noise * noise

    def split(
        self, pred: Float[Tensor, "b *n"], x: Float[Tensor, "b *n"], t: Float[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b *n"], Float[Tensor, "b *n"]]:
        """x_0 and eps of a prediction at x_t.

        At pure noise a predicted eps tells nothing of x_0, nor x_0 of eps at t = 0: there the
        division is by a small number, and what it gives is not to be relied upon.
        """
        alpha, sigma = (_as(value, x) for value in self.scales(t))
        if self.predicts == "eps":
            return (x - sigma * pred) / alpha.clamp(min=SMALLEST), pred
        if self.predicts == "x0":
            return pred, (x - alpha * pred) / sigma.clamp(min=SMALLEST)
        of_frames, of_noise = (_as(value, x) for value in self.weights(t))
        det = alpha * of_noise - sigma * of_frames  # 1 for both schedules, up to rounding
        return (of_noise * x - sigma * pred) / det, (alpha * pred - of_frames * x) / det

    def guess(
        self,
        x: Float[Tensor, "b *n"],
        t: Float[Tensor, " b"],
        mean: Float[Tensor, "b *n"] | float = 0.0,
        std: Float[Tensor, "b *n"] | float = 1.0,
    ) -> tuple[Float[Tensor, "b *n"], Float[Tensor, "b *n"]]:
        """The best guess at x_t of x_0, and the prediction of it, if x_0 is normal.

        What differs from the mean counts the less, the less x_0 leaves open beside the noise. At
        pure noise the guess is the mean.

        Args:
            mean, std: of x_0. A network that says them need not learn how they share x_t with the
                noise at each level: that is in closed form. With those of all frames together this
                is the skip connection of Karras et al. 2022 (arXiv 2206.00364, section 5).
        """
        alpha, sigma = (_as(value, x) for value in self.scales(t))
        of_frames, of_noise = (_as(value, x) for value in self.weights(t))
        variance = std * std
        off = (x - alpha * mean) / (alpha.square() * variance + sigma.square())
        frames, eps = mean + alpha * variance * off, sigma * off
        return frames, of_frames * frames + of_noise * eps


Predict = Callable[[Float[Tensor, "b *n"], Float[Tensor, " b"]], Float[Tensor, "b *n"]]


def ddim(
    predict: Predict,
    diffusion: Diffusion,
    noise: Float[Tensor, "b *n"],
    num_steps: int,
    limits: tuple[Float[Tensor, "b *n"], Float[Tensor, "b *n"]] | None = None,
) -> Float[Tensor, "b *n"]:
    """Frames from noise by DDIM without further noise (Song et al. 2021, arXiv 2010.02502, eq. 12).

    For the straight schedule these are Euler's steps along the flow.

    Args:
        predict: the prediction at x_t and t.
        limits: lowest and highest x_0, kept at every step; None: none.
    """
    x = noise
    times = torch.linspace(1, 0, num_steps + 1, device=x.device, dtype=x.dtype)
    for now, then in pairwise(times.expand(len(x), -1).unbind(1)):
        frames, eps = diffusion.split(predict(x, now), x, now)
        if limits is not None:
            frames = frames.clamp(*limits)
            alpha, sigma = (_as(value, x) for value in diffusion.scales(now))
            eps = (x - alpha * frames) / sigma.clamp(min=SMALLEST)
        x = diffusion.noised(frames, eps, then)
    return x


def _as(value: Float[Tensor, " b"], like: Float[Tensor, "b *n"]) -> Float[Tensor, "b *ones"]:
    return value.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
