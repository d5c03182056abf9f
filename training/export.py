"""Writes the diffusers folder: python export.py --vae vae.pt --dit dit.pt --tokenizer tokenizer --out ../models/tiny"""
import argparse
import json
import os
import shutil

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from layout import load_used_slices, new_transformer, new_vae

MROPE = {32: [4, 6, 6], 64: [8, 12, 12], 128: [16, 24, 24]}      # by head size, the split of the real model
SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.34.0.dev0", "base_image_seq_len": 256, "base_shift": 0.5, "invert_sigmas": False,
    "max_image_seq_len": 8192, "max_shift": 0.9, "num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": 0.02, "stochastic_sampling": False,
    "time_shift_type": "exponential", "use_beta_sigmas": False, "use_dynamic_shifting": True, "use_exponential_sigmas": False, "use_karras_sigmas": False}
INDEX = {   # main() adds the native size, which Inkstone reads and diffusers skips
    "_class_name": "QwenImagePipeline", "_diffusers_version": "0.34.0.dev0", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"], "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"], "vae": ["diffusers", "AutoencoderKLQwenImage"]}


def text_encoder(state, c, special):
    """The layout asks for a vision tower; the smallest one, untrained."""
    text = dict(
        model_type="qwen2_5_vl_text", vocab_size=c["vocab"], hidden_size=c["dim"], intermediate_size=c["inner"], num_hidden_layers=c["layers"],
        num_attention_heads=c["heads"], num_key_value_heads=c["kv_heads"], max_position_embeddings=4096, rms_norm_eps=1e-6,
        rope_parameters=dict(rope_type="default", rope_theta=c["theta"], mrope_section=MROPE[c["dim"] // c["heads"]]),
        tie_word_embeddings=True, hidden_act="silu", bos_token_id=special["<|endoftext|>"], eos_token_id=special["<|im_end|>"])
    vision = dict(depth=2, hidden_size=64, intermediate_size=128, num_heads=2, out_hidden_size=c["dim"], patch_size=14, spatial_merge_size=2,
                  temporal_patch_size=2, window_size=112, fullatt_block_indexes=[1])
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=special["<|image_pad|>"], video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"], vision_end_token_id=special["<|vision_end|>"], tie_word_embeddings=True))
    missed = model.load_state_dict({"model.language_model." + k: v.float() for k, v in state.items()}, strict=False)
    assert not missed.unexpected_keys and all("visual" in k or "lm_head" in k for k in missed.missing_keys), missed
    model.tie_weights()
    return model


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--vae", required=True)
    p.add_argument("--dit", required=True)
    p.add_argument("--tokenizer", required=True, help="folder")
    p.add_argument("--out", required=True)
    args = p.parse_args()
    v, d = torch.load(args.vae), torch.load(args.dit)
    vae = load_used_slices(new_vae(v["base"], mean=[round(x, 5) for x in v["mean"]], std=[round(x, 5) for x in v["std"]]), v["state"])
    vae.to(torch.bfloat16).save_pretrained(f"{args.out}/vae")
    transformer = new_transformer(d["dim"], d["heads"], d["layers"], d["text_config"]["dim"])
    transformer.load_state_dict({k: t.float() for k, t in d["dit"].items()})
    transformer.to(torch.bfloat16).save_pretrained(f"{args.out}/transformer")
    special = json.load(open(f"{args.tokenizer}/added_tokens.json"))
    text_encoder(d["te"], d["text_config"], special).to(torch.bfloat16).save_pretrained(f"{args.out}/text_encoder")
    shutil.copytree(args.tokenizer, f"{args.out}/tokenizer", dirs_exist_ok=True)
    os.makedirs(f"{args.out}/scheduler", exist_ok=True)
    json.dump(SCHEDULER, open(f"{args.out}/scheduler/scheduler_config.json", "w"), indent=2)
    json.dump(INDEX | {"_native_side_px": d["size"]}, open(f"{args.out}/model_index.json", "w"), indent=2)
    files = [os.path.join(root, f) for root, _, names in os.walk(args.out) for f in names]
    print(f"{sum(map(os.path.getsize, files)) / 1e6:.1f} MB in {len(files)} files")


if __name__ == "__main__":
    main()
