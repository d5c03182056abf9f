"""The diffusers folder of the model, read for drawing with the fast forwards."""
import json
from types import SimpleNamespace

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from safetensors.torch import load_file
from tokenizers import Tokenizer

from scenes import Prompts
from text_encoder import TextEncoder


def read_text_encoder(path):
    config = json.load(open(f"{path}/config.json"))["text_config"]
    model = TextEncoder(config["vocab_size"], config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"],
                        config["num_key_value_heads"], config["intermediate_size"], config["rope_parameters"]["rope_theta"])
    model.load_state_dict({k: v.float() for k, v in language_model(path).items()})
    return model


def language_model(path):
    """Weights of the language model by the names of TextEncoder."""
    state = load_file(f"{path}/model.safetensors")
    return {k.removeprefix("model.").removeprefix("language_model."): v for k, v in state.items() if "visual" not in k and "lm_head" not in k}


def states(path):
    """What train_dit.py starts from."""
    return dict(dit=load_file(f"{path}/transformer/diffusion_pytorch_model.safetensors"), te=language_model(f"{path}/text_encoder"))


def read(path, size_px):
    """What sample.draw wants, in float32."""
    vae = AutoencoderKLQwenImage.from_pretrained(f"{path}/vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    transformer = QwenImageTransformer2DModel.from_pretrained(f"{path}/transformer", torch_dtype=torch.float32).eval()
    return SimpleNamespace(transformer=transformer, text_encoder=read_text_encoder(f"{path}/text_encoder").eval(), vae=vae, mean=mean, std=std,
                           tokens=Prompts(Tokenizer.from_file(f"{path}/tokenizer/tokenizer.json")), side=size_px // 16)
