"""HTML out of values, so that nothing gets into a page unescaped: a string is text, only `Markup` is markup.

Identifiers and names of logs are foreign input: `foreign` also shortens them, takes out characters that would
reorder or break what stands around them, and isolates right-to-left ones.
"""

import html
import unicodedata

MAX_SHOWN = 40
MAX_HINT = 300
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They reorder text beyond the identifier that they are in; a right-to-left identifier needs none."""
_VOID = frozenset({"meta", "br", "rect", "line", "circle", "path"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | None


def text(value: str) -> Markup:
    """Escape text for an element or a quoted attribute."""
    return value if isinstance(value, Markup) else Markup(html.escape(clean(value), quote=True))


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """An element. `class_` stands for `class`, `aria_label` for `aria-label`; None leaves an entry out."""
    opened = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{opened}>" if name in {"meta", "br"} else f"<{name}{opened}/>")
    return Markup(f"<{name}{opened}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """One piece of markup out of several; what is no markup is escaped."""
    return Markup("".join(text(child) for child in children if child is not None))


def foreign(value: str) -> Markup:
    """An identifier that somebody else made up: cleaned, shortened, isolated; the whole of it as a hint."""
    short = shortened(value)
    hint = None if short == clean(value) else clean(value)[:MAX_HINT]
    return tag("bdi", short, title=hint)


def shortened(value: str, limit: int = MAX_SHOWN) -> str:
    """The cleaned text, its middle left out where it is longer than the limit."""
    cleaned = clean(value)
    if len(cleaned) <= limit:
        return cleaned
    tail = limit // 3
    return f"{cleaned[: limit - tail - 1]}…{cleaned[-tail:]}"


def clean(value: str) -> str:
    """The text with a replacement character for what must not stand in a page: controls and halves."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(_REPLACEMENT if _unfit(character) else character for character in value)


def _unfit(character: str) -> bool:
    # Cc controls, Cs halves of surrogate pairs, Cn not assigned, Zl and Zp line ends
    return character in _BIDI_CONTROLS or unicodedata.category(character) in {"Cc", "Cs", "Cn", "Zl", "Zp"}
