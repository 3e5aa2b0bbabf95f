"""The options of config groups that come from dataclasses; Hydra imports this file by itself.

Each of these settings has its default, type and meaning in its dataclass. YAML files in configs/
hold what differs. Nothing here imports torch: `--help` answers at once.
"""

from typing import Any

from drives.clips.config import ClipsConfig
from drives.config import (
    DataRoot,
    DriveSourceConfig,
    MixtureSourceConfig,
    SourceRoot,
    TokenSourceConfig,
)
from tokenizer.commands import (
    CompareSettings,
    ConvertSettings,
    DecodeSettings,
    EncodeSettings,
    ExportSettings,
    PublishedOptions,
)
from tokenizer.config import FrameMediaConfig, SemanticModuleConfig, TokenizerModuleConfig
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
from training.cli import built_as, register, register_sections
from training.config import (
    TRAINING,
    AdamWConfig,
    ExamineSettings,
    MuonConfig,
    PathSettings,
    ProgressBarConfig,
)
from worldmodel.commands import (
    ConvertModelSettings,
    DriveSettings,
    PublishedModelOptions,
    RolloutSettings,
)
from worldmodel.conditioning.config import (
    HashedWordsConfig,
    RobustnessConfig,
    SharesConfig,
    T5Config,
)
from worldmodel.config import RolloutMediaConfig, WindowsConfig, WorldModelModuleConfig
from worldmodel.decoding.config import DecodingConfig, Guidance, Sampling
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.keyframes.config import KeyframesConfig
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.evaluation.attainable.config import AttainableSettings, ProbeConfig
from worldmodel.evaluation.cards.config import CARDS
from worldmodel.evaluation.config import (
    CompareModelsSettings,
    DecodingBenchSettings,
    EvalSettings,
)
from worldmodel.heads.config import HeadsSettings
from worldmodel.joint.config import JointClipsConfig, JointModuleConfig
from worldmodel.known_entropy.config import KnownEntropySourceConfig
from worldmodel.proving_ground.config import (
    CloningConfig,
    DreamTrainingConfig,
    ProvingGroundSettings,
)
from worldmodel.video_decoder.config import (
    DecodedMediaConfig,
    DecoderClipsConfig,
    JudgeVideoSettings,
    VideoDecoderModuleConfig,
    VideoDecodingConfig,
)
from worldmodel.video_decoder.networks.config import (
    DiffusionDecoderConfig,
    OnePassDecoderConfig,
)

CALLBACKS = "lightning.pytorch.callbacks"
CONDITIONING = "worldmodel.conditioning"

register_sections("train", TRAINING)
PATHS, DATA = {"paths": PathSettings}, {"data": DataRoot}
EVIDENCE: dict[str, type] = {**DATA, "data.source": SourceRoot, **PATHS}
DECODING: dict[str, type] = {"decoding": DecodingConfig, **EVIDENCE}
SHOWN: dict[str, type] = {"video": VideoDecodingConfig, **DECODING}
COMMANDS: dict[str, dict[str, type]] = {
    "eval": {"": EvalSettings, **SHOWN},
    "commands/attainable": {"": AttainableSettings, **DATA, **PATHS},
    "commands/decoding_bench": {"": DecodingBenchSettings, **EVIDENCE},
    "commands/rollout": {"": RolloutSettings, **SHOWN},
    "commands/drive": {"": DriveSettings, **SHOWN},
    "commands/video_decoder": {"": JudgeVideoSettings, **SHOWN},
    "commands/heads": {"": HeadsSettings, **EVIDENCE},
    "commands/proving_ground": {
        "": ProvingGroundSettings,
        "cloning": CloningConfig,
        "dream_training": DreamTrainingConfig,
        **DECODING,
    },
    "commands/world_model/convert": {"": ConvertModelSettings, "options": PublishedModelOptions},
    "commands/encode": {"": EncodeSettings, "options": PublishedOptions, **DATA, **PATHS},
    "commands/decode": {"": DecodeSettings, "options": PublishedOptions},
    "commands/convert": {"": ConvertSettings, "options": PublishedOptions},
    "commands/export": {"": ExportSettings},
    "commands/examine": {"": ExamineSettings},
    "commands/compare": {"": CompareSettings, **DATA, **PATHS},
}
for command, sections in COMMANDS.items():
    register_sections(command, sections)
COMPARED = {"": CompareModelsSettings, **SHOWN}
register_sections("commands/compare_models", COMPARED, given=SHOWN)  # after all of eval
register("optimizer", "adamw", AdamWConfig)
register("optimizer", "muon", MuonConfig)
QUANTIZERS = {
    "fsq": FSQConfig,
    "lfq": LFQConfig,
    "vq": VQConfig,
    "product": ProductConfig,
    "residual": ResidualConfig,
}
for name, quantizer in QUANTIZERS.items():
    register("quantizer", name, quantizer, package="model.network.quantizer")
register("loss", "default", LossConfig, teacher=built_as(TimmTeacherConfig))
register("network", "gpt", GPTConfig)
register("network", "keyframes", KeyframesConfig)
register("network", "masked", MaskedConfig)
register("network", "occupancy", OccupancyConfig)
register("network", "whole_frame", WholeFrameConfig)
register("network", "autoencoder", AutoencoderConfig, quantizer={})
register("network", "video_autoencoder", VideoAutoencoderConfig, quantizer={})
register("network", "musik", MusikConfig, quantizer={})
register("network", "semantic", SemanticConfig, quantizer={})
register("network", "diffusion_decoder", DiffusionDecoderConfig)
register("network", "one_pass_decoder", OnePassDecoderConfig)
SOURCES = "data/source"
KNOWN_ENTROPY = "worldmodel.known_entropy.source.KnownEntropySource"
register(SOURCES, "drives", DriveSourceConfig, _target_="drives.sources.DriveSource")
register(SOURCES, "tokens", TokenSourceConfig, _target_="drives.sources.TokenSource")
register(SOURCES, "mixture", MixtureSourceConfig, _target_="drives.mixture.MixtureSource")
register(SOURCES, "known_entropy", KnownEntropySourceConfig, _target_=KNOWN_ENTROPY)
MODULES = {
    "clips": (ClipsConfig, "drives.clips.data_module.ClipDataModule"),
    "action_clips": (ClipsConfig, "drives.clips.data_module.ActionClipDataModule"),
    "windows": (WindowsConfig, "worldmodel.data.TokenDataModule"),
    "joint_clips": (JointClipsConfig, "worldmodel.joint.data.JointClipDataModule"),
    "decoder_clips": (DecoderClipsConfig, "worldmodel.video_decoder.data.DecoderClipDataModule"),
}
for name, (settings, module) in MODULES.items():  # data=NAME says what lies where
    register("data/settings", name, settings, _target_=module, root="???", source={})
SHARES = built_as(SharesConfig, f"{CONDITIONING}.dropout.ConditionShares")
DISTURBED = built_as(RobustnessConfig, f"{CONDITIONING}.robustness.Robustness")
register(
    "module",
    "worldmodel",
    WorldModelModuleConfig,
    _target_="worldmodel.module.WorldModelModule",
    network={},
    conditions=SHARES,
    robustness=DISTURBED,
)
TOKENIZER, SEMANTIC = "tokenizer.module.TokenizerModule", "tokenizer.semantic_module.SemanticModule"
register("module", "tokenizer", TokenizerModuleConfig, _target_=TOKENIZER, network={}, loss={})
register("module", "semantic", SemanticModuleConfig, _target_=SEMANTIC, network={})
JOINT = "worldmodel.joint.module.JointModule"
BOTH: dict[str, Any] = {"network": {}, "tokenizer": {}, "tokenizer_optimizer": {}, "loss": {}}
register("module", "joint", JointModuleConfig, _target_=JOINT, **BOTH)
VIDEO_DECODER = "worldmodel.video_decoder.module.VideoDecoderModule"
register("module", "video_decoder", VideoDecoderModuleConfig, _target_=VIDEO_DECODER, network={})
ENCODERS = f"{CONDITIONING}.text_encoders"
register("text_encoder", "hashed_words", HashedWordsConfig, _target_=f"{ENCODERS}.HashedWords")
register("text_encoder", "t5", T5Config, _target_=f"{ENCODERS}.T5")
register("callback", "progress_bar", ProgressBarConfig, _target_=f"{CALLBACKS}.TQDMProgressBar")
register("callback", "rollouts", RolloutMediaConfig, _target_="worldmodel.callbacks.RolloutMedia")
for name, drawing in (("reconstructions", "ReconstructionMedia"), ("codes", "CodeMedia")):
    register("callback", name, FrameMediaConfig, _target_=f"tokenizer.callbacks.{drawing}")
DECODED = "worldmodel.video_decoder.callbacks.DecodedMedia"
register("callback", "decoded", DecodedMediaConfig, _target_=DECODED)
register("callback", "doctor", DoctorConfig, _target_="tokenizer.doctor.callback.Doctor")
register("sampling", "default", Sampling, guidance=built_as(Guidance))
register("probe", "default", ProbeConfig)
for name, card in CARDS.items():
    register("card", name, card, package=f"cards.{name}")
