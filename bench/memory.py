"""Compares the memory plan with what drawing takes, over a matrix of settings.

    cargo build --release && python3 bench/memory.py [MODEL...] [--json FILE]

Every setting is planned by `inkstone --dry-run --json` and drawn by a process of its own, which tells its peak
(VmHWM) in the `picture` event. A plan must be 0 to 15 % above it. MODEL is `tiny` or a folder; for full width make one with
bench/random_model.py. Of a folder with lora.safetensors, lokr.safetensors or transformer.gguf, settings with them are measured too; of one
that is quantized already, none with -q.
"""

import argparse
import itertools
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

PROMPTS = ["-p", "a cat", "-p", "two dogs " * 40, "-p", "熊猫"]
ROOT = pathlib.Path(__file__).resolve().parent.parent
INKSTONE = ROOT / "target/release/inkstone"


def events(args):
    run = subprocess.run([INKSTONE, "--json", "--no-config", *args], capture_output=True, text=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode:
        sys.exit(f"{args}: {run.stderr}")
    return lines


def measure(model, size, dtype, offload, scale, more, folder):
    prompt = [] if "-p" in more else ["a red apple on a table"]
    args = [*prompt, "-m", model, "--size", size, "--dtype", dtype, "--offload", offload, *more]
    args += ["--steps", "2", "--seed", "1", "--true-cfg-scale", scale, "--overwrite", "-o", f"{folder}/out-{{n}}.png"]
    plans = [e["memory"] for e in events([*args, "--dry-run"]) if e["event"] == "dry-run"]
    drawn = [e for e in events(args) if e["event"] == "picture"][-1]
    return max(plan["resident_bytes"] for plan in plans), drawn["peak_bytes"], drawn["seconds"]


def large_picture(path):
    """Writes a PNG of 6144 x 4096 pixels that is to be turned: all of it is decoded, 72 MiB, before it is drawn from."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width, height = 6144, 4096
    rows = (b"\0" + bytes([90, 90, y % 251]) * width for y in range(height))
    # TIFF's header, little endian; one entry: orientation (0x112), one number of 16 bits, 6; no more entries.
    exif = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", head), chunk(b"eXIf", exif), chunk(b"IDAT", zlib.compress(b"".join(rows), 1)), chunk(b"IEND", b"")]
    pathlib.Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def is_quantized(model):
    files = pathlib.Path(model).glob("transformer/*.safetensors")
    return any(b'"U32"' in file.open("rb").read(1 << 16) for file in files)


def matrix(model, start, large_start):
    """Size, type, offload, scale of guidance, more flags and what they are called."""
    folder = pathlib.Path(model)
    small, large = ("256x256", "512x384") if model == "tiny" else ("256x256", "512x512")
    for size, dtype, offload in itertools.product([small, large], ["bf16", "f32"], ["none", "encoder", "stream"]):
        if dtype == "bf16" or size == small:
            yield size, dtype, offload, "4", [], ""
    yield small, "bf16", "none", "1", [], ""
    for offload in ["none", "stream"]:
        yield small, "bf16", offload, "4", ["--count", "4"], "4 seeds together"
        yield small, "bf16", offload, "1", PROMPTS, "3 prompts together"
    yield small, "bf16", "stream", "4", ["-i", f"{start}=0.9"], "from a picture"
    yield small, "bf16", "none", "1", ["-i", f"{large_start}=0.9"], "from a picture of 24 Mpixel"
    for side, lines, scale, count in [(768, 16, "4", 2), (1024, 16, "4", 2), (1536, 32, "1", 3), (2048, 16, "1", 1)]:
        if model == "tiny":
            more = ["--vae-tiling", str(lines), "--count", str(count)]
            one_by_one = f", {count} one by one" if count > 1 else ""
            yield f"{side}x{side}", "f32", "none", scale, more, f"strips of {lines}{one_by_one}"
    if model == "tiny":
        yield "1024x1024", "f32", "none", "4", ["--count", "2", "-i", f"{start}=0.9"], "2 from a picture"
        yield "2048x2048", "bf16", "none", "1", ["--vae-tiling", "16"], "strips of 16"
        yield small, "bf16", "none", "4", ["--threads", "8"], "8 threads"
        words = [part for i in range(20) for part in ["-p", f"{i} cat" * 450]]
        yield "64x64", "bf16", "none", "4", words, "20 long prompts"
        yield "64x64", "bf16", "encoder", "4", [*words, "-q", "q4"], "20 long prompts, -q q4"
    if not is_quantized(model):
        for format, offload in [("int8", "none"), ("q8", "none"), ("q4", "none"), ("q4", "encoder"), ("int8", "stream")]:
            yield small, "bf16", offload, "4", ["-q", format], f"-q {format}"
    for lora, name in [("lora.safetensors", "LoRA"), ("lokr.safetensors", "LoKr")]:
        if (folder / lora).is_file():
            for offload in ["none", "stream"]:
                yield small, "bf16", offload, "4", ["--lora", f"{folder}/{lora}"], name
    if (folder / "transformer.gguf").is_file():
        for offload in ["none", "stream"]:
            yield small, "bf16", offload, "4", ["--transformer", f"{folder}/transformer.gguf"], "GGUF q8_0"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["tiny"])
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    rows, wrong = [], 0
    print("| model | size | type | offload | cfg | more | planned MiB | measured MiB | plan above |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        start = f"{folder}/start.png"
        events(["a red apple", "--seed", "1", "-o", start])
        large_start = f"{folder}/large.png"
        large_picture(large_start)
        for model in args.models or ["tiny"]:
            for size, dtype, offload, scale, more, called in matrix(model, start, large_start):
                plan, peak, seconds = measure(model, size, dtype, offload, scale, more, folder)
                above = 100 * (plan / peak - 1)
                wrong += not 0 <= above <= 15
                name = pathlib.Path(model).name
                print(f"| {name} | {size} | {dtype} | {offload} | {scale} | {called} "
                      f"| {plan / 2**20:.0f} | {peak / 2**20:.0f} | {above:+.1f} % |", flush=True)
                rows.append({"model": name, "size": size, "dtype": dtype, "offload": offload, "cfg": scale,
                             "more": called, "planned": plan, "measured": peak, "seconds": seconds})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    print(f"\n{len(rows)} settings, {wrong} outside of 0 to 15 %")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
