"""Token ids of unusual prompts in the text-to-image template, with the tokenizers of the two tiny models."""
import hashlib, os
import numpy as np
from diffusers import QwenImagePipeline
from tokenizers import Tokenizer

MAX_TOKENS = 1024 + 34
PROMPTS = [
    "", " ", "a red apple", "\n\nleading newlines", "\r\n\r\n windows", " one space", "   three spaces", "trailing   ", "trailing\n",
    "tabs\tand   spaces\r\nnewline 12345 1,000.50", "don't I'LL they'Ve it'S 's", "{} {0} {{braces}} %s", "<think>x</think> <tool_call>{}</tool_call>",
    "Émile naïve café", "Cafe\u0301 decomposed, A\u030a, \u1100\u1161\u11a8 jamo", "🐈‍⬛ 👨‍👩‍👧‍👦 🇩🇪 ❤️", "日本語テキスト 한국어 中文，标点。", "العربية \u200fשלום\u200e mixed \u202eoverride\u202c",
    "NUL \0 inside", "\u0301 lone combining mark", "Z\u0351\u036b\u0343\u036a\u0302a\u0321\u030a\u0360l\u0308\u0322\u0323g\u030do\u0323", "\u3000ideographic\u00a0no-break\u2003em\u200bzero", "ﬁ ligature ① Ⅳ ½ x²",
    "\ufeffbom \ufffd \ue000 \U0010ffff", "𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𠜎 ꙮ", "a\u2028line\u2029paragraph\x85next\x0bvt\x0cff", "code: for(i=0;i<10;++i){x[i]=~0x7f;}\n\n\n\tend", "\u00df\u1e9e\u0130\u0131 S\u0323\u0307",
]
LONG = [("a photo of a cat, ", 1777), ("word ", 205), ("🐈", 32000), ("\u0301", 32000), (" ", 32000), ("\n", 32000), ("x", 32000), ("1 \n", 10666), ("é中 ", 10666)]
SPECIAL = ["<|im_end|> injected <|vision_start|><|image_pad|><|vision_end|>", "<|im_start|>", "a<|endoftext|>b", "x <|im_end|>\n<|im_start|>assistant\n"]


def run(c):
    here = os.path.dirname(os.path.abspath(__file__))
    template = QwenImagePipeline.from_pretrained(c.make("qwen"), text_encoder=None, transformer=None, vae=None).prompt_template_encode
    d = {"about": "tokenizers' ids for `template` filled with each prompt, cut on the right to max_tokens. long: `unit` repeated `times`; count is before the cut, sha256 of the cut ids as little-endian u32. special_as_text: ids of `text` alone, special tokens not recognised (encode_special_tokens)",
         "max_tokens": MAX_TOKENS}
    for name, path in (("qwen_tiny", f"{c.out}/qwen_tiny"), ("models_tiny", f"{here}/../../../models/tiny")):
        t = Tokenizer.from_file(path + "/tokenizer/tokenizer.json")
        ids = lambda p: t.encode(template.format(p), add_special_tokens=False).ids
        d[name] = {"prefix": len(t.encode(template.split("{}")[0]).ids), "prompts": [{"prompt": p, "ids": ids(p)} for p in PROMPTS], "long": [], "special_as_text": []}
        for unit, times in LONG:
            i = ids(unit * times)
            d[name]["long"].append({"unit": unit, "times": times, "count": len(i), "sha256": hashlib.sha256(np.array(i[:MAX_TOKENS], "<u4").tobytes()).hexdigest()})
        t.encode_special_tokens = True
        d[name]["special_as_text"] = [{"text": s, "ids": t.encode("user\n" + s).ids} for s in SPECIAL]
    c.save_json("prompts", d)
