"""A Hugging Face Space with the page of `lora-edit ui`."""

from __future__ import annotations

from pathlib import Path

from lora_edit.ui.serve import serve

if __name__ == "__main__":
    serve("0.0.0.0", 7860, Path("projects"))
