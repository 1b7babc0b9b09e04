"""Turn a picture of `plot.py` into PNG, for what shows no SVG. The extra `plots` brings the library that does."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Dots for each unit of the picture, so that text is sharp on a screen with small dots.
ZOOM: Final = 2
BACKGROUND: Final = "#ffffff"
#: Tried in this order, for a machine without fontconfig may know no font as `sans-serif`.
FONTS: Final = ("Arial", "Liberation Sans", "DejaVu Sans", "Noto Sans", "Helvetica", "Segoe UI", "Ubuntu", "Cantarell")
_SAMPLE: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">'
    '<text x="2" y="16" style="font:12px sans-serif">Hg</text></svg>'
)


def check_png() -> None:
    """Make sure that PNG can be drawn, before a long run.

    Raises:
        OptionError: The library is not installed, or the machine has no font.
    """
    _font()


def draw_png(picture: str) -> bytes:
    """Return a picture as PNG, twice as wide and high in dots as in units, on white.

    Args:
        picture: SVG of `headrace.verify.plot`.

    Raises:
        OptionError: The library is not installed, or the machine has no font.
    """
    return _render(picture, _font())


@functools.cache
def _font() -> str:
    """Return the first font that is there: with none at all, a picture would have lines and no word.

    What is drawn for a font that is not there is nothing, or the library's own choice with serifs.
    """
    blank, unknown = _render(_SAMPLE.replace("Hg", ""), FONTS[0]), _render(_SAMPLE, "no such font")
    for font in FONTS:
        if _render(_SAMPLE, font) != unknown:
            return font
    if unknown != blank:
        return FONTS[0]
    raise OptionError(
        f"PNG: this machine has none of the fonts {', '.join(FONTS)}, so that a picture would have no text. Install "
        "one, such as the package fonts-dejavu-core, or draw SVG."
    )


def _render(picture: str, font: str) -> bytes:
    found: bytes = _library()(svg_string=picture, zoom=ZOOM, background=BACKGROUND, sans_serif_family=font)
    return found


def _library() -> Callable[..., Any]:
    try:
        from resvg_py import svg_to_bytes  # noqa: PLC0415 - an extra
    except ImportError as error:
        text = "PNG is drawn by the package resvg_py, which is not installed"
        raise OptionError(f"{text}. Install it: pip install 'headrace[plots]', or draw SVG.") from error
    return svg_to_bytes
