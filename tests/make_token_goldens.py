"""Makes goldens/tokens.json: awkward prompts and the tokens that ComfyUI's tokenizers give for them.

    python make_token_goldens.py WHEEL    # diffsynth-1.1.7-py3-none-any.whl; needs transformers 4.57 (without ftfy), sentencepiece

The ids are those of transformers' slow CLIPTokenizer and of T5TokenizerFast; weights and chunks follow what ComfyUI does with them
(comfy/sd1_clip.py). ComfyUI's T5 tokenizer.json is the wheel's but for one setting: it begins a word at the front of the text only,
not again after an added token. Two settings of its tokenizer_config.json differ too.
"""
import json
import os
import re
import sys
import tempfile
import zipfile

from transformers import CLIPTokenizer, T5TokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))


def reference_tokenizers(wheel):
    folder = tempfile.mkdtemp()
    with zipfile.ZipFile(wheel) as z:
        z.extractall(folder, [n for n in z.namelist() if "/tokenizer_configs/flux/" in n])
    flux = os.path.join(folder, "diffsynth", "tokenizer_configs", "flux")
    path = os.path.join(flux, "tokenizer_2", "tokenizer.json")
    with open(path, encoding="utf-8") as f:
        t5 = json.load(f)
    assert t5["pre_tokenizer"]["prepend_scheme"] == "always"
    t5["pre_tokenizer"]["prepend_scheme"] = "first"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(t5, f)
    config = os.path.join(flux, "tokenizer_2", "tokenizer_config.json")
    with open(config, encoding="utf-8") as f:
        settings = json.load(f)
    del settings["add_prefix_space"]  # would have transformers convert spiece.model instead of reading tokenizer.json
    settings["legacy"] = False
    with open(config, "w", encoding="utf-8") as f:
        json.dump(settings, f)
    clip = CLIPTokenizer.from_pretrained(os.path.join(flux, "tokenizer_1"))
    assert clip.fix_text is None, "ftfy is installed: ComfyUI does without"
    return clip, T5TokenizerFast.from_pretrained(os.path.join(flux, "tokenizer_2"))


def groups(text):
    """Where outermost parentheses open and close: [(begin, end)] in order, the text between them included. A stray ")" takes the
    level below zero, where "(" opens nothing until the level is zero again."""
    cuts, level = [0], 0
    for i, char in enumerate(text):
        if char == "(" and level == 0:
            cuts.append(i)
        level += {"(": 1, ")": -1}.get(char, 0)
        if char == ")" and level == 0:
            cuts.append(i + 1)
    cuts.append(len(text))
    return [(a, b) for a, b in zip(cuts, cuts[1:]) if a < b]


def segments(text, weight=1.0):
    """[(text, weight)]; escaped parentheses stand in the text as control characters 1 and 2."""
    found = []
    for begin, end in groups(text):
        part = text[begin:end]
        if not (len(part) >= 2 and part.startswith("(") and part.endswith(")")):
            found.append((part.replace("\x01", "(").replace("\x02", ")"), weight))
            continue
        inside, inner = part[1:-1], weight * 1.1
        before, colon, after = inside.rpartition(":")
        if before and colon:
            try:
                inside, inner = before, float(after)
            except ValueError:
                inside = part[1:-1]
        found += segments(inside, inner)
    return found


def marked(text, vectors, breaks):
    """The text between marks, and the marks: None for BREAK, a list of tokens for `embedding:name`."""
    for i, part in enumerate(re.split(r"(?:^|(?<=[\s,]))BREAK(?=[\s,]|$)", text) if breaks else [text]):
        if i > 0:
            yield None
        first, *rest = re.split(r"(?:^|(?<=\s))embedding:\s*([^\s,]+)", part) if vectors else [part]
        yield first
        for name, after in zip(rest[::2], rest[1::2]):
            yield vectors[name.removesuffix(".safetensors")]
            yield after


def chunks(prompt, encode, start, end, pad, longest, shortest, vectors=None, breaks=False):
    """[[(token, weight)]]. `vectors`: tokens by the names of textual inversions; without it, and without `breaks`, their marks are
    text. A BREAK that nothing follows adds no chunk (A1111)."""
    groups = []
    for text, weight in segments(prompt.replace("\\)", "\x02").replace("\\(", "\x01")):
        for part in marked(text, vectors, breaks):
            tokens = encode(part) if isinstance(part, str) else part
            groups.append(None if tokens is None else [(t, weight) for t in tokens])
    head = [(start, 1.0)] if start is not None else []
    done, current = [], list(head)
    for group in groups:
        limit = longest - 1
        if group is None:
            done.append(current)
            current = list(head)
            continue
        if len(group) < 8:
            if len(current) + len(group) > limit:
                done.append(current)
                current = list(head)
            current += group
            continue
        for token in group:
            if len(current) == limit:
                done.append(current)
                current = list(head)
            current.append(token)
    if not done or len(current) > len(head):
        done.append(current)
    return [c + [(end, 1.0)] + [(pad, 1.0)] * (shortest - len(c) - 1) for c in done]


def packed(chunk, pad):
    """Ids without the padding at the end, and runs [count, weight] of them."""
    ids, weights = [t for t, _ in chunk], [w for _, w in chunk]
    kept = len(ids)
    while kept > 0 and ids[kept - 1] == pad and weights[kept - 1] == 1.0:
        kept -= 1
    runs = []
    for w in weights[:kept]:
        if runs and runs[-1][1] == w:
            runs[-1][0] += 1
        else:
            runs.append([1, w])
    return {"ids": ids[:kept], "length": len(ids), "weights": runs}


def prompts():
    words = "the quick brown fox jumps over a lazy dog while seven wizards quietly box near frozen riverbanks at dusk".split()
    cjk = ["一只红色的狐狸在雪地里", "漂亮的山水画，水墨风格", "東京の夜景、ネオン", "猫が窓辺に座っている", "눈 속의 붉은 여우", "빨간 집",
           "𠀀𠀁 rare 𪜀 ideographs", "豈更車 compatibility", "a红b色c", "中文 and English 混合", "「かぎ括弧」", "１２３ＡＢＣ full width",
           "ﾊﾝｶｸ ｶﾀｶﾅ", "ㄱㄴㄷ ㅏㅑ", "𨭎𠬠", "　全角空白　", "。、，！？", "㍿㌔㈱", "々〆〇"]
    emoji = ["🦊", "a 🦊 in the ❄️ snow", "👨‍👩‍👧‍👦 family", "🏳️‍🌈 flag", "👍🏽 thumbs", "🇩🇪🇯🇵", "1️⃣2️⃣", "☀️🌙⭐", "❤️‍🔥", "🧑🏿‍🚀 in space",
             "fox🦊fox", "🙂🙂🙂", "©®™", "♠♥♦♣", "→←↑↓", "😀a😀b", "☃", "⌚️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
    accents = ["café naïve façade", "cafe\u0301 decomposed", "Ünïcödé", "ÀÉÎÕÜ", "ẞ straße", "İstanbul ISPARTA ı", "Ὀδυσσεύς ΣΊΣΥΦΟΣ",
               "ΑΣ ΑΣΑ Σ", "Đặng Thị", "e\u0302\u0301 stacked", "Tie\u0302\u0301ng Vie\u0302\u0323t", "a\u0301\u0302\u0303\u0304b",
               "Z\u0351\u036b\u0343a\u0330l\u034fgo", "o\u0308u\u0308", "Ǆ ǅ ǆ", "ﬁ ﬂ ﬃ ligatures", "ſpecial long s", "it'ſ odd",
               "\u1e9b\u0323", "Å Å A\u030a", "ñ n\u0303", "œuvre Œ æ Æ", "Łódź żółć", "čeština ŘÍŽEK", "dž Ǳ", "ŉ",
               "\u0345 alone a\u0345b", "ᾳ ᾼ", "क्षत्रिय हिन्दी", "ภาษาไทย", "עִבְרִית", "العربية مُحَمَّد", "русский Текст ЁЖ",
               "ქართული Ⴀ", "Ꭰ Cherokee ꭰ", "𝓯𝓪𝓷𝓬𝔂 𝕄𝕒𝕥𝕙", "ℌ ℝ ℃ Å K", "½ ¼ ² ³ ①②", "Ⅳ ⅳ Ⅷ", "٣٤٥ ৩৪ ௧",
               "\u1112\u1161\u11ab decomposed hangul", "\u1100\u1161", "가나다", "ก\u0e33", "x\u0305\u0332y"]
    blanks = ["", " ", "  ", "\n", "\t", "a  b", "a   b    c", "  leading", "trailing  ", "line\nbreak", "two\n\nbreaks", "tab\tbed",
              "crlf\r\nline", "a\u00a0b", "a\u2003b\u2009c", "a\u200bb zero width", "a\u2028b\u2029c", "a\u3000b", "soft\u00adhyphen",
              "\ufeffbom", "a\u200db", "vertical\x0btab", "form\x0cfeed", "nel\x85here", "bell\x07", "del\x7f", "a \n b", "end\n",
              "\u200e\u200fmarks", "a\u1680b", "\u2060word", "x\u0085", "y\u000b ", "tail\u2028", "\ue000 private", "\ufffd replacement",
              "\ufffe nonchar", "\u00a0", "\u200b", "a \u200b b"]
    special = ["<|endoftext|>", "<|startoftext|>", "a <|endoftext|> b", "a<|endoftext|>b", "'<|endoftext|>'", "<|ENDOFTEXT|>",
               "<|StartOfText|> x", "<|endoftext|", "<<|endoftext|>>", "<|endoftext|><|endoftext|>", "<|end\u200doftext|>", "</w>",
               "a</w> b</w>", "</s>", "a </s> b", "hello</s>world", "<pad>", "<unk>", "<unk> <pad>", "<extra_id_0>", "<extra_id_99>",
               "<extra_id_100>", "<extra_id_7> x", "fill <extra_id_0> in <extra_id_1>.", "<extra_id_05>", "<extra_id_>", "<extra_id_1",
               "<EXTRA_ID_1>", "<s> x", "▁", "▁a ▁ b", "a▁b", "#version: 0.2", "[MASK] [CLS]", "<extra_id_0>word", "word<extra_id_0>",
               "<pad>  two", " <pad> ", "embedding:nothing-here", "a embedding:x b"]
    shapes = ["it's he'd we're I'll they've I'm can't", "IT'S CAN'T", "'s", "s's's", "''s", "don’t", "x'", "rock'n'roll",
              "12345 3.14 1,000,000", "v1.5b2", "a1b2c3", "hello,world", "hello , world", "...", "!!!", "a-b_c",
              "http://example.com/a?b=c&d=e", "C++ & C#", "50% off", "#hashtag @user", "$100 €5 £3", "\"quoted\" `code`", "[x] {y} <z>",
              "a|b\\c/d", "~^*+=", "masterpiece, best quality, ultra-detailed, 8k, (trending on artstation)", "ALL CAPS PROMPT",
              "CamelCaseWord", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "supercalifragilisticexpialidocious", "x", "I", "a" * 400, "!" * 120,
              "ab " * 100, "photo of a red fox in the snow, 35mm, f/1.8", "<lora:name:0.8> a cat", "a {cat|dog}", "--ar 16:9 --v 5", "0",
              "00001", "½cup", "no.1", "e.g. i.e.", "ggggg", "-------", "----- ----------", "a\u2034b", "＜pad＞ ＜/s＞x", "_" * 18]
    weights = ["(a)", "((a))", "(((a)))", "(a:1.3)", "a (b:1.3) c", "a (b) c", "(a:0)", "(a:-1)", "(a:.5)", "(a:1e-1)", "(a: 1.2 )",
               "(a:+1.5)", "(a:b)", "(a:1.3:1.4)", "(:1.3)", "(a:)", "()", "( )", "(a", "a)", ")a(", ")a(b)c", "a) (b) c", "((a)", "(a))",
               "(a)(b)", "(a (b:1.5) c:0.8)", "((a:1.2) b)", "(a, (b, (c)))", "\\(a\\)", "a \\(b\\) c", "(a \\(b\\):1.2)", "\\((a)\\)",
               "\\", "\\\\(a)", "a\\", "(red fox:1.4) in the (deep (white:0.7) snow)", "(猫:1.2) 🦊", "(a\nb:1.1)",
               "one (two three:1.25), four", "(<|endoftext|>:1.2)", "(<extra_id_3>:1.3)x", "  (a)  ", "(a: 1.3) (b :1.3)", "(10:30)",
               "(time 10:30 o'clock)", "(a:2", "(a:1.3))b", "((a):1.3)", "((((((((((deep))))))))))", "(a:1.0)", "(a:100)"]
    long = [" ".join(words[i % len(words)] for i in range(n)) for n in (60, 74, 75, 76, 77, 80, 150, 151, 250, 254, 255, 256, 257, 400)]
    long += ["a " * 74 + "(one two three four:1.2) end", "a " * 70 + "(one two three four five six seven:1.2) end",
             "a " * 70 + "(one two three four five six seven eight:1.2) end", "a " * 75 + "(b:1.1)", "(" + "w " * 90 + ":1.2) " + "(z:0.9)",
             ", ".join(f"({w}:1.{i % 10})" for i, w in enumerate(words * 3)), "漂亮" * 60, "🦊" * 50, "fox\n" * 90, "a  " * 200,
             "(a b c:1.2)" * 40]
    every = cjk + emoji + accents + blanks + special + shapes + weights + long
    assert len(set(every)) == len(every), [p for p in every if every.count(p) > 1]
    return every


def main():
    clip, t5 = reference_tokenizers(sys.argv[1])
    start, end = clip("")["input_ids"]
    golden = []
    for prompt in prompts():
        golden.append({
            "prompt": prompt,
            "clip": [packed(c, end) for c in chunks(prompt, lambda s: clip(s)["input_ids"][1:-1], start, end, end, 77, 77)],
            "t5": packed(chunks(prompt, lambda s: t5(s)["input_ids"][:-1], None, 1, 0, 10**9, 256)[0], 0),
        })
    with open(os.path.join(HERE, "goldens", "tokens.json"), "w", encoding="utf-8") as f:
        lines = ",\n".join(json.dumps(g, ensure_ascii=True, separators=(",", ":")) for g in golden)
        f.write("[\n" + lines + "\n]\n")
    print(len(golden), "prompts")


if __name__ == "__main__":
    main()
