"""Captions in English and Chinese of one drawing, of two side by side or above each other, and of two to four alike."""
import random
import re

import words

BACKGROUNDS = {   # English name: Chinese name, sRGB
    "white": ("白色", (255, 255, 255)), "black": ("黑色", (20, 20, 24)), "gray": ("灰色", (128, 128, 128)), "red": ("红色", (214, 40, 40)),
    "orange": ("橙色", (245, 140, 30)), "yellow": ("黄色", (250, 215, 60)), "green": ("绿色", (60, 170, 80)), "blue": ("蓝色", (50, 110, 220)),
    "light blue": ("浅蓝色", (170, 215, 250)), "purple": ("紫色", (130, 70, 190)), "pink": ("粉色", (250, 170, 200)), "brown": ("棕色", (125, 80, 50)),
    "dark blue": ("深蓝色", (20, 30, 80)), "light green": ("浅绿色", (185, 235, 185)),
}
STYLE_SUFFIX = {"noto": ([""], [""]), "fluent-emoji-flat": ([", flat style", " in flat style"], ["，扁平风格"])}
ONE_EN = ["{}", "{}", "{}", "a {}", "a picture of a {}", "an emoji of {}", "{} emoji", "a cute {}", "a drawing of a {}", "{} icon"]
ONE_ZH = ["{}", "{}", "{}", "一个{}", "{}的图片", "{}表情", "可爱的{}", "一张{}的画", "{}图标"]
ON_EN = [" on a {} background", ", {} background", " with a {} background"]
ON_ZH = ["，{}背景", "，背景是{}", "，{}的背景"]
BESIDE_EN = ["a {} on the left and a {} on the right", "a {} to the left of a {}", "a {} and a {}", "{} and {}"]
BESIDE_ZH = ["左边是{}，右边是{}", "{}和{}", "{}在{}的左边"]
ABOVE_EN = ["a {} above a {}", "a {} on top of a {}", "a {} at the top and a {} at the bottom"]
ABOVE_ZH = ["上面是{}，下面是{}", "{}在{}的上面"]
NUMBERS = {2: ("two", "两"), 3: ("three", "三"), 4: ("four", "四")}
MEASURES = ["个", "个", "只"]
CHINESE_SHARE = 0.4

# The templates of the reference pipelines, around the caption.
PREFIX = ("<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
          "<|im_start|>user\n")
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
EDIT_PREFIX = ("<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, background), then explain how the user's text instruction should "
               "alter or modify the image. Generate a new image that meets the user's requirements while maintaining consistency with the original input where appropriate.<|im_end|>\n"
               "<|im_start|>user\n")


def with_article(text):
    return re.sub(r"\ba (?=[aeiouAEIOU])", "an ", text)


def language(rows, rng):
    return "zh" if rng.random() < CHINESE_SHARE and all(row["zh"] for row in rows) else "en"


def finish(text, lang, background, style, rng):
    """Adds the background (none is said for None) and the style."""
    zh = lang == "zh"
    if background:
        text += rng.choice(ON_ZH if zh else ON_EN).format(BACKGROUNDS[background][0] if zh else background)
    if not zh:
        text = with_article(text)
        if rng.random() < 0.1:
            text = text[:1].upper() + text[1:] + "."
    return text + rng.choice(STYLE_SUFFIX[style][1 if zh else 0])


def one(row, background=None, rng=random):
    lang = language([row], rng)
    if lang == "zh":
        text = rng.choice(ONE_ZH).format(words.name(row, lang, rng))
    else:
        name = words.name(row, lang, rng)
        text = rng.choice(ONE_EN).format(name.lower() if rng.random() < 0.5 else name)
    return finish(text, lang, background, row["style"], rng)


def pair(first, second, above, background=None, rng=random):
    """`first` is above or left of `second`."""
    lang = language([first, second], rng)
    if lang == "zh":
        text = rng.choice(ABOVE_ZH if above else BESIDE_ZH).format(*(words.name(row, lang, rng) for row in (first, second)))
    else:
        text = rng.choice(ABOVE_EN if above else BESIDE_EN).format(*(words.name(row, lang, rng).lower() for row in (first, second)))
    return finish(text, lang, background, first["style"], rng)


def plural(name):
    """Of a name's first noun when more is said of it ("glasses of milk"), else of its last word."""
    first, of, rest = name.partition(" of ")
    if of:
        return plural(first) + of + rest
    if name.endswith("s") and not name.endswith(("ss", "us")):
        return name
    if name.endswith(("ss", "us", "x", "ch", "sh")):
        return name + "es"
    return name[:-1] + "ies" if name.endswith("y") and name[-2:-1] not in "aeo" else name + "s"


def count(row, number, background=None, rng=random):
    lang = language([row], rng)
    if lang == "zh":
        text = NUMBERS[number][1] + rng.choice(MEASURES) + words.name(row, lang, rng)
    else:
        text = f"{NUMBERS[number][0]} {plural(words.name(row, lang, rng).lower())}"
    return finish(text, lang, background, row["style"], rng)
