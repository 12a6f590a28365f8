"""The Python interface: preview an edit, run it with a short training, and generate a second take.

`python examples/quickstart.py OUTPUT` edits nine frames of the bundled clip. A real edit needs one call of `lora_edit.edit`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lora_edit

CLIP = Path(__file__).parent / "clip"


def main(output: Path) -> lora_edit.Result:
    """Write `preview.mp4`, `edited.mp4` and a second take into the folder `output`."""
    output.mkdir(parents=True, exist_ok=True)
    settings = lora_edit.build_settings(
        CLIP / "source.mp4",
        CLIP / "first_frame.png",
        settings={"video": {"frames": 9}, "training": {"motion_steps": 10}},
    )
    lora_edit.preview(settings, output=output / "preview.mp4", overwrite=True)
    result = lora_edit.edit(settings, output=output / "edited.mp4", overwrite=True)
    take = lora_edit.generate(result.run, seed=1)
    print(f"{result.output} and {take.output}: {take.num_frames} frames of {take.size}")
    return take


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("quickstart-output"))
