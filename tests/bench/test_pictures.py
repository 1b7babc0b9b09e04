"""Pictures are written as SVG or PNG; what PNG needs and the machine lacks is told before a long run."""

from __future__ import annotations

import functools
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli.bench import write_plots
from headrace.cli.bench_size import PictureFormat
from headrace.errors import OptionError
from headrace.verify import plot_png
from headrace.verify.plot import HEIGHT, WIDTH, Bar, draw_bars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PICTURE = draw_bars("Medians", [Bar("no-op drain", 10.0, 8.0, 12.0)], up="jobs/s")


@pytest.fixture(autouse=True)
def _forget_the_font() -> Iterator[None]:
    plot_png._font.cache_clear()
    yield
    plot_png._font.cache_clear()


def test_a_png_has_two_dots_a_unit_and_its_words(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="PNG needs the extra plots")

    write_plots(tmp_path, {"a.svg": PICTURE, "b.svg": PICTURE.replace("Medians", "M")}, PictureFormat.PNG)

    first, second = (tmp_path / "a.png").read_bytes(), (tmp_path / "b.png").read_bytes()
    assert first.startswith(b"\x89PNG\r\n")
    assert struct.unpack(">II", first[16:24]) == (2 * WIDTH, 2 * HEIGHT)
    # Red when: text is dropped, as it is with a font that the machine does not have.
    assert first != second
    assert not list(tmp_path.glob("*.svg"))


def test_svg_is_written_as_it_is(tmp_path: Path) -> None:
    write_plots(tmp_path / "new", {"a.svg": PICTURE}, PictureFormat.SVG)

    assert (tmp_path / "new" / "a.svg").read_text() == PICTURE


def test_a_machine_without_fonts_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = pytest.importorskip("resvg_py", reason="PNG needs the extra plots")
    monkeypatch.setattr(library, "svg_to_bytes", functools.partial(library.svg_to_bytes, skip_system_fonts=True))

    with pytest.raises(OptionError, match="would have no text"):
        plot_png.check_png()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(["--plots", "x"], "pip install 'headrace[plots]'"), ([], "nothing is drawn. Add --plots DIR")],
)
def test_png_without_the_extra_or_a_folder_ends_with_2_before_anything_runs(
    options: list[str], complaint: str, tmp_path: Path
) -> None:
    script = "import sys; sys.modules['resvg_py'] = None; from headrace.cli import main; main()"
    command = [sys.executable, "-c", script, "bench", *options, "--format", "png"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == 2
    assert complaint in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())
