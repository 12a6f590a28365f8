"""Check that the same inputs and seed give the same bytes in two versions of the code.

`PYTHONPATH=src:tests python benchmarks/same_bytes.py OUTPUT.json [--clip SOURCE FIRST] [--against EARLIER.json]`

Runs the demo, a clip of your own and every model of the registry (tiny, with random weights, as in the tests), and writes digests of each
LoRA's tensors and each result's frames. Computes with one thread, so that sums are added in the same order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file

import models.test_replace_models as replace_models
import models.test_wan_models as wan_models
import tiny_hunyuan
import tiny_replace
import tiny_wan
from lora_edit import estimate, pipeline
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.models.checkpoints import locate
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.video.read import read_video

EXAMPLE = Path(__file__).parent.parent / "examples" / "clip"


def digest(folder: Path, result: Path) -> dict[str, str]:
    """Compute digests of a finished run's LoRA tensors, by file, and of the frames of its result."""
    out = {}
    for file in Run(folder).list_lora_files():
        sha = hashlib.sha256()
        for name, tensor in sorted(load_file(file).items()):
            sha.update(name.encode() + str(tensor.dtype).encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
        out[file.name] = sha.hexdigest()[:16]
    frames = read_video(result).frames
    return out | {"frames": hashlib.sha256(frames.contiguous().numpy().tobytes()).hexdigest()[:16]}


def edited(settings: EditSettings, folder: Path) -> dict[str, str]:
    """Run one whole edit."""
    pipeline.edit(settings, folder / "out.mkv", folder / "run", SilentReporter())
    return digest(folder / "run", folder / "out.mkv")


def tiny(facts: Any, save: Callable[..., Any], settings_of: Callable[..., EditSettings], folder: Path) -> dict[str, str]:
    """Run one model of the registry, tiny and random."""
    small = save(facts, folder / "model")
    model = f"{small.name}@{folder / 'model'}"
    with (
        mock.patch.object(locate, "KNOWN_MODELS", (small,)),
        mock.patch.object(estimate, "estimate_large_model", return_value=None),
    ):
        arguments = (small.last_frame,) if settings_of is wan_models.edit_settings else ()
        settings = settings_of(folder, model, *arguments)
        return edited(settings, folder)


def clip_settings(source: Path, first: Path, references: dict[int, Path]) -> EditSettings:
    """Build the settings of an edit with the embedded model and its defaults, written without loss."""
    later = [{"frame": number, "image": str(path)} for number, path in references.items()]
    return resolve_settings({"input": {"source": str(source), "first_frame": str(first), "references": later}}, ("video.codec=ffv1",))


def main() -> None:
    """Run everything, write the digests, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--clip", nargs=2, type=Path, metavar=("SOURCE", "FIRST"))
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs: dict[str, Callable[[Path], dict[str, str]]] = {}
    for family, save, settings_of in (
        (tiny_wan.WANS, tiny_wan.save_tiny, wan_models.edit_settings),
        (tiny_replace.REPLACERS, tiny_replace.save_tiny, replace_models.edit_settings),
        (tiny_hunyuan.HUNYUANS, tiny_hunyuan.save_tiny, tiny_hunyuan.edit_settings),
    ):
        for name, facts in family.items():
            jobs[name] = lambda folder, f=facts, s=save, e=settings_of: tiny(f, s, e, folder)
    demo = clip_settings(EXAMPLE / "source.mp4", EXAMPLE / "first_frame.png", {32: EXAMPLE / "frame_32.png"})
    jobs["demo"] = lambda folder: edited(demo, folder)
    if args.clip:
        clip = clip_settings(*args.clip, {})
        jobs["clip"] = lambda folder: edited(clip, folder)
    found = {}
    for name, job in jobs.items():
        if args.only and name not in args.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[name] = job(Path(folder))
        print(name, *(f"{part} {value}" for part, value in found[name].items()), flush=True)
    args.output.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    if args.against:
        before = json.loads(args.against.read_text("utf-8"))
        changed = [name for name, value in found.items() if before.get(name) != value]
        print("the same bytes" if not changed else f"other bytes: {', '.join(changed)}")
        sys.exit(bool(changed))


if __name__ == "__main__":
    main()
