"""The first frame through each editor: real pipelines, tiny and random, from a folder to a picture of the clip's size."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from click.testing import Result as Outcome
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from lora_edit import first_frame
from lora_edit.cli.frame_commands import EDITOR_NAMES
from lora_edit.cli.main import app
from lora_edit.errors import ModelError
from lora_edit.first_frame import composite_edited_frame
from lora_edit.models.image_editors import registry
from lora_edit.models.image_editors.pipeline import build_edit_arguments, choose_kontext_size, fit_size_to_area
from lora_edit.models.image_editors.reference_layout import build_reference_layout
from lora_edit.models.image_editors.registry import EDITORS, ImageEditor, find_editor
from lora_edit.types import Video
from lora_edit.video.read import read_image, read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from tiny_editors import save_tiny_editor

HEIGHT, WIDTH = 50, 70
BOX = (20, 12, 30, 20)
OUTSIDE = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
OUTSIDE[12:32, 20:50] = False
NAMES = [editor.name for editor in EDITORS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each editor."""
    return {name: save_tiny_editor(name, tmp_path_factory.mktemp(name)) for name in NAMES}


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three frames, each of its own; the editors work small and take two steps."""
    coarse = torch.randint(0, 256, (3, 5, 7, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    frames = coarse.repeat_interleave(10, 1).repeat_interleave(10, 2)
    write_video(tmp_path / "clip.mkv", Video(frames, Fraction(8), (0.0, 0.125, 0.25)), "ffv1")
    quick = [
        replace(
            each,
            call_arguments={**each.call_arguments, "num_inference_steps": 2},
            area_range=each.area_range and (64 * 64, 96 * 96),
            reference_arguments=each.reference_arguments and {**each.reference_arguments, "num_inference_steps": 2},
        )
        for each in EDITORS
    ]
    monkeypatch.setattr(registry, "EDITORS", tuple(quick))
    monkeypatch.setattr(
        import_module("diffusers.pipelines.flux.pipeline_flux_kontext"), "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 96), (96, 64)]
    )
    qwen = import_module("diffusers.pipelines.qwenimage.pipeline_qwenimage_edit")
    size_for = qwen.calculate_dimensions
    monkeypatch.setattr(qwen, "calculate_dimensions", lambda area, ratio: size_for(area // 128, ratio))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "clip.mkv"


def run(name: str, folder: Path, *more: str, output: str = "first.png") -> Outcome:
    """The command on the clip."""
    model = ("--model", f"{name}@{folder}")
    return CliRunner().invoke(app, ["edit-frame", "clip.mkv", "--instruction", "a red coat", *model, "--output", output, *more])


def read(name: str = "first.png") -> torch.Tensor:
    return read_image(Path(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_frame_is_edited_inside_the_box_alone(name: str, folders: dict[str, Path], clip: Path) -> None:
    """At the clip's size; outside every pixel is the source's; the licence is told before; the same seed makes the same picture."""
    box = ("--box", ",".join(map(str, BOX)))
    outcome = run(name, folders[name], *box)
    assert (outcome.exit_code, outcome.stdout) == (0, "first.png\n"), outcome.stderr
    editor = next(each for each in EDITORS if each.name == name)
    assert outcome.stderr.index(editor.license) < outcome.stderr.index("edit-frame 2/2")
    source, edited = read_video(clip).frames[0], read()
    assert edited.shape == (HEIGHT, WIDTH, 3) and torch.equal(edited[OUTSIDE], source[OUTSIDE])
    assert (edited[16:28, 24:46].int() - source[16:28, 24:46].int()).abs().float().mean() > 20
    run(name, folders[name], *box, output="same.png")
    run(name, folders[name], *box, "--seed", "1", output="other.png")
    run(name, folders[name], *box, "--start", "2", output="later.png")
    assert torch.equal(read("same.png"), edited) and not torch.equal(read("other.png"), edited)
    assert torch.equal(read("later.png")[OUTSIDE], read_video(clip).frames[2][OUTSIDE])


@pytest.mark.parametrize("name", ["flux-kontext", "qwen-image-edit"])
def test_without_a_mask_the_whole_picture_is_the_editors(name: str, folders: dict[str, Path], clip: Path) -> None:
    """And a note says what a mask would do."""
    outcome = run(name, folders[name])
    assert outcome.exit_code == 0 and "give --box or --mask" in outcome.stderr
    assert not torch.equal(read()[OUTSIDE], read_video(clip).frames[0][OUTSIDE])


def test_a_mask_can_be_the_clips(folders: dict[str, Path], clip: Path) -> None:
    """Its frame of the same number is taken; a rest of the picture that the editor changed is told with the remedy."""
    (clip.parent / "masks").mkdir()
    for number in range(3):
        mask = torch.zeros(HEIGHT, WIDTH, 3, dtype=torch.uint8)
        mask[10 * number : 10 * number + 15, 20:50] = 255
        save_image(clip.parent / "masks" / f"{number}.png", mask)
    outcome = run("flux-fill", folders["flux-fill"], "--mask", "masks", "--start", "1")
    assert outcome.exit_code == 0, outcome.stderr
    changed = (read() != read_video(clip).frames[1]).any(-1)
    assert changed[12:23, 22:48].any() and not changed[:10].any() and not changed[25:].any()
    assert "of the pixels outside the mask; the result shows the source there" in outcome.stderr


def test_what_changed_outside_is_told_with_the_box_that_holds_it() -> None:
    """A coat that is larger than its mask is cut off at it; colours that shift as a whole come back."""
    source = torch.randint(60, 200, (90, 120, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    hole = torch.zeros(90, 120, dtype=torch.bool)
    hole[30:60, 40:80] = True
    made = source.clone()
    made[30:75, 40:80] = torch.tensor([250, 10, 10], dtype=torch.uint8)
    edited, notes = composite_edited_frame(source, made, hole)
    assert torch.equal(edited[~hole], source[~hole]) and len(notes) == 1 and "use --box 40,30,40,45" in notes[0]
    assert torch.equal(edited[40:50, 50:70], made[40:50, 50:70])
    shifted = (made.int() + torch.tensor([10, 0, -10])).clamp(0, 255).to(torch.uint8)
    shifted[60:] = source[60:] + torch.tensor([10, 0, 0], dtype=torch.uint8)
    shifted[60:, :, 2] -= 10
    edited, notes = composite_edited_frame(source, shifted, hole)
    assert torch.equal(edited[~hole], source[~hole]) and not notes
    assert (edited[40:50, 50:70, :2].int() - made[40:50, 50:70, :2].int()).abs().max() <= 6


def refused(outcome: Outcome) -> str:
    """The one line of a command that ended before the editor was read."""
    assert outcome.exit_code == 2 and outcome.stdout == "" and outcome.stderr.count("\n") == 1, outcome.stderr
    assert not Path("first.png").exists()
    return outcome.stderr


def test_faults_end_before_the_editor_is_read(folders: dict[str, Path], clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, with what to do."""
    monkeypatch.setattr(first_frame, "load_editor", lambda *_: pytest.fail("an editor was read"))
    fill = folders["flux-fill"]
    assert "flux-fill paints where a mask is white; give --box" in refused(run("flux-fill", fill))
    assert "outside the frame" in refused(run("flux-fill", fill, "--box", "900,0,5,5"))
    assert "none.safetensors: no such file" in refused(run("flux-kontext", folders["flux-kontext"], "--lora", "none.safetensors"))
    assert "holds FluxFillPipeline, not FluxKontextPipeline" in refused(run("flux-kontext", fill))
    assert "the frame is written without loss" in refused(run("flux-kontext", folders["flux-kontext"], output="first.webp"))
    for name in ("flux-kontext", "qwen-image-edit"):
        given = ("--box", "20,12,30,20", "--reference", "coat.png")
        assert "takes no reference picture; leave out --reference, or choose --model flux-fill" in refused(run(name, folders[name], *given))
    assert "coat.png" in refused(run("flux-fill", fill, "--box", "20,12,30,20", "--reference", "coat.png"))
    assert "flux-fill paints where a mask is white" in refused(run("flux-fill", fill, "--reference", "coat.png"))
    Path("there.png").write_bytes(b"mine")
    assert "--overwrite" in refused(run("flux-kontext", folders["flux-kontext"], output="there.png"))
    save_image(Path("mask.png"), torch.full((HEIGHT, WIDTH, 3), 255, dtype=torch.uint8))
    given = ("--mask", "mask.png", "--overwrite")
    assert "part of the input" in refused(run("flux-fill", fill, *given, output="mask.png"))
    assert Path("there.png").read_bytes() == b"mine"


def test_a_download_that_is_not_whole_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """By the list of its parts and of their shards, before weights are read."""
    copy = Path(shutil.copytree(folders["flux-fill"], tmp_path / "copy"))
    assert find_editor(f"flux-fill@{copy}")[1] == copy
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    shard = weights.with_name("diffusion_pytorch_model-00002-of-00002.safetensors")
    index = {"weight_map": {"a": weights.name, "b": shard.name}}
    weights.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"transformer/{shard.name} of flux-fill missing; get it with `hf download"):
        find_editor(f"flux-fill@{copy}")
    shard.write_bytes(b"")
    assert find_editor(f"flux-fill@{copy}")
    shutil.rmtree(copy / "vae")
    with pytest.raises(ModelError, match="vae of flux-fill missing"):
        find_editor(f"flux-fill@{copy}")
    with pytest.raises(ModelError, match="holds no pipeline"):
        find_editor(f"flux-fill@{tmp_path}")


def test_a_downloaded_repository_is_found(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the Hub's cache, by the editor's own name."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--black-forest-labs--FLUX.1-Fill-dev" / "snapshots" / "abc"
    shutil.copytree(folders["flux-fill"], snapshot)
    assert find_editor("flux-fill") == (next(each for each in EDITORS if each.inpaints), snapshot)


def lora(path: Path, width: int, strength: float = 1.0) -> Path:
    """A LoRA on the queries of the tiny FLUX's single block."""
    draw = torch.Generator().manual_seed(0)
    name = "transformer.single_transformer_blocks.0.attn.to_q"
    pair = {f"{name}.lora_A.weight": torch.randn(2, width, generator=draw), f"{name}.lora_B.weight": torch.randn(width, 2, generator=draw)}
    save_file({key: strength * tensor for key, tensor in pair.items()}, path)
    return path


def test_a_lora_acts_on_the_editor_by_its_strength(folders: dict[str, Path], clip: Path) -> None:
    """As ACE++'s do on Fill; one for another model is refused in one line."""
    box, fill = ("--box", "20,12,30,20"), folders["flux-fill"]
    path = lora(clip.parent / "ace.safetensors", 32)
    for output, more in (("plain.png", ()), ("none.png", ("--lora", f"{path}:0")), ("half.png", ("--lora", f"{path}:0.5")),
                         ("whole.png", ("--lora", str(path)))):  # fmt: skip
        assert run("flux-fill", fill, *box, *more, output=output).exit_code == 0
    assert torch.equal(read("plain.png"), read("none.png"))
    assert not torch.equal(read("plain.png"), read("half.png")) and not torch.equal(read("half.png"), read("whole.png"))
    other = run("flux-fill", fill, *box, "--lora", str(lora(clip.parent / "wide.safetensors", 48)))
    assert other.exit_code == 2 and "wide.safetensors: this LoRA is not for flux-fill" in other.stderr
    name = "diffusion_model.blocks.0.self_attn.q"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}, clip.parent / "wan.safetensors")
    other = run("flux-fill", fill, *box, "--lora", "wan.safetensors")
    assert other.exit_code == 2 and "wan.safetensors: " in other.stderr and "leave out --lora" in other.stderr


def test_a_reference_is_shown_beside_the_frame(folders: dict[str, Path], clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To its left, unpainted; the frame keeps its place, and what the reference shows decides what is painted."""
    fill, box = folders["flux-fill"], ("--box", "20,12,30,20")
    given: list[dict[str, Any]] = []
    call = diffusers.FluxFillPipeline.__call__

    def spy(self: Any, **named: Any) -> Any:
        given.append(named)
        return call(self, **named)

    monkeypatch.setattr(diffusers.FluxFillPipeline, "__call__", spy)
    for name, colour in (("red", 0), ("blue", 2)):
        picture = torch.zeros(100, 80, 3, dtype=torch.uint8)
        picture[..., colour] = 255
        save_image(Path(f"{name}.png"), picture)
        outcome = run("flux-fill", fill, *box, "--reference", f"{name}.png", output=f"{name}_coat.png")
        assert outcome.exit_code == 0 and "ACE++'s subject LoRA" in outcome.stderr, outcome.stderr
    source = read_video(clip).frames[0]
    assert torch.equal(read("red_coat.png")[OUTSIDE], source[OUTSIDE]) and not torch.equal(read("red_coat.png"), read("blue_coat.png"))
    shown, hole = np.asarray(given[0]["image"]), np.asarray(given[0]["mask_image"])
    assert shown.shape == (48, 32 + 64, 3) and (given[0]["width"], given[0]["height"]) == (96, 48)
    assert (shown[:, :32] == (255, 0, 0)).all() and not hole[:, :32].any() and hole[:, 32:].any()
    small = source.permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(small, (48, 64), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert np.abs(shown[:, 32:].astype(float) - small.numpy()).max() < 2
    assert (given[0]["guidance_scale"], given[0]["max_sequence_length"]) == (50.0, 512)
    inspect.signature(call).bind(None, **{key: value for key, value in given[0].items() if key != "self"})


def test_a_reference_and_its_frame_share_a_million_pixels() -> None:
    """ACE++'s numbers: at the frame's height, never enlarged, 4096 tokens at most, 4:1 at most."""

    def sizes(reference: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int, int]:
        pair = build_reference_layout(Image.new("RGB", reference), Image.new("RGB", frame), Image.new("L", frame, 255))
        assert pair.image.size == pair.mask.size and pair.crop_frame(pair.image).size == (
            pair.image.width - pair.frame_left,
            pair.image.height,
        )
        assert np.asarray(pair.mask).mean(0).tolist() == [0] * pair.frame_left + [255] * (pair.image.width - pair.frame_left)
        return pair.frame_left, pair.image.width - pair.frame_left, pair.image.height

    assert sizes((600, 900), (832, 480)) == (320, 832, 480)
    assert sizes((6000, 9000), (832, 480)) == (320, 832, 480) and sizes((60, 90), (832, 480)) == (320, 832, 480)
    assert sizes((1000, 1000), (1920, 1080)) == (608, 1088, 608)
    assert sizes((9000, 100), (320, 320)) == sizes((400, 100), (320, 320)) == (1280, 320, 320)
    assert sizes((100, 9000), (320, 320)) == (80, 320, 320) and sizes((1, 1), (20, 20)) == (16, 16, 16)


@pytest.mark.parametrize("editor", EDITORS, ids=NAMES)
def test_the_pipelines_take_what_they_are_given(editor: ImageEditor) -> None:
    """Diffusers' own signatures, at full size; and what comes out has the size of what goes in."""
    given = build_edit_arguments(editor, Image.new("RGB", (832, 480)), "a red coat", Image.new("L", (832, 480)))
    call = inspect.signature(getattr(diffusers, editor.pipeline).__call__)
    call.bind(None, **given, generator=None, callback_on_step_end=None)
    assert ("mask_image" in given) == editor.inpaints
    assert editor.license == "Apache-2.0" or "not for commercial use" in editor.license


def test_editors_work_on_whole_tokens_of_the_pictures_shape() -> None:
    """Fill within one and two million pixels; Kontext at the sizes it was trained at, as the pipeline itself would choose."""
    fill = (1024 * 1024, 2 * 1024 * 1024)
    assert fit_size_to_area((832, 480), fill) == (1344, 784) and fit_size_to_area((3840, 2160), fill) == (1936, 1088)
    assert fit_size_to_area((1280, 720), fill) == (1360, 768) and fit_size_to_area((4000, 100), fill) == (6480, 160)
    assert choose_kontext_size((832, 480)) == (1328, 800) and choose_kontext_size((500, 500)) == (1024, 1024)


def test_the_names_in_the_help_are_the_editors() -> None:
    assert EDITOR_NAMES.split(", ") == NAMES


def test_the_page_tells_of_every_editor() -> None:
    """Name, licence, size, memory, and the command that gets it."""
    page = (Path(__file__).parents[1] / "docs" / "first-frame.md").read_text("utf-8")
    for editor in EDITORS:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{editor.name}`"))
        assert all(
            text in row
            for text in (editor.build_download_command(), editor.license.split(":")[0], f"{editor.download_gb:g} GB", editor.memory)
        )
