"""Valid inputs of every kind for `fuzz.py`, small enough that each case takes a fraction of a second.

`python benchmarks/fuzz_corpus.py FOLDER` writes them; a trained run is among them, which the command itself makes.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageCms
from safetensors.numpy import save_file

WIDTH, HEIGHT, FRAMES = 64, 48, 5
BOX = "16,12,24,20"
CONFIGS = Path(__file__).parents[1] / "src" / "lora_edit" / "models" / "configs"
SETTINGS = """\
[input]
source = "clips/h264.mp4"
first_frame = "images/rgb.png"

[[input.boxes]]
x = 16
y = 12
width = 24
height = 20

[training]
motion_steps = 2
learning_rate = 0.001
window = 0
schedule = "constant"

[masks]
shape = "box"
expand = 0.1
smooth = 3

[video]
start = 0
frames = 5

[generation]
steps = 1
guidance_scale = 1.0

[lora]
rank = 4

[compositing]
feather = 0.02
"""
FAST = (
    "training.motion_steps=2",
    "training.appearance_steps=1",
    "training.checkpoint_every=1",
    "training.recolour_variants=1",
    "generation.steps=1",
)


def draw_frames() -> list[np.ndarray]:
    """Draw a textured square that moves over a gradient, `[H, W, 3]` uint8 each."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    ground = np.stack([rows * 3 + 40, columns * 2 + 60, rows + columns + 20], -1) + rng.integers(0, 12, (HEIGHT, WIDTH, 3))
    patch = rng.integers(90, 220, (16, 16, 3))
    frames = []
    for index in range(FRAMES):
        frame = ground.clip(0, 255).astype(np.uint8)
        frame[14:30, 18 + index : 34 + index] = patch
        frames.append(frame)
    return frames


def write_clip(
    path: Path,
    frames: list[np.ndarray],
    codec: str,
    pix_fmt: str,
    sound: str = "",
    form: str | None = None,
    chapters: bool = False,
    **options: str,
) -> None:
    """Write a clip, with half a second of sound where a codec for it is given."""
    with av.open(str(path), "w", format=form) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        track = output.add_stream(sound, rate=48000, layout="mono") if sound else None
        if chapters:
            output.set_chapters(
                [
                    {"id": i, "start": i * 40, "end": i * 40 + 40, "time_base": Fraction(1, 1000), "metadata": {"title": f"c{i}"}}
                    for i in range(3)
                ]
            )
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)))
        output.mux(stream.encode(None))
        if track is not None:
            for start in range(0, 9600, 960):
                samples = np.sin(np.arange(start, start + 960) / 20).astype(np.float32)[None]
                piece = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
                output.mux(track.encode(piece))
            output.mux(track.encode(None))


def write_clips(folder: Path, frames: list[np.ndarray]) -> None:
    """Write the clip in every container, as animations and as folders of pictures."""
    folder.mkdir()
    write_clip(folder / "h264.mp4", frames, "libx264", "yuv420p", "aac", chapters=True)
    write_clip(folder / "plain.mp4", frames, "libx264", "yuv420p", bf="0")
    write_clip(folder / "prores.mov", frames, "prores_ks", "yuva444p10le")
    write_clip(folder / "mjpeg.mov", frames, "mjpeg", "yuvj420p", "pcm_s16le")
    write_clip(folder / "ffv1.mkv", frames, "ffv1", "bgr0", "flac", chapters=True)
    write_clip(folder / "h264.mkv", frames, "libx264", "yuv420p", "libmp3lame")
    write_clip(folder / "vp9.webm", frames, "libvpx-vp9", "yuv420p", "libopus", deadline="realtime")
    write_clip(folder / "mjpeg.avi", frames, "mjpeg", "yuvj420p", "pcm_s16le")
    write_clip(folder / "mpeg2.ts", frames, "mpeg2video", "yuv420p", "mp2")
    write_clip(folder / "raw.y4m", frames, "wrapped_avframe", "yuv420p", form="yuv4mpegpipe")
    pictures = [Image.fromarray(frame) for frame in frames]
    for name in ("anim.gif", "anim.webp", "anim.png", "anim.tiff"):
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:], duration=40, loop=0)
    for suffix in ("png", "jpg"):
        (folder / suffix).mkdir()
        for index, picture in enumerate(pictures):
            picture.save(folder / suffix / f"{index:04d}.{suffix}")


def write_images(folder: Path, frame: np.ndarray) -> None:
    """Write an edited first frame in every picture format."""
    folder.mkdir()
    edited = frame.copy()
    edited[14:30, 18:34, 0] = 250
    image = Image.fromarray(edited)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(folder / "rgb.png", icc_profile=profile)
    image.save(folder / "exif.jpg", exif=exif, icc_profile=profile, quality=95)
    image.save(folder / "progressive.jpg", progressive=True)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("CMYK").save(folder / "cmyk.tiff", compression="tiff_lzw")
    image.save(folder / "deflate.tif", compression="tiff_adobe_deflate")
    image.save(folder / "lossless.webp", lossless=True, exif=exif)
    image.save(folder / "lossy.webp")
    image.save(folder / "plain.bmp")
    image.save(folder / "plain.ppm")
    image.save(folder / "still.avif")
    image.quantize(32).save(folder / "palette.png", transparency=3)
    image.quantize(32).save(folder / "palette.gif")
    Image.fromarray(edited[..., 0].astype(np.uint16) * 257).save(folder / "grey16.png")
    import cv2

    cv2.imwrite(str(folder / "rgb16.png"), edited[..., ::-1].astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "rgb16.tiff"), edited[..., ::-1].astype(np.uint16) * 257)


def write_masks(folder: Path) -> None:
    """Write a mask as a still, a folder and a video."""
    (folder / "frames").mkdir(parents=True)
    masks = []
    for index in range(FRAMES):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[12:32, 16 + index : 36 + index] = 255
        masks.append(mask)
        Image.fromarray(mask).save(folder / "frames" / f"{index:05d}.png")
    still = Image.fromarray(np.maximum.reduce(masks))
    still.save(folder / "still.png")
    still.convert("1").save(folder / "one-bit.tiff")
    still.convert("P").save(folder / "palette.gif")
    write_clip(folder / "mask.mkv", [np.repeat(mask[..., None], 3, 2) for mask in masks], "ffv1", "bgr0")


def write_checkpoints(folder: Path) -> None:
    """Write folders and files in the layouts of checkpoints; their tensors are a few and tiny."""
    names = ("wan2.1-i2v-14b", "ltx-video-2b", "wan2.2-ti2v-5b")
    for name in names:
        model = folder / name
        for part in ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"):
            (model / part).mkdir(parents=True)
            (model / part / "config.json").write_text(json.dumps({"_class_name": part, "a": 1}))
        config = json.loads((CONFIGS / f"{name}.json").read_text("utf-8"))
        (model / "transformer" / "config.json").write_text(json.dumps(config))
        (model / "model_index.json").write_text(json.dumps({"_class_name": "Pipe", "transformer": ["diffusers", "X"]}))
        tensors = {
            "blocks.0.attn1.to_q.weight": np.zeros((8, 8), np.float32),
            "patch_embedding.weight": np.zeros((8, 4, 1, 2, 2), np.float16),
        }
        save_file(tensors, model / "transformer" / "diffusion_pytorch_model-00001-of-00001.safetensors", {"format": "pt"})
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(tensors, "diffusion_pytorch_model-00001-of-00001.safetensors")}
        (model / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        save_file({"x": np.zeros(3, np.float32)}, model / "vae" / "diffusion_pytorch_model.safetensors")
    keys = (
        "patch_embedding.weight",
        "blocks.0.self_attn.q.weight",
        "blocks.0.cross_attn.k_img.weight",
        "head.head.weight",
        "blocks.0.ffn.0.weight",
    )
    save_file({key: np.zeros((5120, 1, 1, 1, 1) if "patch" in key else (16, 16), np.float16) for key in keys}, folder / "wan.safetensors")
    (folder / "wan.gguf").write_bytes(build_gguf(keys))


def build_gguf(keys: tuple[str, ...]) -> bytes:
    """Build a GGUF file of a few float tensors."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    data = b"GGUF" + struct.pack("<IQQ", 3, len(keys), 2)
    data += text("general.architecture") + struct.pack("<I", 8) + text("wan")
    data += text("array") + struct.pack("<IIQ", 9, 4, 3) + struct.pack("<3I", 1, 2, 3)
    for index, key in enumerate(keys):
        data += text(key) + struct.pack("<IQQIQ", 2, 32, 4, 0, index * 512)
    data += b"\0" * (-len(data) % 32)
    return data + b"\0" * 512 * len(keys)


def write_loras(folder: Path) -> None:
    """Write LoRA files in several layouts."""
    folder.mkdir()
    layouts = {
        "comfyui": ("diffusion_model.blocks.{}.self_attn.q.lora_A.weight", "diffusion_model.blocks.{}.self_attn.q.lora_B.weight"),
        "kohya": ("lora_unet_blocks_{}_self_attn_q.lora_down.weight", "lora_unet_blocks_{}_self_attn_q.lora_up.weight"),
        "peft": ("base_model.model.blocks.{}.attn1.to_q.lora_A.weight", "base_model.model.blocks.{}.attn1.to_q.lora_B.weight"),
    }
    for name, (down, up) in layouts.items():
        tensors: dict[str, Any] = {}
        for block in range(2):
            tensors[down.format(block)] = np.ones((4, 24), np.float32)
            tensors[up.format(block)] = np.ones((24, 4), np.float16)
            if name == "kohya":
                tensors[f"lora_unet_blocks_{block}_self_attn_q.alpha"] = np.float32([4])
        save_file(tensors, folder / f"{name}.safetensors", {"ss_base_model_version": "wan", "n": "4"})


def write_texts(folder: Path) -> None:
    """Write settings, manifests of cases and of scenes, and a user study with its answers."""
    (folder / "edit.toml").write_text(SETTINGS)
    case = {
        "id": "a",
        "source": "clips/h264.mp4",
        "first_frame": "images/rgb.png",
        "mask": "masks/still.png",
        "prompt": "x",
        "fps": 25,
        "start": 0,
        "frames": 5,
        "later": [{"frame": 2, "image": "images/rgb.png"}],
        "truth": "clips/h264.mp4",
    }
    (folder / "cases.jsonl").write_text(json.dumps(case) + "\n" + json.dumps(case | {"id": "b", "later": []}) + "\n")
    (folder / "scenes.jsonl").write_text("\n".join(json.dumps({"name": n, "kind": "k", "half": "seen"}) for n in "ab"))
    study = folder / "users"
    study.mkdir()
    groups = [{"group": number, "clip": f"c{number}", "options": ["m1", "m2"]} for number in (1, 2)]
    (study / "key.json").write_text(json.dumps({"study": "0123456789abcdef", "seed": 0, "methods": ["m1", "m2"], "groups": groups}))
    answer = {
        "shown": [1, 2],
        "motion_consistency": [2, 1],
        "background_preservation": [1, 2],
        "reference_similarity": 1,
        "visual_quality": 2,
    }
    record = {
        "format": "user-study-answers-1",
        "study": "0123456789abcdef",
        "participant": "p",
        "started": "2026-11-01T10:00:00Z",
        "saved": "2026-11-01T11:00:00Z",
        "answers": [{"group": n} | answer for n in (1, 2)],
    }
    (study / "answers.json").write_text(json.dumps(record))


def write_project(folder: Path) -> None:
    """Write a project of the page, with its result and an unfinished edit."""
    state = {
        "clip": "given/a.mp4",
        "clip_name": "a",
        "marks": [{"kind": "box", "frame": 0, "x": 1, "y": 2, "width": 20, "height": 20}],
        "first_frame": "given/b.png",
        "later": [{"frame": 1, "file": "given/b.png"}],
    }
    project = folder / ("0" * 32)
    project.mkdir(parents=True)
    (project / "states.json").write_text(json.dumps({"states": [{}, state], "at": 1}))
    result = {"file": "results/a.mp4", "run": "results/a.run", "seed": 0, "seconds": {"train": 1.0}, "notes": ["n"], "state": state}
    (project / "made.json").write_text(json.dumps([result]))
    (project / "unfinished.json").write_text(json.dumps({"state": state, "stage": "motion", "done": 1, "total": 4}))


def write_run(folder: Path) -> None:
    """Train a run with the command."""
    assignments = [word for text in FAST for word in ("--set", text)]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "lora_edit",
            "edit",
            "clips/h264.mp4",
            "--first-frame",
            "images/rgb.png",
            "--box",
            BOX,
            "--threads",
            "1",
            "--reference",
            "3=images/rgb.png",
            "--output",
            "result.mp4",
            "--run",
            "run",
            *assignments,
        ],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def build_corpus(folder: Path) -> None:
    """Write every input."""
    folder.mkdir(parents=True)
    frames = draw_frames()
    write_clips(folder / "clips", frames)
    write_images(folder / "images", frames[0])
    write_masks(folder / "masks")
    write_checkpoints(folder / "checkpoints")
    write_loras(folder / "loras")
    write_texts(folder)
    write_project(folder / "projects")
    write_run(folder)


if __name__ == "__main__":
    build_corpus(Path(sys.argv[1]))
