"""A Hugging Face Space with the page of `lora-edit ui`."""

from __future__ import annotations

import os
from pathlib import Path

from lora_edit.ui.serve import serve

if __name__ == "__main__":
    names = [each.strip() for each in os.environ.get("SPACE_HOST", "").split(",") if each.strip()]
    serve("0.0.0.0", 7860, Path("projects"), allowed_hosts=names, embedding_sites=["https://huggingface.co"])  # noqa: S104
