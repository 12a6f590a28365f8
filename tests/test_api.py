"""The Python interface: its names, its lightness, and that it does what the command does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

import lora_edit
from lora_edit.types import Video
from lora_edit.video.read import read_image, read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

NAMES = [
    "EditSettings", "InputError", "LoraEditError", "MaskError", "ModelError", "NonFiniteError", "RegionError", "Reporter", "ResolvedEdit",
    "Result", "Run", "RunError", "Session", "SettingsError", "SigningError", "TrainingDivergedError", "VerificationReport", "VideoError",
    "build_settings", "edit", "evaluate", "generate", "preview", "train", "verify",
]  # fmt: skip
QUICK = {
    "training": {"motion_steps": 2, "appearance_steps": 1, "batch_size": 1, "recolour_variants": 1},
    "generation": {"steps": 1},
    "video": {"codec": "ffv1"},
}
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of five noise frames, its edited first frame, and its edited frame 3."""
    folder = tmp_path_factory.mktemp("api")
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (5, 6, 8, 3), generator=generator, dtype=torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    write_video(folder / "source.mkv", Video(frames.contiguous(), Fraction(8), tuple(i / 8 for i in range(5))), "ffv1")
    for number in (0, 3):
        image = frames[number].clone()
        image[12:28, 20:40] = torch.tensor([200, 30, 30], dtype=torch.uint8)
        save_image(folder / f"{number}.png", image)
    return folder


def test_the_public_names_are_these() -> None:
    assert lora_edit.__all__ == NAMES == sorted(NAMES)
    assert all(getattr(lora_edit, name).__name__ == name for name in NAMES)
    assert set(NAMES) <= set(dir(lora_edit))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lora_edit.nonsense  # type: ignore[attr-defined]


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, lora_edit; sys.exit(bool({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_edit_in_five_lines(folder: Path) -> None:
    source, first, output = folder / "source.mkv", folder / "0.png", folder / "edited.mkv"
    options = {"boxes": [(18, 8, 30, 24)], "references": {3: folder / "3.png"}, "settings": QUICK}
    result = lora_edit.edit(source, first, output, **options)
    assert (result.output, result.run, result.num_frames) == (output, folder / "edited.run", 5)
    clip, edited = read_video(source), read_video(output)
    assert torch.equal(edited.frames[2, :4], clip.frames[2, :4]), "outside the region every pixel is the source's"
    again = lora_edit.generate(result.run, seed=1)
    assert again.output.parent == result.run / "samples"
    assert lora_edit.train(result.run).list_lora_files() == [result.run / "lora" / "edit.safetensors"]
    values = lora_edit.evaluate(result.run / "result", source, mask=result.run / "masks", first_frame=first)
    assert values["background_psnr"] is None or values["background_psnr"] > 60


def test_a_file_with_new_content_under_its_old_name_is_read_again(folder: Path, tmp_path: Path) -> None:
    """The same command after another edit of the same file: neither the stored input nor the old LoRA is used."""
    first = tmp_path / "first.png"
    image = read_image(folder / "0.png")
    results = []
    for colour in ((200, 30, 30), (30, 30, 200)):
        image[12:28, 20:40] = torch.tensor(colour, dtype=torch.uint8)
        save_image(first, image)
        result = lora_edit.edit(folder / "source.mkv", first, tmp_path / "out.mkv", boxes=[(18, 8, 30, 24)], settings=QUICK, overwrite=True)
        results.append((read_image(result.run / "references" / "first_frame.png"), (result.run / "lora" / "edit.safetensors").read_bytes()))
        assert torch.equal(read_video(result.output).frames[0, 20, 30], torch.tensor(colour, dtype=torch.uint8))
    assert not torch.equal(results[0][0], results[1][0]) and results[0][1] != results[1][1]


def test_a_preview_and_ready_settings(folder: Path) -> None:
    settings = lora_edit.build_settings(folder / "source.mkv", folder / "0.png", boxes=[(18, 8, 30, 24)])
    assert lora_edit.preview(settings, output=folder / "preview.mp4") == folder / "preview.mp4"
    assert read_video(folder / "preview.mp4").num_frames == 5


def test_training_creates_the_run_when_a_source_is_given(folder: Path) -> None:
    run = lora_edit.train(folder / "own", folder / "source.mkv", folder / "0.png", boxes=[(18, 8, 30, 24)], settings=QUICK)
    assert run.list_lora_files()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("nowhere.mp4", "first.png"), {}, lora_edit.VideoError, "no such file"),
        (("clip.mp4",), {}, lora_edit.SettingsError, "first_frame is missing"),
        (("clip.mp4", "first.png"), {"settings": {"training": {"motion_step": 3}}}, lora_edit.SettingsError, "did you mean"),
        (("clip.mp4", "first.png"), {"preset": "quick"}, lora_edit.SettingsError, "preset"),
    ],
)
def test_invalid_input_is_refused_before_a_model_is_loaded(
    arguments: tuple[str, ...], options: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        lora_edit.edit(*arguments, output=tmp_path / "out.mp4", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_input_is_never_the_output(folder: Path) -> None:
    with pytest.raises(lora_edit.VideoError, match="part of the input"):
        lora_edit.edit(folder / "source.mkv", folder / "0.png", folder / "source.mkv", boxes=[(18, 8, 30, 24)], overwrite=True)


def test_settings_and_options_are_not_mixed(folder: Path) -> None:
    settings = lora_edit.build_settings(folder / "source.mkv", folder / "0.png")
    with pytest.raises(lora_edit.SettingsError, match="complete"):
        lora_edit.edit(settings, output=folder / "x.mp4", seed=3)


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("quickstart", EXAMPLES / "quickstart.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    take = script.main(tmp_path / "output")
    assert read_video(take.output).num_frames == 9
