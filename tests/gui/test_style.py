"""What the dock adds to napari's look can be read."""

from __future__ import annotations

import re

import pytest
from napari.utils.theme import get_theme

from napari_microaunet.widgets.style import readable_colour, style_sheet


def luminance(colour):
    """Relative luminance, as WCAG 2.2 defines it."""
    parts = [
        of / 12.92 if of <= 0.04045 else ((of + 0.055) / 1.055) ** 2.4
        for of in (value / 255 for value in colour)
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("words", ["quiet", "warning", "error"])
def test_words_stand_out_from_their_background(theme, words):
    found = re.search(rf"#{words} \{{ color: rgb\((\d+), (\d+), (\d+)\)", style_sheet(theme))
    colour = map(int, found.groups()) if found else readable_colour(theme, words)
    words = luminance(colour)
    background = luminance(get_theme(theme).background.as_rgb_tuple()[:3])
    lighter, darker = max(words, background), min(words, background)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
