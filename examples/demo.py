"""Edit the bundled clip with the embedded model: `python examples/demo.py`. Takes a few minutes on two CPU cores."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lora_edit.cli.main import main

CLIP = Path(__file__).parent / "clip"
OUTPUT = Path("demo-output")

if __name__ == "__main__":
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    result, run = OUTPUT / "edited.mp4", OUTPUT / "run"
    sys.argv = ["lora-edit", "edit", str(CLIP / "source.mp4"), "--first-frame", str(CLIP / "first_frame.png"), "--mask", str(CLIP / "mask"),
                "--reference", f"16={CLIP / 'frame_16.png'}", "--output", str(result), "--run", str(run)]  # fmt: skip
    try:
        main()
    finally:
        if result.exists():
            sys.stderr.write(f"edited video:  {result}\nside by side:  {run / 'compare.mp4'}\nreport:        {run / 'report.html'}\n")
