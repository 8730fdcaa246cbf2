"""The few things that the dock adds to napari's own look, in the colours of its theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.theme import get_theme

if TYPE_CHECKING:
    from collections.abc import Sequence

Colour = tuple[int, int, int]

# How much of the text's colour quiet words keep. napari's secondary colour is hard to read (1.7 to
# 2.4 to 1 on its background).
_QUIET = 0.65
# What can be read on its background: WCAG 2.2, success criterion 1.4.3.
_LEAST_CONTRAST = 4.5
# A colour comes nearer to the text's in as many steps.
_STEPS = 20


def quiet_colour(theme_name: str) -> Colour:
    """Give the colour of words that are read last, as red, green and blue from 0 to 255."""
    theme = get_theme(theme_name)
    return _mixed(theme.text.as_rgb_tuple(), theme.background.as_rgb_tuple(), _QUIET)


def readable_colour(theme_name: str, colour: str) -> Colour:
    """Give a colour of a theme, so near to that of its text that words in it can be read.

    Parameters
    ----------
    theme_name : str
        A theme of napari's, "dark" or "light" or one of the user's.
    colour : str
        "warning" or "error".

    Returns
    -------
    tuple of int
        Red, green and blue from 0 to 255.
    """
    theme = get_theme(theme_name)
    text, own = theme.text.as_rgb_tuple(), getattr(theme, colour).as_rgb_tuple()
    background = _luminance(theme.background.as_rgb_tuple())
    mixtures = [_mixed(text, own, step / _STEPS) for step in range(_STEPS + 1)]
    return next(
        (one for one in mixtures if _contrast(_luminance(one), background) >= _LEAST_CONTRAST),
        mixtures[-1],
    )


def _mixed(one: Sequence[float], other: Sequence[float], share: float) -> Colour:
    """Mix two colours, the first of which has this share."""
    red, green, blue = (
        round(share * a + (1 - share) * b) for a, b in zip(one[:3], other[:3], strict=True)
    )
    return red, green, blue


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance of sRGB from 0 to 255, as WCAG 2.2 defines it."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour[:3])
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: float, other: float) -> float:
    """Contrast of two luminances, as WCAG 2.2 defines it."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def style_sheet(theme_name: str) -> str:
    """Write the style sheet of the dock.

    Parameters
    ----------
    theme_name : str
        A theme of napari's, "dark" or "light" or one of the user's.

    Returns
    -------
    str
        Qt style sheet.
    """
    theme = get_theme(theme_name)
    current, text = theme.current.as_rgb(), theme.text.as_rgb()
    primary, foreground = theme.primary.as_rgb(), theme.foreground.as_rgb()
    secondary = theme.secondary.as_rgb()
    quiet, warning = quiet_colour(theme_name), readable_colour(theme_name, "warning")
    return f"""
        QPushButton#primary {{
            background-color: {current}; color: {text};
            font-weight: bold; padding: 9px; border-radius: 4px;
        }}
        QPushButton#primary:hover {{ background-color: {secondary}; }}
        QPushButton#primary:disabled {{ background-color: {foreground}; color: {secondary}; }}
        QPushButton#heading {{
            background: transparent; border: none; border-bottom: 1px solid {primary};
            font-weight: bold; text-align: left; padding: 4px 2px;
        }}
        QLabel#quiet {{ color: rgb{quiet}; }}
        QLabel#warning {{ color: rgb{warning}; font-weight: bold; }}
        QLabel#subheading {{ font-weight: bold; padding-top: 4px; }}
        QProgressBar {{ background-color: {foreground}; border: none; border-radius: 4px; }}
        QProgressBar::chunk {{ background-color: {current}; border-radius: 4px; }}
    """
