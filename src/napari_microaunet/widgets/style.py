"""The few things that the dock adds to napari's own look, in the colours of its theme."""

from __future__ import annotations

from napari.utils.theme import get_theme

# How much of the text's colour quiet words keep. napari's secondary colour is hard to read (1.7 to
# 2.4 to 1 on its background); WCAG 2.2, success criterion 1.4.3, asks for 4.5 to 1.
_QUIET = 0.65


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
    secondary, warning = theme.secondary.as_rgb(), theme.warning.as_rgb()
    quiet = tuple(
        round(_QUIET * of_text + (1 - _QUIET) * of_background)
        for of_text, of_background in zip(
            theme.text.as_rgb_tuple()[:3], theme.background.as_rgb_tuple()[:3], strict=True
        )
    )
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
        QLabel#warning {{ color: {warning}; font-weight: bold; }}
        QLabel#subheading {{ font-weight: bold; padding-top: 4px; }}
        QProgressBar {{ background-color: {foreground}; border: none; border-radius: 4px; }}
        QProgressBar::chunk {{ background-color: {current}; border-radius: 4px; }}
    """
