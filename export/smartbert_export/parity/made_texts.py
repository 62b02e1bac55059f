"""Texts made to find tokenizers that differ: too long, every special token spelt out, scripts, white space."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

TextRow = tuple[str, str | None]

# Case, accents composed and decomposed, CJK, right to left, emoji with modifiers, control and invisible characters.
UNUSUAL = (
    "UPPER lower MiXeD 'quoted' don't re-read 3.14 1,000 50% e-mail@example.org #tag",
    "Caf\u00e9 na\u00efve \u00c5ngstr\u00f6m Cafe\u0301 nai\u0308ve \u0130stanbul \u00dfe \ufb01n",
    "\u6771\u4eac\u306f\u6674\u308c \u4e2d\u6587\u5b57\u7b26 \ud55c\uad6d\uc5b4",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac\u03c2",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f44d\U0001f3fd \U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f1e9\U0001f1ea ok",
    "a\u0007b\u0000c\u200bd\ufeffe\ufffdf\u00adg\u202eh",
    "  leading\tand\u00a0odd \u3000 white\r\nspace\u2028in\u2029between \x0b trailing \n",
    "(brackets)[and]{more}<less> ... !!! ??? -- \u2014 \u201cquotes\u201d \u00abguillemets\u00bb",
)


def made_texts(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], pairs: Sequence[str] | None, limit: int
) -> list[TextRow]:
    """Texts, and pairs of texts, on which two tokenizers that differ in a setting return different ids.

    texts, pairs: real ones, of which longer ones are made. limit: tokens that a text is cut to.
    """
    words = [word for text in [*texts, *(pairs or ())] for word in text.split()] or ["word"]
    short = " ".join(words[:3])
    long = _stretched(words, limit)
    rows: list[TextRow] = [(text, None) for text in UNUSUAL]
    rows += [(text, None) for text in (short.upper(), short.title(), long, long[::-1])]
    for token in dict.fromkeys([*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]):
        rows += [(f"{words[0]} {token} {words[-1]}", None), (f"{words[0]}{token.upper()}{token}", None)]
    rows += [(short, long), (long, short), (long, long), (short, short), (UNUSUAL[0], UNUSUAL[2])]
    return rows


def _stretched(words: Sequence[str], limit: int) -> str:
    """More words than `limit` tokens hold, numbered, so that no two places are alike."""
    return " ".join(f"{words[place % len(words)]} {place}" for place in range(limit + 8))
