"""The embedded model (models/tiny): a few pictures as stock diffusers draws them, in float32 on the CPU."""
import os
import numpy as np, torch
from diffusers import QwenImagePipeline
from golden_common import f32

MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "models", "tiny")
CASES = [("red apple", 1), ("panda", 2), ("向日葵", 3), ("a lion on a blue background", 18446744073709551615)]
STEPS, CFG, NEGATIVE, SIZE_PX = 20, 4.0, " ", 128


def draw(pipe, prompt, seed, **kw):
    """(final packed latents, picture as u8 [h, w, 3]) of one prompt."""
    seen = {}
    def keep(p, i, t, k):
        seen["latents"] = k["latents"].clone()
        return k
    im = pipe(prompt=prompt, generator=torch.Generator("cpu").manual_seed(seed), output_type="pil",
              callback_on_step_end=keep, callback_on_step_end_tensor_inputs=["latents"], **kw).images[0]
    return seen["latents"], im


def run(c):
    pipe = QwenImagePipeline.from_pretrained(MODEL, dtype=f32)
    pipe.set_progress_bar_config(disable=True)
    kw = dict(negative_prompt=NEGATIVE, true_cfg_scale=CFG, num_inference_steps=STEPS, width=SIZE_PX, height=SIZE_PX)
    d, about = {}, []
    os.makedirs(f"{c.out}/pictures", exist_ok=True)
    for i, (prompt, seed) in enumerate(CASES):
        latents, im = draw(pipe, prompt, seed, **kw)
        d[f"latents.{i}"], d[f"image_u8.{i}"] = latents, torch.from_numpy(np.array(im))
        im.save(f"{c.out}/pictures/embedded_{i}.png")
        about.append({"prompt": prompt, "seed": seed, "picture": f"pictures/embedded_{i}.png"})
    c.save("embedded_t2i", d, model="models/tiny", cases=about, negative_prompt=NEGATIVE, true_cfg_scale=CFG, steps=STEPS, width=SIZE_PX, height=SIZE_PX,
           note="QwenImagePipeline in float32; noise from torch.Generator('cpu').manual_seed(seed); latents are packed tokens after the last step; image_u8 is HWC")
