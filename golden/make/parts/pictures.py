"""Pictures in the formats and pixel types that people have, as diffusers' load_image sees them."""
import json, os
import numpy as np
from PIL import Image, PngImagePlugin
from diffusers.utils import load_image
from golden_common import picture, u8


def run(c):
    out = c.out + "/pictures"
    os.makedirs(out, exist_ok=True)
    base, rgba = picture(20, 12, 7), picture(20, 12, 9, "RGBA")
    wide = np.random.default_rng(3).integers(0, 65536, (12, 20), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    save = lambda im, name, **kw: im.save(f"{out}/{name}", **kw)
    save(Image.fromarray(wide), "gray16.png")
    save(base.convert("1"), "bilevel.png")
    save(rgba.convert("LA"), "gray_alpha.png")
    save(rgba.convert("RGB").convert("P", palette=Image.ADAPTIVE, colors=16), "palette_alpha.png", transparency=3)
    save(base, "animated.png", save_all=True, append_images=[picture(20, 12, 8)], duration=100)
    save(base, "animated.webp", save_all=True, append_images=[picture(20, 12, 8)], duration=100, lossless=True)
    save(rgba, "alpha.webp", lossless=True, exact=True)
    save(base, "lossy.webp", quality=90)
    save(base, "orientation6.webp", lossless=True, exif=exif)
    save(base.convert("L"), "gray.jpg", quality=95)
    save(base.convert("CMYK"), "cmyk.jpg", quality=95, subsampling=0)
    save(picture(64, 48, 7), "subsampled.jpg", quality=90, subsampling=2)
    save(base, "progressive.jpg", quality=95, subsampling=0, progressive=True)
    names = sorted("gray16.png bilevel.png gray_alpha.png palette_alpha.png animated.png animated.webp alpha.webp lossy.webp orientation6.webp gray.jpg cmyk.jpg subsampled.jpg progressive.jpg".split())
    d = {n: u8(load_image(f"{out}/{n}")) for n in names}
    d["gray16.png"] = u8(Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB"))
    c.save("pictures", d, note="pictures/* through diffusers.utils.load_image: EXIF orientation applied, first frame, RGB (HWC u8). gray16.png is the upper byte instead: Pillow's convert('RGB') clips 16-bit gray to white. JPEG and lossy WebP were decoded by libjpeg-turbo and libwebp")
    carriers(save, base)


def carriers(save, base):
    """Pictures with settings in them, as stable-diffusion-webui and mflux store them."""
    settings = "Steps: 30, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 640x960, Model: some_model"
    for name, prompt, zipped in (("a1111.png", "a cat, masterpiece", False), ("a1111_unicode.png", "eine Katze, 猫", False), ("a1111_compressed.png", "a cat, masterpiece", True)):
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", f"{prompt}\nNegative prompt: blurry\n{settings}", zip=zipped)
        save(base, name, pnginfo=info)
    exif = Image.Exif()
    comment = {"mflux_version": "0.11.1", "model": "Qwen/Qwen-Image", "base_model": "None", "seed": 42, "steps": 20, "guidance": 4.0, "height": 768, "width": 1024, "precision": "mlx.core.bfloat16",
               "quantize": None, "generation_time_seconds": 12.5, "lora_paths": None, "image_path": None, "image_strength": None, "prompt": "a red apple", "negative_prompt": None}
    exif[0x8769] = {0x9286: b"ASCII\0\0\0" + json.dumps(comment).encode()}
    save(base, "mflux.png", exif=exif)
