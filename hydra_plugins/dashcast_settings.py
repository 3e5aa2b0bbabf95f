"""The options of config groups that come from dataclasses; Hydra imports this file by itself.

Each of these settings has its default, type and meaning in its dataclass. YAML files in configs/
hold what differs. Nothing here imports torch: `--help` answers at once.
"""

from drives.clips.config import BalanceConfig
from drives.config import DriveSourceConfig, TokenSourceConfig
from tokenizer.config import EncodeConfig, FrameMediaConfig
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
from worldmodel.conditioning.config import (
    HashedWordsConfig,
    RobustnessConfig,
    SharesConfig,
    T5Config,
)
from worldmodel.config import RolloutMediaConfig
from worldmodel.decoding.config import Guidance, Sampling
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.evaluation.cards.config import CARDS
from worldmodel.known_entropy.config import KnownEntropySourceConfig

CALLBACKS = "lightning.pytorch.callbacks"
CONDITIONING = "worldmodel.conditioning"

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
SOURCES = "data/source"
KNOWN_ENTROPY = "worldmodel.known_entropy.source.KnownEntropySource"
register(SOURCES, "drives", DriveSourceConfig, _target_="drives.sources.DriveSource")
register(SOURCES, "tokens", TokenSourceConfig, _target_="drives.sources.TokenSource")
register(SOURCES, "known_entropy", KnownEntropySourceConfig, _target_=KNOWN_ENTROPY)
register("data/encode", "default", EncodeConfig)
register("data/balance", "default", BalanceConfig)
SHARES, DISTURBED = "dropout.ConditionShares", "robustness.Robustness"
register("conditions", "default", SharesConfig, _target_=f"{CONDITIONING}.{SHARES}")
register("robustness", "default", RobustnessConfig, _target_=f"{CONDITIONING}.{DISTURBED}")
ENCODERS = f"{CONDITIONING}.text_encoders"
register("text_encoder", "hashed_words", HashedWordsConfig, _target_=f"{ENCODERS}.HashedWords")
register("text_encoder", "t5", T5Config, _target_=f"{ENCODERS}.T5")
register("callback", "progress_bar", ProgressBarConfig, _target_=f"{CALLBACKS}.TQDMProgressBar")
register("callback", "rollouts", RolloutMediaConfig, _target_="worldmodel.callbacks.RolloutMedia")
for name, drawing in (("reconstructions", "ReconstructionMedia"), ("codes", "CodeMedia")):
    register("callback", name, FrameMediaConfig, _target_=f"tokenizer.callbacks.{drawing}")
register("callback", "doctor", DoctorConfig, _target_="tokenizer.doctor.callback.Doctor")
register("sampling", "default", Sampling, guidance=node_of(Guidance))
for name, card in CARDS.items():
    register("card", name, card, package=f"cards.{name}")
