"""The options of config groups that come from dataclasses; Hydra imports this file by itself.

Each of these settings has its default, type and meaning in its dataclass. YAML files in configs/
hold what differs. Nothing here imports torch: `--help` answers at once.
"""

from drives.carracing.config import CarRacingConfig
from tokenizer.config import FrameMediaConfig
from tokenizer.doctor.config import DoctorConfig
from tokenizer.losses.config import LossConfig, TimmTeacherConfig
from tokenizer.networks.config import (
    AutoencoderConfig,
    MusikConfig,
    SemanticConfig,
)
from tokenizer.networks.video.config import VideoAutoencoderConfig
from tokenizer.quantizers.config import (
    FSQConfig,
    LFQConfig,
    ProductConfig,
    ResidualConfig,
    VQConfig,
)
from training.cli import register
from training.config import AdamWConfig, ProgressBarConfig
from training.schemas import node_of
from worldmodel.config import RolloutMediaConfig
from worldmodel.decoding.config import Guidance, Sampling
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.evaluation.cards.config import CARDS
from worldmodel.known_entropy.config import KnownEntropyConfig

CALLBACKS = "lightning.pytorch.callbacks"

register("optimizer", "adamw", AdamWConfig)
QUANTIZERS = {
    "fsq": FSQConfig,
    "lfq": LFQConfig,
    "vq": VQConfig,
    "product": ProductConfig,
    "residual": ResidualConfig,
}
for name, quantizer in QUANTIZERS.items():
    register("quantizer", name, quantizer, package="model.network.quantizer")
register("loss", "default", LossConfig, teacher=node_of(TimmTeacherConfig))
register("network", "gpt", GPTConfig)
register("network", "masked", MaskedConfig)
register("network", "whole_frame", WholeFrameConfig)
register("network", "autoencoder", AutoencoderConfig, quantizer={})
register("network", "video_autoencoder", VideoAutoencoderConfig, quantizer={})
register("network", "musik", MusikConfig, quantizer={})
register("network", "semantic", SemanticConfig, quantizer={})
register("data/carracing", "default", CarRacingConfig)
register("data/world", "known_entropy", KnownEntropyConfig)
register("callback", "progress_bar", ProgressBarConfig, _target_=f"{CALLBACKS}.TQDMProgressBar")
register("callback", "rollouts", RolloutMediaConfig, _target_="worldmodel.callbacks.RolloutMedia")
for name, drawing in (("reconstructions", "ReconstructionMedia"), ("codes", "CodeMedia")):
    register("callback", name, FrameMediaConfig, _target_=f"tokenizer.callbacks.{drawing}")
register("callback", "doctor", DoctorConfig, _target_="tokenizer.doctor.callback.Doctor")
register("sampling", "default", Sampling, guidance=node_of(Guidance))
for name, card in CARDS.items():
    register("card", name, card, package=f"cards.{name}")
