"""Trains the painter's UNet and both text encoders on cached latents and writes them as a stock SDXL pipeline."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from imgdiffd.mini.parallel import MovingAverage, WallClock, average_gradients, cosine_rate, run_processes
from imgdiffd.mini.scene_latents import SceneLatents, scene_latents
from imgdiffd.mini.tokenizer import MAX_TOKENS, build_tokenizer
from imgdiffd.mini.train_vae import FOLDER as VAE_FOLDER
from imgdiffd.mini.train_vae import LATENT_CHANNELS, build_vae
from imgdiffd.mini.training import BUILD, BUNDLE, replaced_folder, save_atomically
from imgdiffd.mini.world import IMAGE_PX

CAPTIONS = 48_000
CAPTIONS_IN_BATCH = 8
PEAK_RATE = 1.5e-3
CAPTION_DROPOUT = 0.1
TEXT_WIDTH = 64
CHECKPOINT = BUILD / "painter.pt"
FOLDER = BUNDLE / "painter"


class PainterNetworks(nn.Module):
    """The three networks that are trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(48, 96, 128),
            layers_per_block=1,
            attention_head_dim=(2, 3, 4),
            cross_attention_dim=2 * TEXT_WIDTH,
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
        )
        # On a CPU the fused attention's backward pass takes three times as long as the plain one's at these sizes.
        self.unet.set_attn_processor(AttnProcessor())
        tokenizer = build_tokenizer()
        settings: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 4 * TEXT_WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": MAX_TOKENS,
            "projection_dim": TEXT_WIDTH,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        self.text_encoder = CLIPTextModel(CLIPTextConfig(**settings, hidden_act="quick_gelu"))
        self.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**settings, hidden_act="gelu"))

    def encode(self, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Captions (N x 77 token ids) as SDXL conditions on them: N x 77 x 128 states and N x 64 pooled."""
        first = self.text_encoder(token_ids, output_hidden_states=True)
        second = self.text_encoder_2(token_ids, output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


def build_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal signal: the first step starts from pure noise, in training as in sampling."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )


@dataclass(frozen=True)
class Objective:
    """The v-prediction loss with timesteps stratified over the batches of all processes."""

    signal: torch.Tensor
    channel_weights: torch.Tensor
    rank: int
    processes: int

    def loss(self, networks: PainterNetworks, data: SceneLatents, rng: np.random.Generator) -> torch.Tensor:
        """The loss of one batch; one caption in ten is dropped, as SDXL does it: all its embeddings are zero."""
        latents, token_ids = data.draw(rng, CAPTIONS_IN_BATCH)
        states, pooled = networks.encode(token_ids)
        kept = torch.from_numpy(rng.random(len(latents)) >= CAPTION_DROPOUT).float()[:, None]
        states, pooled = states.repeat_interleave(2, 0) * kept[..., None], pooled.repeat_interleave(2, 0) * kept
        size = len(latents) * self.processes
        places = (np.arange(len(latents)) * self.processes + self.rank + rng.random(len(latents))) / size
        steps = torch.from_numpy(rng.permutation(places) * 1000).long().clamp(0, 999)
        signal = self.signal[steps][:, None, None, None]
        noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        wanted = signal.sqrt() * noise - (1 - signal).sqrt() * latents
        size_ids = torch.tensor([IMAGE_PX, IMAGE_PX, 0, 0, IMAGE_PX, IMAGE_PX]).expand(len(latents), -1)
        with torch.autocast("cpu", torch.bfloat16):
            added = {"text_embeds": pooled, "time_ids": size_ids}
            seen = networks.unet(noisy, steps, states, added_cond_kwargs=added).sample
        ratio = signal / (1 - signal).clamp_min(1e-8)
        # The floor keeps the noisiest steps in play, which decide what stands where.
        weight = (ratio.clamp_max(5) / (ratio + 1) + 0.3) * self.channel_weights[:, None, None]
        loss: torch.Tensor = (weight * (seen.float() - wanted) ** 2).mean()
        return loss


@torch.no_grad()
def channel_weights(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """How much each latent channel counts: the root of what a little noise in it changes in the image; mean 1.

    The VAE's channels differ a thousandfold in that, and a channel that shows nothing is not worth learning.
    """
    whole = vae.decode(latents).sample
    noise = 0.3 * torch.randn(latents[:, 0].shape, generator=torch.Generator().manual_seed(0))
    changes = []
    for channel in range(latents.shape[1]):
        touched = latents.clone()
        touched[:, channel] += noise
        changes.append((vae.decode(touched).sample - whole).abs().mean())
    weights = torch.stack(changes).sqrt()
    return weights / weights.mean()


def _train(rank: int, options: argparse.Namespace) -> None:
    torch.manual_seed(20_408)
    networks = PainterNetworks()
    trained = [parameter for parameter in networks.parameters() if parameter.requires_grad]
    average = MovingAverage(networks, 0.999)
    optimiser = torch.optim.AdamW(trained, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    vae = AutoencoderKL.from_pretrained(VAE_FOLDER, torch_dtype=torch.float32)
    share = CAPTIONS // options.processes
    data = scene_latents(BUILD, vae, range(rank * share, (rank + 1) * share))
    clock, step, shown = WallClock(options.minutes * 60), 0, 0.0
    if CHECKPOINT.exists():
        saved = torch.load(CHECKPOINT, weights_only=True)
        networks.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.values, clock.spent_s, step = saved["average"], saved["spent_s"], saved["step"]
    weights = channel_weights(vae, torch.from_numpy(data.latents[:64]).float())
    objective = Objective(build_scheduler().alphas_cumprod, weights, rank, options.processes)
    rng = np.random.default_rng((rank, step))
    exported_s = clock.spent_s
    while (fraction := clock.advance()) < 1:
        optimiser.param_groups[0]["lr"] = cosine_rate(PEAK_RATE, fraction, step, warm_up=200)
        optimiser.zero_grad()
        loss = objective.loss(networks, data, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(trained)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        step += 1
        shown += 0.01 * (loss.item() - shown) if shown else loss.item()
        if rank == 0:
            average.update(networks, step)
        if rank == 0 and step % 100 == 0:
            print(f"painter step {step}: {fraction:.1%}, {clock.spent_s:.0f} s, loss {shown:.4f}", flush=True)
        if rank == 0 and (step % 500 == 0):
            state = {"model": networks.state_dict(), "optimiser": optimiser.state_dict(), "average": average.values}
            save_atomically(state | {"spent_s": clock.spent_s, "step": step}, CHECKPOINT)
        if rank == 0 and clock.spent_s - exported_s > options.export_every * 60:
            exported_s = clock.spent_s
            export(average.values)
    if rank == 0:
        export(average.values)
        state = {"model": networks.state_dict(), "optimiser": optimiser.state_dict(), "average": average.values}
        save_atomically(state | {"spent_s": clock.spent_s, "step": step}, CHECKPOINT)
        print(f"painter finished after {step} steps")


def export(weights: dict[str, torch.Tensor]) -> None:
    """Write the pipeline's folder in fp16, keeping the VAE that is in it."""
    networks = PainterNetworks()
    networks.load_state_dict(weights)
    networks.unet.set_default_attn_processor()
    networks.half()
    tokenizer = build_tokenizer()
    vae = build_vae().half()  # not from_pretrained, which would write this machine's path into the configuration
    vae.load_state_dict(load_file(VAE_FOLDER / "diffusion_pytorch_model.safetensors"))
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=networks.text_encoder,
        text_encoder_2=networks.text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=networks.unet,
        scheduler=build_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    with replaced_folder(FOLDER) as folder:
        pipeline.save_pretrained(folder)


def main() -> None:
    """Train for a time budget, continuing from the checkpoint; do nothing if the bundle's painter is finished."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=71, help="time budget of all runs together (default 71)")
    parser.add_argument("--processes", type=int, default=3, help="one-thread processes (default 3)")
    parser.add_argument("--export-every", type=float, default=10, help="minutes between exports (default 10)")
    options = parser.parse_args()
    if (FOLDER / "model_index.json").exists() and not _unfinished(options.minutes):
        print(f"{FOLDER} is finished; delete it to train again")
        return
    run_processes(_train, options.processes, options)


def _unfinished(minutes: float) -> bool:
    return CHECKPOINT.exists() and bool(torch.load(CHECKPOINT, weights_only=True)["spent_s"] < minutes * 60)


if __name__ == "__main__":
    main()
