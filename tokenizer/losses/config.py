"""Settings of the losses of a tokenizer; imports no torch."""

from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, below_one, one_of, positive


class TeacherConfig:
    """Base of the configs; each frozen dataclass describes one kind of teacher."""


@dataclass(frozen=True)
class TimmTeacherConfig(TeacherConfig):
    """A vision transformer of `timm` as the teacher.

    Attributes:
        name: a name of `timm.list_models`, such as vit_small_patch14_dinov2.lvd142m.
        weights: a file (.safetensors, or a state dict in .pth), "package:NAME/PATH" (a file of an
            installed package), or "hub" (timm downloads them).
    """

    name: str = "vit_small_patch14_dinov2.lvd142m"
    weights: str = "hub"


NORMS = ("batch", "group")  # of the discriminator
PIXEL_TERMS = ("pixel", "l2", "perceptual", "features")


@dataclass(frozen=True, kw_only=True)
class AdversaryConfig:
    """A discriminator that a generator of frames is trained against.

    Attributes:
        gan_start: generator step at which the discriminator begins; it costs nothing before.
        gan_weight: factor of the adaptive weight, or the weight itself; 0: no discriminator.
        gan_adaptive: scale the discriminator's gradient to that of the reconstruction.
        gan_generator: "hinge" (-E D) or "non_saturating" (E softplus of -mean D of an image).
        gan_discriminator: "hinge" or "logistic".
        lecam_weight: weight of LeCAM, which keeps real and fake logits close to each other.
        lecam_decay: decay of the running means of LeCAM.
        discriminator_channels: width of the PatchGAN.
        discriminator_layers: number of its layers with stride 2.
        discriminator_lr: learning rate of its Adam.
        discriminator_norm: "batch" (as in the paper; statistics of one device, or of all GPUs) or
            "group" (independent of the split of a batch over devices).
    """

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
    where = "model."  # of these settings in a config

    def __post_init__(self) -> None:
        at_least(0.0, self.where, gan_weight=self.gan_weight, lecam_weight=self.lecam_weight)
        at_least(0, self.where, gan_start=self.gan_start)
        at_least(1, self.where, discriminator_channels=self.discriminator_channels)
        at_least(1, self.where, discriminator_layers=self.discriminator_layers)
        one_of(NORMS, self.where, discriminator_norm=self.discriminator_norm)
        positive(self.where, discriminator_lr=self.discriminator_lr)
        below_one(self.where, lecam_decay=self.lecam_decay)
        one_of(("hinge", "non_saturating"), self.where, gan_generator=self.gan_generator)
        one_of(("hinge", "logistic"), self.where, gan_discriminator=self.gan_discriminator)


@dataclass(frozen=True)
class LossConfig(AdversaryConfig):
    """Loss terms of a tokenizer (VQGAN, Esser et al. 2021, section 3.2); weight 0: term off.

    The terms of the quantizer (commitment, codebook, entropy) are in the quantizer's config.

    Attributes:
        pixel_weight: weight of the mean absolute error.
        l2_weight: weight of the mean squared error.
        perceptual_weight: weight of LPIPS in training; validation always reports LPIPS.
        perceptual_net: backbone of LPIPS and of the two feature terms: "alex" (fast) or "vgg";
            "" turns all three off.
        perceptual_shift: pixels; the backbone sees every batch moved down and right by a random
            0 to N pixels. Its strides (AlexNet: 4) else leave a pattern that stands still.
        lpips_weights: file with the backbone's weights; null: cache, hub or package.
        features_weight: weight of the error between backbone features, without LPIPS's heads
            (Cosmos).
        gram_weight: weight of the squared error between Gram matrices of these features (Cosmos).
        gram_start: generator step at which the Gram term begins.
        distillation_weight: weight of the cosine distance between codes and `teacher`'s features.
        teacher: network to distil; built only if the weight is above 0.
    """

    pixel_weight: float = 1.0
    l2_weight: float = 0.0
    perceptual_weight: float = 1.0
    perceptual_net: str = "alex"
    perceptual_shift: int = 0
    lpips_weights: str | None = None
    features_weight: float = 0.0
    gram_weight: float = 0.0
    gram_start: int = 0
    distillation_weight: float = 0.0
    teacher: TeacherConfig | None = None
    where = "model.loss."

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = {name: value for name, value in vars(self).items() if name.endswith("_weight")}
        at_least(0.0, "model.loss.", **weights)
        at_least(0, "model.loss.", gram_start=self.gram_start)
        at_least(0, "model.loss.", perceptual_shift=self.perceptual_shift)
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
