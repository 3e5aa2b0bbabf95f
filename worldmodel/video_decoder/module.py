"""The Lightning module of a video decoder: windows, their tokens, a task each, the loss."""

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from drives.clips.data_module import Clip
from drives.clips.preprocessing import to_pixels
from drives.tokens.spec import TokenSpec
from tokenizer.load import Tokenizer
from tokenizer.losses.adversary import Adversary
from tokenizer.losses.lpips import load_lpips
from tokenizer.metrics import psnr
from training.checkpoints.sharded import shard
from training.config import AdamWConfig
from training.module import NetworkModule
from training.watch.throughput import Work
from worldmodel.video_decoder.config import VideoDecoderModuleConfig, VideoDecodingConfig
from worldmodel.video_decoder.load import load_video_decoder, manifest_of_decoder
from worldmodel.video_decoder.motion.drafts import FirstGuess, drafted
from worldmodel.video_decoder.networks.config import VIDEO, VideoDecoderConfig
from worldmodel.video_decoder.networks.kinds import VideoDecoderNetwork, build_video_decoder
from worldmodel.video_decoder.networks.loss import DecoderLoss
from worldmodel.video_decoder.networks.noise import ClipNoise
from worldmodel.video_decoder.networks.one_pass_decoder import OnePassDecoder
from worldmodel.video_decoder.tasks import DecodingTask, draw_spacings, draw_tasks, neighbours
from worldmodel.video_decoder.tokens import FrozenTokenizer


class VideoDecoderModule(NetworkModule):
    """A video decoder, an average of its weights (EMA), and a discriminator if it has a weight.

    Lightning steps the decoder alone; with a discriminator both are stepped by hand.

    Args:
        spec, tokenizer: of the tokens; from the data.
        settings: as those of `VideoDecoderModuleConfig`.
    """

    validated = ("val/loss", "val/psnr")
    judged_by = "-m worldmodel.video_decoder"

    def __init__(
        self,
        network: VideoDecoderConfig,
        optimizer: AdamWConfig,
        spec: TokenSpec,
        tokenizer: Tokenizer,
        **settings: Any,
    ) -> None:
        super().__init__(optimizer)
        config = VideoDecoderModuleConfig(network=network, optimizer=optimizer, **settings)
        self.settings, self.manifest = config, manifest_of_decoder(network, spec)
        self.network: VideoDecoderNetwork = build_video_decoder(network, spec)
        self.tokenizer = FrozenTokenizer(tokenizer)
        self._opened = (tokenizer,)  # in a tuple, or the state dict would name it
        self.perceptual = None
        if config.perceptual_weight:
            file = config.lpips_weights
            self.perceptual = load_lpips(config.perceptual_net, Path(file) if file else None)
            self.perceptual.check_size(spec.image_size)
        self.start_ema(self.network, config.ema_decay)
        self.adversary: Adversary | None = None
        if config.gan_weight:
            self.join_adversary(config)

    def join_adversary(self, config: VideoDecoderModuleConfig) -> None:
        with torch.random.fork_rng(devices=[]):  # until it joins, a run is the one without it
            self.adversary = Adversary(config, config.discriminator_frames)
        self.discriminator, self.lecam = self.adversary.discriminator, self.adversary.lecam
        self.guards = (self.guard, self.adversary.guard)
        self.network.keeps_features = config.gan_adaptive
        self.automatic_optimization = False
        self.find_unused_parameters = True  # the two are never both in one backward pass

    @property
    def how(self) -> DecoderLoss:
        given = self.settings
        weights = (given.l1_weight, given.l2_weight, given.perceptual_weight, given.change_weight)
        return DecoderLoss(*weights, self.perceptual)

    def configure_model(self) -> None:
        assert self.ema is not None
        trained = [self.network, self.ema.module]
        if self.adversary is not None:
            trained.append(self.adversary.discriminator)
        for whole in trained:
            shard((), whole, self.trainer)

    def configure_optimizers(self) -> Any:
        found = super().configure_optimizers()
        if self.adversary is not None:
            found[0].append(self.adversary.optimizer())
        return found

    def begin_from(self, path: str) -> Mapping[str, Any]:
        """As `TrainedModule.begin_from`; of the same tokenizer."""
        other = load_video_decoder(path, *self._opened, setting="init_from")
        self.take(self.network, other.network, path)
        return other.manifest

    def prepared(
        self, clips: UInt8[Tensor, "b span 3 h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b t 3 h w"], DecodingTask, FirstGuess | None]:
        """Windows of clips, what each is decoded from, and the draft, if the network reads one."""
        config = self.network.config
        chosen, rate = draw_spacings(clips, config.window_frames, config.spacings, generator)
        frames = to_pixels(chosen)
        tokens = self.tokenizer.encode(frames)
        dropout = self.settings.token_dropout
        task = draw_tasks(tokens, rate, config.tasks, dropout, generator)
        return frames, task, self.draft(task, frames)

    def draft(self, task: DecodingTask, frames: Float[Tensor, "b t 3 h w"]) -> FirstGuess | None:
        return drafted(self.network.config, task, frames, self.tokenizer.decode)

    def training_step(self, batch: Clip, batch_idx: int) -> Tensor | None:
        frames, task, draft = self.prepared(batch.frames)
        if self.adversary is None:
            loss, terms = self.network.loss(frames, task, draft, self.how)
            self.guard.see(loss)
        else:
            last = (batch_idx + 1) % self.accumulate == 0
            loss, terms = self.learn(self.adversary, frames, task, draft, last)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return loss if self.automatic_optimization else None

    def learn(
        self,
        adversary: Adversary,
        frames: Float[Tensor, "b t 3 h w"],
        task: DecodingTask,
        draft: FirstGuess | None,
        step: bool,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """One step of decoder and discriminator; returns the loss without the GAN's, and all terms.

        As in `TokenizerModule.generator_step`, the losses read pixels that are cut from the graph.

        Args:
            step: whether the optimizers move now, or gradients are still accumulated.
        """
        network, joined = self.network, adversary.has_joined(self.global_step)
        assert isinstance(network, OnePassDecoder)
        count = self.settings.discriminator_frames
        pictures = partial(neighbours, is_given=task.is_given, count=count)
        made = network.frames(task, frames, draft)
        seen = made.detach().requires_grad_()
        loss, terms = network.judged(seen, frames, task, self.how)
        self.guard.see(loss)
        (gradient,) = torch.autograd.grad(loss, seen)
        if joined:
            last_layer = partial(network.last_layer_gradient, task=task)
            gan_grad, more = adversary.gradient(seen, gradient, last_layer, pictures)
            self.guard.see(more["g_loss"])
            gradient, terms = gradient + gan_grad, terms | more
        self.manual_backward((made * gradient).sum() / self.accumulate)
        if step:
            terms["grad_norm"] = self.step_by_hand()
        if joined:
            terms |= adversary.step(self, pictures(frames), pictures(seen.detach()), step)
        if step:
            self.update_ema()
            self.step_schedules()
        return loss, terms

    def validation_step(self, batch: Clip, batch_idx: int) -> None:
        """The loss on fixed draws, and PSNR of windows decoded from all their tokens."""
        assert self.ema is not None
        network: Any = self.ema.module
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        frames, task, draft = self.prepared(batch.frames, generator)
        loss = network.loss(frames, task, draft, self.how, generator)[0]
        whole = draw_tasks(task.tokens, task.rate, (VIDEO,), 0.0, generator)
        noise = ClipNoise(range(len(frames)), self.device)
        how = VideoDecodingConfig(num_steps=self.settings.val_steps)
        made = network.make(whole, frames, self.draft(whole, frames), noise, how)
        logs = {"val/loss": loss, "val/psnr": psnr(made.flatten(0, 1), frames.flatten(0, 1)).mean()}
        self.log("step", float(self.global_step))  # or Lightning counts from 0
        self.log_dict(logs, batch_size=len(frames), sync_dist=True)

    @cached_property
    def flops_per_window(self) -> int:
        """FLOPs of one forward pass of the network over a window, counted by running one."""
        config, spec = self.network.config, self.network.spec
        size, device = spec.image_size, self.network.place.device
        frames = torch.zeros(1, config.window_frames, 3, *size, device=device)
        tokens = torch.zeros(1, config.window_frames, *spec.grid[1:], device=device).long()
        rate = torch.zeros(1, device=device).long()
        task = DecodingTask(tokens, tokens == 0, tokens[..., 0, 0] > 0, rate == 0, rate)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            draft = self.draft(task, frames)
            self.network(frames, task, draft, rate.float())
        return int(counter.get_total_flops())

    def work(self, batch: Clip) -> Work:
        """Frames of windows, their tokens, and 3x the forward FLOPs of the network (backward = 2
        forward), without those of the frozen tokenizer.
        """
        frames = len(batch.frames) * self.network.config.window_frames
        tokens = frames * self.network.spec.tokens_per_step
        return Work(frames, tokens, 3 * len(batch.frames) * self.flops_per_window)
