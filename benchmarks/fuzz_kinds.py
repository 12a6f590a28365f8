"""The cases of `fuzz.py`: for each kind of input, which files are changed and which command reads them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_bombs import FOLDER_BOMBS, IMAGE_BOMBS, VIDEO_BOMBS, gguf_bomb, safetensors_bomb, special_file, text_bomb
from fuzz_corpus import BOX, FAST
from fuzz_mutations import EXTREME_VALUES, mutate_file

PROJECT = "project"
"""First word of a case that opens a project of the page instead of running a command."""
SHORTER_CLIP = ("box", "--point", "frame ", "the result", "the truth")
"""What an error may name instead of a changed clip that is still valid, but shorter or smaller."""
PLAIN_BOX = ("--box", f"{BOX}:0", "--box", f"{BOX}:4")  # a box that stays needs no tracking
SETTINGS = [word for text in (*FAST, "masks.check=false") for word in ("--set", text)]


@dataclass
class Case:
    """One call of the command: its words, the changed files, and what its error may name besides these files."""

    words: list[str]
    changed: list[Path] = field(default_factory=list)
    mutation: str = ""
    names: tuple[str, ...] = ()
    mutable: tuple[str, ...] = ()
    """Folders that the command may change."""
    may_write_anywhere: bool = False
    """Whether the command may write to any folder below the case's, such as one that a mutated option names."""


def copy(corpus: Path, folder: Path, *names: str) -> None:
    """Copy files and folders of the corpus to the same relative paths."""
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (corpus / name).is_dir():
            shutil.copytree(corpus / name, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(corpus / name, target)


def choose_reader(rng: random.Random, clip: str) -> list[str]:
    """Choose a command that reads `clip`; the cheap ones more often."""
    first = ["--first-frame", "images/rgb.png"]
    region = list(PLAIN_BOX)
    choice = rng.random()
    if choice < 0.4:
        return ["frame", clip, str(rng.choice((0, 0, 1, 4))), "--output", "out/frame.png"]
    if choice < 0.65:
        return ["mask", clip, "--box", f"{BOX}", "--output", "out/mask"]
    if choice < 0.75:
        return ["mask", clip, "--point", "26,22", "--output", "out/mask", "--threads", "1"]
    if choice < 0.85:
        return ["new", clip, *first, *region, "--run", "out/run", "--threads", "1", *SETTINGS]
    if choice < 0.9:
        suffix = rng.choice((".mp4", ".mkv", ".gif", ".mov", ".webm", ""))
        return ["preview", clip, *first, *region, "--output", f"out/preview{suffix}", "--threads", "1"]
    if choice < 0.98:
        role = rng.randrange(3)
        words = [
            [clip, "--source", "clips/h264.mp4"],
            ["clips/h264.mp4", "--source", clip],
            ["clips/h264.mp4", "--source", "clips/h264.mp4", "--truth", clip],
        ]
        return ["evaluate", *words[role], "--mask", "masks/still.png", "--json", "--threads", "1"]
    return ["edit", clip, *first, *region, "--output", "out/edit.mp4", "--threads", "1", *SETTINGS]


def fuzz_video(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change a clip, or one file of a folder of pictures."""
    clips = [path for path in sorted((corpus / "clips").iterdir()) if path.is_file()]
    name = rng.choice((*(path.name for path in clips), "png", "jpg"))
    copy(corpus, folder, f"clips/{name}", "clips/h264.mp4", "images/rgb.png", "masks/still.png")
    target = folder / "clips" / name
    if target.is_dir():
        target = rng.choice(sorted(target.iterdir()))
        donors = [corpus / "images" / other for other in ("rgb.png", "exif.jpg", "rgb16.png", "palette.png", "cmyk.jpg")]
    else:
        donors = [path for path in clips if path.suffix == target.suffix] + [rng.choice(clips)]
        moved = target.with_stem("changed")
        shutil.copyfile(target, moved)
        target = moved
    mutation = mutate_file(target, rng, donors)
    clip = target if target.parent.name == "clips" else target.parent
    # A change may leave a shorter or smaller clip, which then contradicts the other options.
    return Case(
        choose_reader(rng, str(clip.relative_to(folder))),
        [target],
        mutation,
        (clip.name, *SHORTER_CLIP),
    )


def fuzz_image(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change the edited first frame, or a later one."""
    images = sorted((corpus / "images").iterdir())
    name = rng.choice(images).name
    copy(corpus, folder, f"images/{name}", "images/rgb.png", "clips/h264.mp4", "masks/still.png")
    target = folder / "images" / f"changed{Path(name).suffix}"
    shutil.copyfile(corpus / "images" / name, target)
    mutation = mutate_file(target, rng, images)
    return Case(choose_picture_reader(rng, f"images/{target.name}"), [target], mutation, ("first frame", "--box"))


def choose_picture_reader(rng: random.Random, image: str) -> list[str]:
    """Choose a command that reads a picture."""
    choice = rng.random()
    if choice < 0.35:
        return ["frame", image, "0", "--output", "out/frame.png"]
    if choice < 0.65:
        return [
            "evaluate",
            "clips/h264.mp4",
            "--source",
            "clips/h264.mp4",
            "--mask",
            "masks/still.png",
            "--first-frame",
            image,
            "--metrics",
            "region_psnr",
            "--threads",
            "1",
        ]
    if choice < 0.85:
        return ["new", "clips/h264.mp4", "--first-frame", image, *PLAIN_BOX, "--run", "out/run", "--threads", "1", *SETTINGS]
    return [
        "new",
        "clips/h264.mp4",
        "--first-frame",
        "images/rgb.png",
        *PLAIN_BOX,
        rng.choice(("--reference", "--anchor")),
        f"2={image}",
        "--run",
        "out/run",
        "--threads",
        "1",
        *SETTINGS,
    ]


def fuzz_mask(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change a mask."""
    name = rng.choice(("still.png", "one-bit.tiff", "palette.gif", "mask.mkv", "frames"))
    copy(corpus, folder, f"masks/{name}", "clips/h264.mp4", "images/rgb.png")
    target = mask = folder / "masks" / name
    if target.is_dir():
        target = rng.choice(sorted(target.iterdir()))
        if rng.random() < 0.3:
            target.unlink()
            target.write_bytes((corpus / "masks" / "frames" / "00000.png").read_bytes())
    mutation = mutate_file(target, rng, [corpus / "masks" / "still.png", corpus / "images" / "rgb.png", corpus / "masks" / "mask.mkv"])
    return Case(choose_mask_reader(rng, str(mask.relative_to(folder))), [target], mutation, (mask.name, "--mask"))


def choose_mask_reader(rng: random.Random, mask: str) -> list[str]:
    """Choose a command that reads a mask."""
    if rng.random() < 0.6:
        return ["evaluate", "clips/h264.mp4", "--source", "clips/h264.mp4", "--mask", mask, "--metrics", "region_psnr", "--threads", "1"]
    shape = rng.choice(("box", "tight", "noisy", "as-is"))
    return [
        "new",
        "clips/h264.mp4",
        "--first-frame",
        "images/rgb.png",
        "--mask",
        mask,
        "--mask-shape",
        shape,
        "--run",
        "out/run",
        "--threads",
        "1",
        *SETTINGS,
    ]


def fuzz_settings(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change a settings file."""
    copy(corpus, folder, "edit.toml", "clips/h264.mp4", "images/rgb.png")
    mutation = mutate_file(folder / "edit.toml", rng, [corpus / "run" / "edit.toml", corpus / "cases.jsonl"])
    words = ["new", *(["clips/h264.mp4"] if rng.random() < 0.5 else []), "--config", "edit.toml", "--run", "out/run", "--threads", "1"]
    return Case(words, [folder / "edit.toml"], mutation, ANY_NAME)


ANY_NAME = ("",)
"""The error names a setting or a value, which differs from case to case."""
SETTING_NAMES = (
    "training.motion_steps",
    "training.learning_rate",
    "training.window",
    "training.shift",
    "training.batch_size",
    "training.base",
    "lora.rank",
    "lora.alpha",
    "lora.targets",
    "generation.steps",
    "generation.guidance_scale",
    "generation.window",
    "generation.overlap",
    "generation.loras",
    "masks.expand",
    "masks.smooth",
    "masks.shape",
    "masks.check",
    "masks.snap",
    "compositing.feather",
    "compositing.context",
    "compositing.enabled",
    "video.start",
    "video.frames",
    "video.fps",
    "video.codec",
    "method.conditioning",
    "caption.model",
    "encodings.kept_gb",
    "model",
    "seed",
    "preset",
    "prompt",
    "trigger",
    "input.source",
    "x",
    "",
    ".",
    "training.",
    "a.b.c",
    "training",
    "video",
)
OPTION_NAMES = (
    "--box",
    "--point",
    "--not-point",
    "--mask",
    "--reference",
    "--anchor",
    "--lora",
    "--fps",
    "--start",
    "--frames",
    "--seed",
    "--model",
    "--preset",
    "--mask-shape",
    "--expand",
    "--codec",
    "--prompt",
    "--config",
    "--first-frame",
    "--threads",
    "--run",
    "--output",
)


def draw_text(rng: random.Random) -> str:
    """Draw an option's value: numbers, extreme numbers, separators, paths and noise."""
    numbers = (
        "0",
        "1",
        "-1",
        "2",
        "4",
        "5",
        "16",
        "1e9",
        "1e308",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "0x10",
        "9" * 400,
        "9" * 5000,
        "\u0663",
        "1_0",
        "+5",
        "",
        " ",
    )
    choice = rng.random()
    if choice < 0.35:
        return ",".join(rng.choice(numbers) for _ in range(rng.choice((1, 2, 4, 4, 5)))) + rng.choice(
            ("", ":0", ":2", ":-1", ":x", "#a", ":1#b", ":#", "#")
        )
    if choice < 0.5:
        return rng.choice(
            ("1=", "2=images/rgb.png", "=x", "0=images/rgb.png", "99999999999999999999=images/rgb.png", "2=/dev/zero", "2=.", "1=nope.png")
        )
    if choice < 0.7:
        return rng.choice(
            (
                "/dev/zero",
                "/dev/null",
                ".",
                "..",
                "/",
                "clips",
                "clips/h264.mp4",
                "images/rgb.png",
                "nope",
                "x" * 300,
                "x/" * 3000,
                "a\nb",
                "~",
                "file:images/rgb.png",
                "http://localhost/x",
                "concat:a|b",
                "-",
                "--",
                "\udcff",
                "images/rgb.png/x",
                "edit.toml",
                "run",
            )
        )
    value = rng.choice(EXTREME_VALUES)
    text = str(value) if not (isinstance(value, int) and value > 10**300) else "1" + "0" * 400
    return text[:20000].replace("\0", "?")


def fuzz_options(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Give options and `--set` odd values."""
    copy(corpus, folder, "clips/h264.mp4", "images/rgb.png", "edit.toml")
    words = ["new", "clips/h264.mp4", "--first-frame", "images/rgb.png", "--run", "out/run"]
    choice = rng.random()
    extra: list[str] = []
    for _ in range(rng.choice((1, 1, 2))):
        if rng.random() < 0.5:
            extra += ["--set", f"{rng.choice(SETTING_NAMES)}={draw_text(rng)}"]
        else:
            extra += [rng.choice(OPTION_NAMES), draw_text(rng)]
    if choice < 0.15:
        words = ["frame", "clips/h264.mp4", draw_text(rng), "--output", "out/frame.png"]
        extra = [rng.choice(("--start", "--frames", "--fps")), draw_text(rng)]
    elif choice < 0.4:
        words = ["mask", "clips/h264.mp4", "--output", "out/mask"]
        extra = [
            word
            for _ in range(rng.choice((1, 2)))
            for word in (rng.choice(("--box", "--point", "--not-point", "--start", "--frames", "--object")), draw_text(rng))
        ]
    elif choice < 0.5:
        words, extra = (
            ["evaluate", "clips/h264.mp4", "--source", "clips/h264.mp4"],
            [rng.choice(("--metrics", "--mask", "--truth", "--first-frame")), draw_text(rng)],
        )
    elif not any(word in ("--box", "--point", "--mask") for word in extra):
        words += PLAIN_BOX
    return Case([*words, *extra], [], "option", ANY_NAME, may_write_anywhere=True)


RUN_FILES = (
    "edit.toml",
    "edit.toml",
    "manifest.json",
    "manifest.json",
    "clip.json",
    "clip.json",
    "frames/00002.png",
    "masks/00001.png",
    "references/first_frame.png",
    "references/reference_00003.png",
    "lora/edit.safetensors",
    "lora/edit.safetensors",
    "checkpoints/training.pt",
    "checkpoints/training-motion.pt",
    "log.txt",
    "result.mp4",
    "captions.json",
)


def fuzz_run(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change, remove, link or swap files of a run folder."""
    copy(corpus, folder, "run", "clips/h264.mp4", "images/rgb.png")
    for name in ("edit.toml", "clip.json"):  # absolute paths
        file = folder / "run" / name
        file.write_text(file.read_text("utf-8").replace(str(corpus), str(folder)), "utf-8")
    target = folder / "run" / rng.choice(RUN_FILES)
    if target.name == "captions.json":
        target.write_text('{"a": "b"}')
    mutation = spoil_run_file(folder, target, rng, corpus)
    retrains = rng.random() < 0.15
    if retrains:
        (folder / "run" / "lora" / "edit.safetensors").unlink(missing_ok=True)
    words = rng.choice(
        (
            ["train", "run", "--threads", "1"],
            ["generate", "run", "--threads", "1", "--output", "out/again.mp4"],
            ["export", "run", "--output", "out/x.safetensors"],
            ["evaluate", "run/result.mp4", "--source", "run/frames", "--mask", "run/masks", "--threads", "1"],
        )
    )
    return Case(words, [target], mutation, ("run", *ANY_NAME), ("run",))


def spoil_run_file(folder: Path, target: Path, rng: random.Random, corpus: Path) -> str:
    """Change a file of the run; returns how."""
    what = rng.randrange(12)
    if what == 0:
        target.unlink()
        return "remove"
    if what == 1:
        target.unlink()
        target.mkdir()
        return "folder instead of a file"
    if what == 2:
        target.unlink()
        target.symlink_to(rng.choice((target.name, "/dev/zero", "nowhere", str(folder / "images" / "rgb.png"))))
        return "link"
    if what == 3:
        target.write_bytes((folder / "run" / rng.choice(RUN_FILES[:-1])).read_bytes() if target.name != "edit.toml" else b"")
        return "swap"
    if what == 4:
        shutil.rmtree(
            target.parent if target.parent.name != "run" else folder / "run" / rng.choice(("frames", "masks", "lora", "references"))
        )
        return "remove a folder"
    return mutate_file(target, rng, [corpus / "run" / "manifest.json", corpus / "images" / "rgb.png"])


def fuzz_lora(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change a LoRA file."""
    names = ("loras/comfyui.safetensors", "loras/kohya.safetensors", "loras/peft.safetensors", "run/lora/edit.safetensors")
    name = rng.choice(names)
    copy(corpus, folder, name, "clips/h264.mp4", "images/rgb.png")
    target = folder / name
    mutation = mutate_file(target, rng, [corpus / other for other in names])
    return Case(choose_lora_reader(rng, name), [target], mutation, ANY_NAME if name.startswith("run") else ())


def choose_lora_reader(rng: random.Random, name: str) -> list[str]:
    """Choose a command that reads a LoRA file."""
    if rng.random() < 0.7:
        return ["import", name, *(["--json"] if rng.random() < 0.5 else [])]
    model = rng.choice(("tiny", "wan2.1-i2v-480p"))
    return [
        "new",
        "clips/h264.mp4",
        "--first-frame",
        "images/rgb.png",
        *PLAIN_BOX,
        "--lora",
        name,
        "--model",
        model,
        "--run",
        "out/run",
        "--threads",
        "1",
        *SETTINGS,
    ]


def fuzz_checkpoint(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change a configuration, an index or a weights file of a checkpoint."""
    copy(corpus, folder, "clips/h264.mp4", "images/rgb.png")
    name = rng.choice(("wan2.1-i2v-14b", "ltx-video-2b", "wan2.2-ti2v-5b", "wan.safetensors", "wan.gguf"))
    copy(corpus, folder, f"checkpoints/{name}")
    target = folder / "checkpoints" / name
    if target.is_dir():
        target = rng.choice(
            [path for path in sorted(target.rglob("*")) if path.is_file() and path.parent.name not in ("scheduler", "tokenizer")]
        )
    mutation = mutate_file(target, rng, [corpus / "checkpoints" / "wan.gguf", corpus / "loras" / "peft.safetensors"])
    return Case(choose_model_reader(rng, f"checkpoints/{name}"), [target], mutation, ("checkpoints", *ANY_NAME))


def choose_model_reader(rng: random.Random, place: str) -> list[str]:
    """Choose a command that reads a checkpoint's headers."""
    model = rng.choice(("", "", "wan2.1-i2v-480p@", "ltx-video@", "wan2.2-ti2v-5b@", "hunyuan-i2v@", "tiny@")) + place
    if rng.random() < 0.7:
        return ["models", model, *(["--json"] if rng.random() < 0.5 else [])]
    return [
        "new",
        "clips/h264.mp4",
        "--first-frame",
        "images/rgb.png",
        *PLAIN_BOX,
        "--model",
        model,
        "--run",
        "out/run",
        "--threads",
        "1",
        *SETTINGS,
    ]


def fuzz_cases(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change the list of cases or of scenes of a study."""
    copy(corpus, folder, "clips/h264.mp4", "images/rgb.png", "masks/still.png", "cases.jsonl", "scenes.jsonl")
    name = rng.choice(("cases.jsonl", "cases.jsonl", "scenes.jsonl"))
    if name == "cases.jsonl":  # a missing file at the end, so that a valid list does not start hours of training
        lines = (
            (folder / name).read_text("utf-8").replace('"id": "b", "source": "clips/h264.mp4"', '"id": "b", "source": "clips/missing.mp4"')
        )
        (folder / name).write_text(lines, "utf-8")
    mutation = mutate_file(folder / name, rng, [corpus / "edit.toml"])
    source = ["--cases", name] if name == "cases.jsonl" else ["--scenes-from", "."]
    if name == "cases.jsonl":
        with (folder / name).open("ab") as file:
            file.write(b'\n{"id": "last", "source": "clips/missing.mp4", "first_frame": "images/rgb.png"}\n')
    return Case(
        ["study", rng.choice(("methods", "mask-shape")), *source, "--output", "out/study", "--threads", "1"],
        [folder / name],
        mutation,
        (name,),
    )


def fuzz_answers(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change the answers or the key of a user study."""
    copy(corpus, folder, "users")
    target = folder / "users" / rng.choice(("key.json", "answers.json", "answers.json"))
    mutation = mutate_file(target, rng, [corpus / "users" / "key.json"])
    return Case(["study", "users", "--tally", "users/answers.json", "--output", "users"], [target], mutation, ("users",), ("users",))


def fuzz_project(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Change the files of a project of the page."""
    copy(corpus, folder, "projects")
    target = folder / "projects" / ("0" * 32) / rng.choice(("states.json", "states.json", "made.json", "unfinished.json"))
    mutation = mutate_file(target, rng, [corpus / "users" / "key.json"])
    return Case([PROJECT, "projects"], [target], mutation, ANY_NAME, ("projects",))


def fuzz_bomb(corpus: Path, folder: Path, rng: random.Random) -> Case:
    """Give a file that is small on disk and huge, endless or absurd once opened."""
    copy(corpus, folder, "clips/h264.mp4", "clips/plain.mp4", "clips/ffv1.mkv", "images/rgb.png", "masks/still.png", "run")
    bombs = folder / "bombs"
    bombs.mkdir()
    role = rng.choice(("video", "video", "video", "image", "image", "mask", "folder", "special", "lora", "model", "text"))
    build: Any = {
        "video": VIDEO_BOMBS,
        "image": IMAGE_BOMBS,
        "mask": (*IMAGE_BOMBS, *VIDEO_BOMBS),
        "folder": FOLDER_BOMBS,
        "special": (special_file,),
        "lora": (safetensors_bomb,),
        "model": (safetensors_bomb, gguf_bomb),
        "text": (text_bomb,),
    }
    builder = rng.choice(build[role])
    target = builder(bombs, rng)
    name = str(target.relative_to(folder))
    return Case(
        choose_bomb_reader(rng, role, name, folder),
        [target],
        builder.__name__,
        (target.name, *ANY_NAME) if role in ("model", "text", "special") else (target.name, *SHORTER_CLIP),
        ("run",),
    )


def choose_bomb_reader(rng: random.Random, role: str, name: str, folder: Path) -> list[str]:
    """Choose a command that opens the file in the given role."""
    run = ["new", "clips/h264.mp4", "--first-frame", "images/rgb.png", "--run", "out/run", "--threads", "1", *SETTINGS]
    readers: dict[str, list[list[str]]] = {
        "video": [choose_reader(rng, name)],
        "folder": [choose_reader(rng, name)],
        "image": [choose_picture_reader(rng, name)],
        "mask": [choose_mask_reader(rng, name)],
        "lora": [choose_lora_reader(rng, name)],
        "model": [choose_model_reader(rng, name)],
        "text": [
            [*run, *PLAIN_BOX, "--config", name],
            ["study", "methods", "--cases", name, "--output", "out/study"],
            ["study", "users", "--tally", name, "--output", "run"],
        ],
    }
    readers["special"] = [
        choose_reader(rng, name),
        choose_picture_reader(rng, name),
        choose_mask_reader(rng, name),
        ["import", name],
        ["models", name],
        ["models", f"wan2.1-i2v-480p@{name}"],
        [*run, *PLAIN_BOX, "--config", name],
        ["study", "methods", "--cases", name, "--output", "out/study"],
        [*run, *PLAIN_BOX, "--lora", name],
        ["evaluate", name, "--source", name],
        ["train", name],
        ["study", "users", "--cases", name, "--output", "out/u"],
    ]
    return rng.choice(readers[role])


KINDS: dict[str, tuple[int, Callable[[Path, Path, random.Random], Case]]] = {
    "video": (5, fuzz_video),
    "image": (4, fuzz_image),
    "mask": (2, fuzz_mask),
    "settings": (2, fuzz_settings),
    "options": (2, fuzz_options),
    "run": (2, fuzz_run),
    "lora": (2, fuzz_lora),
    "checkpoint": (2, fuzz_checkpoint),
    "cases": (1, fuzz_cases),
    "answers": (1, fuzz_answers),
    "project": (1, fuzz_project),
    "bomb": (3, fuzz_bomb),
}
"""Kind -> its share of the cases, and the function that prepares one."""
