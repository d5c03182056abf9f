"""Trains the transformer jointly with the text encoder by flow matching on the latents of scenes.

    python train_dit.py --data data/emoji256.npz --vae vae.pt --tokenizer tokenizer/tokenizer.json \
        --names concepts.txt --styles noto --minutes 120 --state dit.state --out dit.pt

Resumable, also after SIGTERM: run the same command again; --minutes is the processor time of all runs together, per thread. --out holds the averaged weights in f16.
"""
import argparse
import os
import random
import signal
import time
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer

import fast_transformer
import folder
from drawings import Drawings
from layout import VAE_SCALE, PATCH, load_used_slices, new_transformer, new_vae, use_single_frame_convs
from sample import draw, sheet
from scenes import Prompts, groups, latents, singles
from text_encoder import TextEncoder

SHEET = ["red apple", "a panda", "lion", "pizza", "elephant", "a rabbit", "a cat", "rocket",
         "house", "a robot", "guitar", "rainbow", "汽车", "气球", "皇冠", "企鹅",
         "a lion on a blue background", "banana on a purple background", "a dog on a red background", "umbrella on a light blue background",
         "草莓，黄色背景", "鬼，绿色背景", "鱼，黑色背景", "a trophy on a pink background"]
DROP_CAPTION = 0.1        # share of samples with an empty prompt, for guidance
EMPTY = [" ", " ", ""]
UNIFORM_SHARE = 0.1       # of the noise levels; the others are logit-normal
AVERAGE = 0.998


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--vae", required=True)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--names", help="file with the English names to learn; all without it")
    p.add_argument("--more-of", help="file with names whose scenes of one drawing come twice as often, as those that --init does not know")
    p.add_argument("--styles", default="noto,fluent-emoji-flat")
    p.add_argument("--background-share", type=float, default=0.55)
    p.add_argument("--pairs", type=int, default=0)
    p.add_argument("--counts", type=int, default=0)
    p.add_argument("--group-share", type=float, default=0.3, help="of the samples, pairs and counts, where there are any")
    p.add_argument("--init", help="diffusers folder or dit.pt to start from; the first --adapt steps train only the first and last layers")
    p.add_argument("--adapt", type=int, default=0)
    p.add_argument("--dim", type=int, default=192)
    p.add_argument("--heads", type=int, default=6)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--text-layers", type=int, default=3)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--text-tokens", type=int, default=22, help="longest caption with the template's end")
    p.add_argument("--compile", action="store_true", help="a third faster on a CPU, after a minute or two of compiling")
    p.add_argument("--bf16", action="store_true", help="twice as fast on a GPU and on a CPU with AVX512-BF16 or AMX")
    p.add_argument("--minutes", type=float, default=120)
    p.add_argument("--save-minutes", type=float, default=8)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", default="cpu", help="cuda trains in bf16 (not yet tried)")
    p.add_argument("--state", required=True)
    p.add_argument("--out", required=True)
    return p.parse_args()


def load_vae(path, device):
    ck = torch.load(path)
    vae = load_used_slices(new_vae(ck["base"]), ck["state"]).eval().requires_grad_(False).to(device)
    mean, std = (torch.tensor(ck[k], device=device).view(1, -1, 1, 1) for k in ("mean", "std"))
    return vae, mean, std, ck["size"]


def zero_outputs(transformer):
    """Blocks start as the identity."""
    layers = [m[1] for b in transformer.transformer_blocks for m in (b.img_mod, b.txt_mod)]
    for layer in layers + [transformer.proj_out, transformer.norm_out.linear]:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)


class Trainer:
    def __init__(self, args):
        self.args, self.rng = args, random.Random()
        styles = args.styles.split(",")
        names = set(open(args.names).read().split("\n")) if args.names else None
        vae, mean, std, size = load_vae(args.vae, args.device)
        self.drawings = Drawings(args.data, size, styles, names)
        prompts = Prompts(Tokenizer.from_file(args.tokenizer), args.device)
        self.transformer = new_transformer(args.dim, args.heads, args.layers, args.dim)
        self.text_encoder = TextEncoder(prompts.tokenizer.get_vocab_size(), args.dim, args.text_layers, args.dim // 32, args.dim // 96, args.dim * 8 // 3)
        zero_outputs(self.transformer)
        self.transformer, self.text_encoder = self.transformer.to(args.device), self.text_encoder.to(args.device)
        self.models = SimpleNamespace(transformer=self.transformer, text_encoder=self.text_encoder, vae=vae, mean=mean, std=std, tokens=prompts, side=size // VAE_SCALE // PATCH)
        more = set(open(args.more_of).read().split("\n")) if args.more_of else set()
        self.scenes = singles(len(self.drawings), args.background_share)
        for scene in self.scenes:
            scene.weight *= 2 if self.drawings.rows[scene.drawings[0]]["en"] in more else 1
        if args.pairs + args.counts:
            total = sum(s.weight for s in self.scenes) * args.group_share / (1 - args.group_share)
            self.scenes += groups(self.drawings, styles, args.pairs, args.counts, total, self.rng)
        self.weights = torch.tensor([s.weight for s in self.scenes])
        self.latents = latents(self.scenes, self.drawings, vae, mean, std)
        self.rope = fast_transformer.rope_tables(self.transformer, self.models.side, args.text_tokens)
        self.params = [*self.transformer.parameters(), *self.text_encoder.parameters()]
        self.optimizer = torch.optim.AdamW(self.params, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.compiled_loss = torch.compile(self.loss) if args.compile else self.loss
        self.step, self.minutes = 0, 0.0
        self.load()
        print(f"{len(self.drawings)} drawings, {len(self.scenes)} scenes, {sum(p.numel() for p in self.params) / 1e6:.2f} M parameters", flush=True)

    def load(self):
        args = self.args
        if args.init:
            start = folder.states(args.init) if os.path.isdir(args.init) else torch.load(args.init)
            self.transformer.load_state_dict({k: v.float() for k, v in start["dit"].items()})
            self.text_encoder.load_state_dict({k: v.float() for k, v in start["te"].items()})
        self.average = [p.detach().clone() for p in self.params]
        if os.path.exists(args.state):
            state = torch.load(args.state, map_location=args.device)
            for p, a, saved, mean in zip(self.params, self.average, state["params"], state["average"]):
                p.data.copy_(saved)
                a.copy_(mean)
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.minutes = state["step"], state["minutes"]

    def batch(self):
        """Latents, noise, noise level, token ids, mask; always of the same shape, for the compiler."""
        n, tokens = self.args.batch, self.models.tokens
        at = torch.multinomial(self.weights, n, replacement=True)
        texts = [self.rng.choice(EMPTY) if self.rng.random() < DROP_CAPTION else self.caption(i) for i in at]
        sigma = torch.where(torch.rand(n) < UNIFORM_SHARE, torch.rand(n), torch.sigmoid(torch.randn(n) + 0.2))
        z = self.latents[at.to(self.latents.device)].float()
        return z, torch.randn_like(z), sigma.to(z.device), *tokens.encode(texts, self.args.text_tokens)

    def caption(self, scene):
        """One that fits."""
        while True:
            text = self.scenes[scene].caption(self.drawings.rows, self.rng)
            if self.models.tokens.length(text) <= self.args.text_tokens:
                return text

    def loss(self, z, noise, sigma, ids, mask):
        x = (1 - sigma)[:, None, None] * z + sigma[:, None, None] * noise
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.args.bf16):
            text = self.text_encoder(ids, self.models.tokens.prefix)
            v = fast_transformer.forward(self.transformer, x, text, mask, sigma, self.rope)
        return (v.float() - (noise - z)).square().mean()

    def train_step(self, share):
        args = self.args
        lr = args.lr * min(1, (self.step + 1) / 100) * (1.0 if share < 0.5 else max(0.02, 2 * (1 - share)))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.compiled_loss(*self.batch())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.step < args.adapt:
            ends = {*map(id, self.transformer.img_in.parameters()), *map(id, self.transformer.proj_out.parameters()), *map(id, self.transformer.norm_out.parameters())}
            for p in self.params:
                p.grad = p.grad if id(p) in ends else None
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(AVERAGE, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.data for p in self.params], 1 - keep)
        return loss.item()

    def save(self):
        args = self.args
        torch.save(dict(params=[p.data for p in self.params], average=self.average, optimizer=self.optimizer.state_dict(), step=self.step, minutes=self.minutes), args.state + ".new")
        os.replace(args.state + ".new", args.state)
        current = [p.data.clone() for p in self.params]
        for p, a in zip(self.params, self.average):
            p.data.copy_(a)
        half = lambda m: {k: v.half().cpu() for k, v in m.state_dict().items()}
        torch.save(dict(dit=half(self.transformer), te=half(self.text_encoder), text_config=self.text_encoder.config, dim=args.dim, heads=args.heads, layers=args.layers,
                        size=self.drawings.size_px, step=self.step, samples=self.step * args.batch, minutes=self.minutes, arguments=vars(args)), args.out)
        sheet(draw(self.models, SHEET), 8, args.out.replace(".pt", ".png"))
        for p, c in zip(self.params, current):
            p.data.copy_(c)

    def run(self):
        last, saved, losses = time.process_time(), time.time(), []
        asked_to_stop = []
        signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.append(True))
        while self.minutes < self.args.minutes and not asked_to_stop:
            losses.append(self.train_step(self.minutes / self.args.minutes))
            now = time.process_time()
            self.minutes += (now - last) / 60 / self.args.threads
            last = now
            if self.step % 50 == 0:
                print(f"{self.step} {self.minutes:.1f} min loss {sum(losses[-50:]) / 50:.4f} lr {self.optimizer.param_groups[0]['lr']:.5f}", flush=True)
            if time.time() - saved > self.args.save_minutes * 60:
                saved = time.time()
                self.save()
        self.save()


if __name__ == "__main__":
    options = arguments()
    torch.set_num_threads(options.threads)
    use_single_frame_convs()
    Trainer(options).run()
