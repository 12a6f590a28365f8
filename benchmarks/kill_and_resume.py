"""Kill a run at random moments with SIGKILL, resume it each time, and compare its LoRA with an undisturbed run's, byte for byte.

`python benchmarks/kill_and_resume.py --kills 10`; ends with exit code 1 when the bytes differ.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLIP = Path(__file__).parents[1] / "examples" / "clip"


def command(folder: Path, steps: int, frames: int) -> list[str]:
    """Build the command of the edit: short training on the bundled clip's first frames, with the edited later frame as the last."""
    return [
        sys.executable, "-m", "lora_edit.cli.main", "edit", str(CLIP / "source.mp4"),
        "--first-frame", str(CLIP / "first_frame.png"), "--frames", str(frames), "--reference", f"{frames - 1}={CLIP / 'frame_32.png'}",
        "--output", str(folder / "out.mp4"), "--run", str(folder / "run"),
        "--overwrite", "--set", f"training.motion_steps={steps}", "--set", f"training.appearance_steps={steps // 2}",
        "--set", "training.batch_size=1", "--set", "training.checkpoint_every=2", "--set", "training.recolour_variants=2",
        "--set", "generation.steps=2",
    ]  # fmt: skip


def digest(folder: Path) -> str:
    """Compute the SHA-256 of the run's LoRA."""
    return hashlib.sha256((folder / "run" / "lora" / "edit.safetensors").read_bytes()).hexdigest()


def main() -> int:
    """Run without kills, run with kills, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        whole, cut = Path(name) / "whole", Path(name) / "cut"
        whole.mkdir()
        cut.mkdir()
        started = time.monotonic()
        subprocess.run(command(whole, args.steps, args.frames), check=True, capture_output=True)
        length = time.monotonic() - started
        print(f"undisturbed: {length:.1f} s, LoRA {digest(whole)[:16]}", flush=True)
        kills = 0
        while kills < args.kills:
            process = subprocess.Popen(command(cut, args.steps, args.frames), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            moment = rng.uniform(0.05, 1.0) * length
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                print(f"kill {kills}: after {moment:.1f} s", flush=True)
                continue
            if process.returncode or digest(cut) != digest(whole):
                print(f"a resumed run ended with exit code {process.returncode} or another LoRA")
                return 1
            print(f"finished in spite of {kills} kills: the same bytes; starting over", flush=True)
            shutil.rmtree(cut / "run")
        final = subprocess.run(command(cut, args.steps, args.frames), capture_output=True, text=True, check=False)
        if final.returncode:
            print(final.stderr)
            return 1
        same = digest(whole) == digest(cut)
        print(f"resumed:     LoRA {digest(cut)[:16]}: {'the same bytes' if same else 'DIFFERENT'}")
        return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
