"""`edit-frame` with each image editor: tiny random models in their real pipelines, from checkpoint folders to output images."""

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

from lora_edit.cli.frame_commands import EDITOR_NAMES
from lora_edit.cli.main import app
from lora_edit.errors import ModelError
from lora_edit.first_frame import composite_edited_frame
from lora_edit.models.image_editors import registry
from lora_edit.models.image_editors.pipeline import build_edit_arguments, choose_kontext_size, fit_size_to_area
from lora_edit.models.image_editors.reference_layout import build_reference_layout
from lora_edit.models.image_editors.registry import EDITORS, ImageEditor, find_editor
from lora_edit.provenance.verification import verify_file
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
    """A checkpoint folder of each editor."""
    return {name: save_tiny_editor(name, tmp_path_factory.mktemp(name)) for name in NAMES}


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clip of three different frames; the editors run at small sizes with two steps."""
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
    """Run `edit-frame` on the clip."""
    model = ("--model", f"{name}@{folder}")
    return CliRunner().invoke(app, ["edit-frame", "clip.mkv", "--instruction", "a red coat", *model, "--output", output, *more])


def read(name: str = "first.png") -> torch.Tensor:
    return read_image(Path(name))


@pytest.mark.parametrize("name", NAMES)
def test_frame_is_edited_inside_box_only(name: str, folders: dict[str, Path], clip: Path) -> None:
    """At the size of the clip, with the source's pixels outside of the box. The licence is printed first. A seed determines the image."""
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
def test_output_replaces_whole_frame_without_mask(name: str, folders: dict[str, Path], clip: Path) -> None:
    """A note recommends a mask."""
    outcome = run(name, folders[name])
    assert outcome.exit_code == 0 and "give --box or --mask" in outcome.stderr
    assert not torch.equal(read()[OUTSIDE], read_video(clip).frames[0][OUTSIDE])


def test_mask_of_clip_is_accepted(folders: dict[str, Path], clip: Path) -> None:
    """The mask frame of the same number is used. A note describes changes outside of the mask, with the remedy."""
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
    report = verify_file(Path("first.png"), source=clip)
    assert report.is_valid and report.edit is not None and report.edit["model"]["name"] == "flux-fill"
    assert report.edit["region"]["boxes"] == [{"frame": 0, "boxes": [[20, 10, 30, 15]]}]
    assert b"red coat" not in Path("first.png").read_bytes()


def test_changes_outside_mask_are_noted_with_their_box() -> None:
    """An object larger than its mask is cut off at the mask; a shift of all colours is corrected."""
    source = torch.randint(60, 200, (90, 120, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    hole = torch.zeros(90, 120, dtype=torch.bool)
    hole[30:60, 40:80] = True
    output = source.clone()
    output[30:75, 40:80] = torch.tensor([250, 10, 10], dtype=torch.uint8)
    edited, notes = composite_edited_frame(source, output, hole)
    assert torch.equal(edited[~hole], source[~hole]) and len(notes) == 1 and "use --box 40,30,40,45" in notes[0]
    assert torch.equal(edited[40:50, 50:70], output[40:50, 50:70])
    shifted = (output.int() + torch.tensor([10, 0, -10])).clamp(0, 255).to(torch.uint8)
    shifted[60:] = source[60:] + torch.tensor([10, 0, 0], dtype=torch.uint8)
    shifted[60:, :, 2] -= 10
    edited, notes = composite_edited_frame(source, shifted, hole)
    assert torch.equal(edited[~hole], source[~hole]) and not notes
    assert (edited[40:50, 50:70, :2].int() - output[40:50, 50:70, :2].int()).abs().max() <= 6


def get_error_line(outcome: Outcome) -> str:
    """Return the only line of a command that failed before loading the editor."""
    assert outcome.exit_code == 2 and outcome.stdout == "" and outcome.stderr.count("\n") == 1, outcome.stderr
    assert not Path("first.png").exists()
    return outcome.stderr


def test_errors_precede_loading_the_editor(folders: dict[str, Path], clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one line with a remedy."""
    monkeypatch.setattr("lora_edit.models.image_editors.pipeline.load_editor", lambda *_: pytest.fail("an editor was loaded"))
    fill = folders["flux-fill"]
    assert "flux-fill paints where a mask is white; give --box" in get_error_line(run("flux-fill", fill))
    assert "outside the frame" in get_error_line(run("flux-fill", fill, "--box", "900,0,5,5"))
    assert "none.safetensors: no such file" in get_error_line(run("flux-kontext", folders["flux-kontext"], "--lora", "none.safetensors"))
    assert "holds FluxFillPipeline, not FluxKontextPipeline" in get_error_line(run("flux-kontext", fill))
    assert "the frame is written losslessly" in get_error_line(run("flux-kontext", folders["flux-kontext"], output="first.webp"))
    for name in ("flux-kontext", "qwen-image-edit"):
        given = ("--box", "20,12,30,20", "--reference", "coat.png")
        assert "takes no reference image; leave out --reference, or choose --model flux-fill" in get_error_line(
            run(name, folders[name], *given)
        )
    assert "coat.png" in get_error_line(run("flux-fill", fill, "--box", "20,12,30,20", "--reference", "coat.png"))
    assert "flux-fill paints where a mask is white" in get_error_line(run("flux-fill", fill, "--reference", "coat.png"))
    Path("there.png").write_bytes(b"mine")
    assert "--overwrite" in get_error_line(run("flux-kontext", folders["flux-kontext"], output="there.png"))
    save_image(Path("mask.png"), torch.full((HEIGHT, WIDTH, 3), 255, dtype=torch.uint8))
    given = ("--mask", "mask.png", "--overwrite")
    assert "part of the input" in get_error_line(run("flux-fill", fill, *given, output="mask.png"))
    assert Path("there.png").read_bytes() == b"mine"


def test_incomplete_download_is_rejected(folders: dict[str, Path], tmp_path: Path) -> None:
    """By the list of its parts and their shards, before reading weights."""
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


def test_downloaded_repository_is_found(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache of the Hub, by the name of the editor."""
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


def test_lora_acts_on_editor_with_its_strength(folders: dict[str, Path], clip: Path) -> None:
    """Like those of ACE++ on Fill. A LoRA for another model is rejected with one line."""
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


def test_reference_is_placed_beside_frame(folders: dict[str, Path], clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the left of the frame and outside of the mask. The reference determines what is painted."""
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
        assert outcome.exit_code == 0 and "the subject LoRA of ACE++" in outcome.stderr, outcome.stderr
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


def test_size_of_reference_layout() -> None:
    """The limits of ACE++: the height of the frame, no enlargement, at most 4096 tokens, at most 4:1."""

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
def test_arguments_match_signatures_of_pipelines(editor: ImageEditor) -> None:
    """The signatures are those of diffusers."""
    given = build_edit_arguments(editor, Image.new("RGB", (832, 480)), "a red coat", Image.new("L", (832, 480)))
    call = inspect.signature(getattr(diffusers, editor.pipeline).__call__)
    call.bind(None, **given, generator=None, callback_on_step_end=None)
    assert ("mask_image" in given) == editor.inpaints
    assert editor.license == "Apache-2.0" or "not for commercial use" in editor.license


def test_editor_sizes_are_multiples_of_tokens() -> None:
    """Fill has one to two million pixels; Kontext has the size of its training data that its pipeline chooses."""
    fill = (1024 * 1024, 2 * 1024 * 1024)
    assert fit_size_to_area((832, 480), fill) == (1344, 784) and fit_size_to_area((3840, 2160), fill) == (1936, 1088)
    assert fit_size_to_area((1280, 720), fill) == (1360, 768) and fit_size_to_area((4000, 100), fill) == (6480, 160)
    assert choose_kontext_size((832, 480)) == (1328, 800) and choose_kontext_size((500, 500)) == (1024, 1024)


def test_editor_names_match_registry() -> None:
    assert EDITOR_NAMES.split(", ") == NAMES


def test_docs_describe_all_editors() -> None:
    """Name, licence, size, memory and download command."""
    page = (Path(__file__).parents[1] / "docs" / "first-frame.md").read_text("utf-8")
    for editor in EDITORS:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{editor.name}`"))
        assert all(
            text in row
            for text in (editor.build_download_command(), editor.license.split(":")[0], f"{editor.download_gb:g} GB", editor.memory)
        )
