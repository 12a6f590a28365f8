"""Edit the bundled clip with the embedded model: `python examples/demo.py`. Takes a minute or two on two CPU cores.

A person gives the clip, its first frame with another design on the box, and the last frame with the same design, since the box turns and
shows a side that the first frame hides. Where the edit lives is found from what the first frame changes; with `--box 128,8,212,156` added
a person would say it. `examples/edit_frames.py` drew the two frames.
"""

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
    sys.argv = ["lora-edit", "edit", str(CLIP / "source.mp4"), "--first-frame", str(CLIP / "first_frame.png"),
                "--reference", f"32={CLIP / 'frame_32.png'}", "--output", str(result), "--run", str(run)]  # fmt: skip
    try:
        main()
    finally:
        if result.exists():
            sys.stderr.write(f"edited video:  {result}\nside by side:  {run / 'compare.mp4'}\nreport:        {run / 'report.html'}\n")
