"""Weights of the terms that a tokenizer is trained on; no networks."""

from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, one_of


class TeacherConfig:
    """Base of the teachers' configs: frozen dataclasses that build theirs."""


@dataclass(frozen=True)
class TimmTeacherConfig(TeacherConfig):
    """A vision transformer of `timm`.

    Attributes:
        name: as `timm.list_models` knows it, such as vit_small_patch14_dinov2.lvd142m.
        weights: a file (.safetensors, or a state dict in .pth), "package:NAME/PATH" (a file that
            an installed package ships), or "hub" (timm downloads them).
    """

    name: str = "vit_small_patch14_dinov2.lvd142m"
    weights: str = "hub"


PIXEL_TERMS = ("pixel", "l2", "perceptual", "features")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms (VQGAN, Esser et al. 2021, section 3.2); a weight of 0 leaves it out.

    A quantizer's own terms (commitment, codebook, entropy) are in its config.

    Attributes:
        pixel_weight: of the mean absolute error.
        l2_weight: of the mean squared error.
        perceptual_weight: of LPIPS in training; validation reports it all the same.
        perceptual_net: backbone of LPIPS and of the two feature terms, "alex" (fast) or "vgg";
            "" turns all three off.
        features_weight: of the error of the backbone's features, without LPIPS's heads (Cosmos).
        gram_weight: of the squared error of their Gram matrices (Cosmos).
        gram_start: generator step from which on that counts.
        gan_start: generator step at which the discriminator joins; before it, it costs nothing.
        gan_weight: factor on the adaptive weight, or itself the weight; 0: no discriminator.
        gan_adaptive: weigh the discriminator's gradient against the reconstruction's.
        gan_generator: "hinge" (-E D) or "non_saturating" (E softplus of -mean D of an image).
        gan_discriminator: "hinge" or "logistic".
        lecam_weight: of LeCAM, which holds the discriminator's logits near each other.
        lecam_decay: of the running means in it.
        discriminator_channels: width of the PatchGAN.
        discriminator_layers: its layers of stride 2.
        discriminator_lr: learning rate of its Adam.
        discriminator_norm: "batch" (the paper's; its statistics are those of one device, or of
            all GPUs) or "group" (does not depend on how a batch is split over devices).
        distillation_weight: of the cosine distance of the codes to `teacher`'s features.
        teacher: the network to learn from; built only where the weight is not 0.
    """

    pixel_weight: float = 1.0
    l2_weight: float = 0.0
    perceptual_weight: float = 1.0
    perceptual_net: str = "alex"
    lpips_weights: str | None = None
    features_weight: float = 0.0
    gram_weight: float = 0.0
    gram_start: int = 0
    gan_start: int = 20_000
    gan_weight: float = 0.1
    gan_adaptive: bool = True
    gan_generator: str = "hinge"
    gan_discriminator: str = "hinge"
    lecam_weight: float = 0.0
    lecam_decay: float = 0.999
    discriminator_channels: int = 64
    discriminator_layers: int = 3
    discriminator_lr: float = 1e-4
    discriminator_norm: str = "batch"
    distillation_weight: float = 0.0
    teacher: TeacherConfig | None = None

    def __post_init__(self) -> None:
        weights = {name: value for name, value in vars(self).items() if name.endswith("_weight")}
        at_least(0.0, "model.loss.", **weights)
        one_of(("hinge", "non_saturating"), "model.loss.", gan_generator=self.gan_generator)
        one_of(("hinge", "logistic"), "model.loss.", gan_discriminator=self.gan_discriminator)
        one_of(("alex", "vgg", ""), "model.loss.", perceptual_net=self.perceptual_net)
        if (self.features_weight or self.gram_weight) and not self.perceptual_net:
            raise BadInput(
                "model.loss.features_weight and gram_weight look through the network of "
                "model.loss.perceptual_net, which is ''; choose vgg"
            )
        if not any(getattr(self, f"{name}_weight") for name in PIXEL_TERMS):
            raise BadInput(
                "model.loss: nothing compares the pixels; give one of "
                f"{', '.join(f'{name}_weight' for name in PIXEL_TERMS)} more than 0"
            )
        if self.distillation_weight and self.teacher is None:
            raise BadInput(
                f"model.loss.distillation_weight={self.distillation_weight}: names no "
                "model.loss.teacher; give one, or a weight of 0"
            )
