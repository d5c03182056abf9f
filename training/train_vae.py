"""Trains the autoencoder on composited drawings, on small crops first and on whole pictures at the end.

    python train_vae.py --data data/emoji256.npz --minutes 40 --state vae.state --out vae.pt

    python train_vae.py ... --init vae.pt --decoder --names concepts.txt --styles noto     # sharper, with the same latents

Resumable: run the same command again; --minutes is the processor time of all runs together, per thread.
"""
import argparse
import math
import os
import random
import time

import torch
import torch.nn.functional as F
from PIL import Image

from drawings import STYLES, Drawings, over, place
from layout import decode, encode, load_used_slices, new_vae, use_single_frame_convs, used_slices
from scenes import groups, picture, singles

WHOLE_AFTER = 0.75      # share of the time after which whole pictures replace crops (the middle block's attention sees all of a picture)
SCENE_SHARE = 0.75      # of what --decoder sees; the others are any drawings anywhere
PAIRS, COUNTS = 1500, 700      # of the scenes that --decoder sees, beside every drawing by itself
LATENT_NOISE = 0.15     # added to the latents before decoding, so that the decoder forgives small errors of the transformer


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--size", type=int, default=128, help="native size in px")
    p.add_argument("--crop", type=int, default=64)
    p.add_argument("--base", type=int, default=16)
    p.add_argument("--batch", type=int, default=16, help="crops in a step")
    p.add_argument("--minutes", type=float, default=40)
    p.add_argument("--lr", type=float, default=2.5e-3)
    p.add_argument("--kl", type=float, default=1e-4)
    p.add_argument("--save-minutes", type=float, default=2)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", default="cpu", help="cuda is not yet tried")
    p.add_argument("--init", help="vae.pt to start from")
    p.add_argument("--decoder", action="store_true", help="train the decoder alone, on the scenes of --names and --styles: a transformer trained on these latents stays usable")
    p.add_argument("--names", help="as in train_dit.py")
    p.add_argument("--styles", default=",".join(STYLES))
    p.add_argument("--bf16", action="store_true", help="as in train_dit.py")
    p.add_argument("--compile", action="store_true", help="as in train_dit.py, with --decoder")
    p.add_argument("--state", required=True)
    p.add_argument("--out", required=True)
    return p.parse_args()


def pictures(drawings, count, size_px):
    """Drawings as in the scenes of the transformer: full size, background size, or half size anywhere; a third mirrored."""
    rand = lambda *shape: torch.rand(*shape, device=drawings.rgba.device)
    rgba = drawings.rgba[(rand(count) * len(drawings)).long()]
    rgba = torch.where(rand(count, 1, 1, 1) < 0.33, rgba.flip(-1), rgba)
    kind = rand(count)
    scale = torch.where(kind < 0.4, 1.0, torch.where(kind < 0.7, 0.85, 0.45 + 0.6 * rand(count)))
    center = (rand(count, 2) - 0.5) * torch.where(kind < 0.7, 0.0, 1.0)[:, None]
    background = rand(count, 3, 1, 1)
    background[rand(count) < 0.4] = 1.0
    return over(place(rgba, scale, center, size_px), background) * 2 - 1


def crops(x, size_px):
    """One crop a picture, on the grid of the latents."""
    room = (x.shape[-1] - size_px) // 8 + 1
    at = torch.randint(room, (len(x), 2)) * 8
    return torch.stack([p[:, r:r + size_px, c:c + size_px] for p, (r, c) in zip(x, at.tolist())])


def distance(y, x):
    """What is made small, and the mean square."""
    d = y - x
    edges = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    squared = (d * d).mean()
    return d.abs().mean() + 2 * squared + 0.5 * edges, squared


def noisy(z):
    return z + LATENT_NOISE * torch.rand(len(z), 1, 1, 1, device=z.device) * torch.randn_like(z)


class Whole:
    """Trains all of it: crops first, whole pictures at the end."""

    def __init__(self, vae, drawings, args):
        self.vae, self.drawings, self.args = vae, drawings, args
        self.params = [p for name, p in vae.named_parameters() if "time_conv" not in name]

    def loss(self, share):
        args = self.args
        whole = share > WHOLE_AFTER
        x = pictures(self.drawings, args.batch * args.crop ** 2 // args.size ** 2 if whole else args.batch, args.size)
        x = x if whole else crops(x, args.crop)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=args.bf16):
            mean, log_var = (h.float() for h in encode(self.vae, x))
            log_var = log_var.clamp(-12, 4)
            y = decode(self.vae, noisy(mean + torch.exp(0.5 * log_var) * torch.randn_like(mean))).float()
        loss, squared = distance(y, x)
        kl = 0.5 * (mean * mean + log_var.exp() - 1 - log_var).mean()
        return loss + args.kl * kl, squared


class DecoderOnly:
    """Trains the decoder on the scenes that the transformer learns, and on whole pictures of anything."""

    def __init__(self, vae, drawings, args):
        self.vae, self.drawings, self.args = vae.requires_grad_(False), drawings, args
        names = set(open(args.names).read().split("\n")) if args.names else None
        learnt = Drawings(args.data, args.size, args.styles.split(","), names)
        scenes = singles(len(learnt), 0.5) + groups(learnt, args.styles.split(","), PAIRS, COUNTS, 1, random.Random())
        self.scenes = torch.stack([picture(s, learnt).half() for s in scenes])
        self.latents = torch.cat([self.encoded(x.float().to(args.device)).cpu() for x in self.scenes.split(32)])
        self.params = [p for part in (vae.decoder, vae.post_quant_conv) for name, p in part.named_parameters() if "time_conv" not in name]
        for p in self.params:
            p.requires_grad_(True)
        self.decode = torch.compile(decode) if args.compile else decode

    @torch.no_grad()
    def encoded(self, x):
        return encode(self.vae, x)[0]

    def loss(self, share):
        args = self.args
        n = round(args.batch * SCENE_SHARE)
        at = torch.randint(len(self.scenes), (n,))
        other = pictures(self.drawings, args.batch - n, args.size)
        x = torch.cat([self.scenes[at].float().to(args.device), other])
        z = torch.cat([self.latents[at].to(args.device), self.encoded(other)])
        with torch.autocast(x.device.type, torch.bfloat16, enabled=args.bf16):
            y = self.decode(self.vae, noisy(z)).float()
        return distance(y, x)


@torch.no_grad()
def write_model(vae, drawings, args, path):
    """Saves weights with the statistics of the latents, and a sheet of pictures beside their reconstructions."""
    keep = torch.random.get_rng_state()
    torch.manual_seed(1)
    z = torch.cat([encode(vae, pictures(drawings, 16, args.size))[0] for _ in range(24)])
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    x = pictures(drawings, 48, args.size)
    y = torch.cat([decode(vae, encode(vae, part)[0]).clamp(-1, 1) for part in x.split(16)])
    psnr = 10 * math.log10(4 / F.mse_loss(y, x).item())
    torch.save(dict(state=used_slices(vae), base=args.base, mean=mean.tolist(), std=std.tolist(), size=args.size, psnr=psnr), path)
    sheet = torch.stack([x, y], 1).flatten(0, 1).add(1).mul(127.5).round().byte()
    rows = sheet.cpu().view(8, 12, 3, args.size, args.size).permute(0, 3, 1, 4, 2).reshape(8 * args.size, 12 * args.size, 3)
    Image.fromarray(rows.numpy()).save(path.replace(".pt", ".png"))
    torch.random.set_rng_state(keep)
    return psnr


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(int(time.time()))
    use_single_frame_convs()
    drawings = Drawings(args.data, args.size)
    drawings.rgba = drawings.rgba.to(args.device)
    vae = new_vae(args.base).to(args.device)
    if args.init:
        load_used_slices(vae, torch.load(args.init)["state"])
    work = (DecoderOnly if args.decoder else Whole)(vae, drawings, args)
    optimizer = torch.optim.AdamW(work.params, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    step, done = 0, 0.0
    if os.path.exists(args.state):
        state = torch.load(args.state, map_location=args.device)
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        step, done = state["step"], state["minutes"]
    started, saved, total = time.process_time(), time.time(), args.minutes
    while True:
        minutes = done + (time.process_time() - started) / 60 / args.threads
        share = min(1.0, minutes / total)
        lr = args.lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, squared = work.loss(share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(work.params, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"{step} {minutes:.1f} min psnr {10 * math.log10(4 / squared.item()):.2f} lr {lr:.5f}", flush=True)
        end = share >= 1
        if end or time.time() - saved > args.save_minutes * 60:
            saved = time.time()
            torch.save(dict(vae=vae.state_dict(), optimizer=optimizer.state_dict(), step=step, minutes=minutes), args.state)
            print(f"saved, mean latents {write_model(vae, drawings, args, args.out):.2f} dB", flush=True)
        if end:
            return


if __name__ == "__main__":
    main()
