"""The page's theme, and its script in the browser."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from lora_edit.ui.components import ASSETS_FOLDER
from lora_edit.ui.uploads import MAX_FILE_BYTES, MAX_UNKNOWN_FILE_BYTES, NOT_MEDIA_MESSAGE, SIGNATURE_BYTES, SIGNATURES, TOO_LARGE_MESSAGE

FONTS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
MONOSPACE_FONTS = ("ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace")

SCREEN_READER_TEXTS = {"common.complete": "done", "common.error": "failed", "common.loading": "loading"}
"""Translations for screen readers that Gradio lacks."""

UPDATE_ADDRESS_SCRIPT = """(name) => {
  const address = new URL(window.location);
  if (name) address.searchParams.set("project", name); else address.searchParams.delete("project");
  if (address.href !== window.location.href) history.replaceState(history.state, "", address);
}"""
"""Writes the project into the page's address, so that a reload, a bookmark or another device opens it again."""

SCROLL_SCRIPT = """() => document.querySelector("#later-number").scrollIntoView({ block: "center" })"""

FORGET_MARKS_SCRIPT = """() => document.querySelector("#region-view .view")?.dispatchEvent(new Event("forget"))"""
"""Discards the marks that are queued in the viewer."""


def build_launch_options() -> dict[str, Any]:
    """Build the arguments of Gradio's `launch` for theme, styles and script. All fonts and scripts are local."""
    theme = gr.themes.Base(
        primary_hue="teal", secondary_hue="teal", neutral_hue="slate", radius_size="md", font=FONTS, font_mono=MONOSPACE_FONTS
    ).set(
        button_large_text_weight="500",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_dark="transparent",
        button_secondary_border_color="*border_color_primary",
        button_border_width="1px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_600",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        color_accent="*primary_600",
        slider_color="*primary_600",
    )
    return {"theme": theme, "css_paths": [ASSETS_FOLDER / "page.css"], "js": build_script(), "footer_links": []}


def build_script() -> str:
    """Build the page's script with the upload limits and file signatures of the server."""
    limits = {
        "signatures": SIGNATURES,
        "head": SIGNATURE_BYTES,
        "small": MAX_UNKNOWN_FILE_BYTES,
        "largest": MAX_FILE_BYTES,
        "noMedia": NOT_MEDIA_MESSAGE,
        "tooLarge": TOO_LARGE_MESSAGE,
    }
    return (ASSETS_FOLDER / "page.js").read_text("utf-8").replace("FILES_TAKEN", json.dumps(limits))
