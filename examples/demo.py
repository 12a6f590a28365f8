"""Edit the bundled clip with the embedded model: `python examples/demo.py`. Takes a minute or two on two CPU cores.

The inputs are the clip, its first frame with another design on the box, and its last frame with the same design, since the box turns and
shows a side that the first frame hides. The region is found from what the first frame changes; `boxes=[(128, 8, 212, 156)]` would set it.
`examples/edit_frames.py` drew the two frames.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import lora_edit
from lora_edit.cli.progress import open_compute_reporter

CLIP = Path(__file__).parent / "clip"
OUTPUT = Path("demo-output")


def main() -> None:
    """Edit the clip into `demo-output/` and print where the results are."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    with open_compute_reporter(threads=None) as reporter:
        result = lora_edit.edit(
            CLIP / "source.mp4",
            CLIP / "first_frame.png",
            OUTPUT / "edited.mp4",
            references={32: CLIP / "frame_32.png"},
            run=OUTPUT / "run",
            reporter=reporter,
        )
        for note in result.notes:
            reporter.note(note)
    print(result.output)
    print(f"edited video:  {result.output}", f"side by side:  {result.run / 'compare.mp4'}", f"report:        {result.run / 'report.html'}",
          sep="\n", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
