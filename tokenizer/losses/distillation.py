"""Distillation of a self-supervised network (DINO) into the codes.

GAIA-1 (Hu et al. 2023, arXiv 2309.17080, section 2.2) maximises the cosine between quantised
features and DINO's, so that tokens carry meaning before texture.
"""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from tokenizer.losses.config import TeacherConfig, TimmTeacherConfig
from tokenizer.losses.frozen import Frozen
from tokenizer.networks.vision_transformer import open_timm
from training.errors import BadInput
from training.foreign.weights import fill_same, read_file

PACKAGE = "package:"


class Teacher(nn.Module):
    """Base of the networks whose patch features are distilled.

    Attributes:
        dim: channels of its features.
    """

    dim: int

    def forward(
        self, frames: Float[Tensor, "n 3 h w"], grid: tuple[int, int]
    ) -> Float[Tensor, "n gh gw dim"]:
        """Features of RGB frames in [-1, 1], one per cell of a grid."""
        raise NotImplementedError


class TimmTeacher(Teacher):
    """A teacher from timm; scales frames so that its patches match the cells of the grid.

    Raises:
        BadInput: timm is not installed, does not know the name, or the weights do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TimmTeacherConfig) -> None:
        super().__init__()
        # The planner needs only shapes: no weights are loaded.
        planned = isinstance(torch.empty(0), FakeTensor)
        self.network = _timm_network(config, config.weights == "hub" and not planned)
        if config.weights != "hub" and not planned:
            _load(self.network, config.weights)
        self.dim = int(self.network.num_features)
        self.patch: tuple[int, int] = tuple(self.network.patch_embed.patch_size)
        for name in ("mean", "std"):
            value = torch.tensor(self.network.pretrained_cfg[name])
            self.register_buffer(name, value.view(3, 1, 1), persistent=False)

    def forward(
        self, frames: Float[Tensor, "n 3 h w"], grid: tuple[int, int]
    ) -> Float[Tensor, "n gh gw dim"]:
        size = (grid[0] * self.patch[0], grid[1] * self.patch[1])
        resized = F.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False)
        tokens = self.network.forward_features(((resized + 1) / 2 - self.mean) / self.std)
        patches = tokens[:, self.network.num_prefix_tokens :]
        return rearrange(patches, "n (gh gw) dim -> n gh gw dim", gh=grid[0])


TEACHERS: dict[type[TeacherConfig], Callable[[Any], Teacher]] = {TimmTeacherConfig: TimmTeacher}


def build_teacher(config: TeacherConfig) -> Teacher:
    """The network that a config describes.

    Raises:
        BadInput: its weights are not available.
    """
    return TEACHERS[type(config)](config)


class Distillation(nn.Module):
    """1 - cosine between projected codes and the teacher's features of the same frames.

    The projection is trained and checkpointed but not exported. The teacher is neither trained
    nor saved.
    """

    def __init__(self, teacher: Teacher, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, teacher.dim)
        self.teacher = Frozen(teacher)

    def forward(
        self, codes: Float[Tensor, "n gh gw dim"], frames: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, ""]:
        with torch.no_grad():
            target = self.teacher.network(frames, tuple(codes.shape[1:3])).float()
        return 1 - F.cosine_similarity(self.project(codes).float(), target, dim=-1).mean()


def _timm_network(config: TimmTeacherConfig, pretrained: bool) -> Any:
    where = f"model.loss.teacher={config.name}"
    network = open_timm(config.name, where, pretrained=pretrained, dynamic_img_size=True)
    if not all(hasattr(network, name) for name in ("patch_embed", "num_prefix_tokens")):
        raise BadInput(f"{where}: is no vision transformer; give one")
    return network


def _load(network: nn.Module, weights: str) -> None:
    remedy = "give a state dict of the network that model.loss.teacher.name names"
    state = read_file(_located(weights), "model.loss.teacher.weights", remedy)
    where, head = f"model.loss.teacher.weights={weights}", ("head", "fc_norm")
    network.load_state_dict(fill_same(network.state_dict(), state, head, where))


def _located(weights: str) -> Path:
    if not weights.startswith(PACKAGE):
        return Path(weights)
    package, _, inside = weights.removeprefix(PACKAGE).partition("/")
    try:
        return Path(str(resources.files(package))) / inside
    except ModuleNotFoundError as error:
        raise BadInput(
            f"model.loss.teacher.weights={weights}: the package {package} is not installed"
        ) from error
