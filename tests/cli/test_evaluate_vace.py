"""`evaluate --vace` with a tiny random VACE model: it edits the same clip, and its metrics are printed beside those of the result."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result as Outcome
from typer.testing import CliRunner

from lora_edit import session, vace_baseline
from lora_edit.cli.main import app
from lora_edit.masks.files import save_mask
from lora_edit.models.families.vace import record as catalog
from lora_edit.models.families.vace.conditioning import VaceFamily
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import TrueEdit, render_true_edit
from lora_edit.types import Size, Video
from lora_edit.video.png_frames import load_frames, save_frames
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from tiny_florence import plain_frame
from tiny_vace import save_tiny_vace

COUNT = 5


@dataclass
class Workspace:
    """A clip, its edited first frame, region and result, and a VACE model."""

    folder: Path
    edit: TrueEdit
    prompts: list[str]

    def run(self, *more: str, result: str = "result", vace: str = "vace", json_wanted: bool = False) -> Outcome:
        given = ["--source", "source.mkv", "--mask", "mask", "--first-frame", "first.png", "--vace", vace, *more]
        return CliRunner().invoke(app, ["evaluate", result, *given, *(["--json"] if json_wanted else [])])


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    facts = save_tiny_vace(tmp_path / "vace")
    monkeypatch.setattr(catalog, "VACE_MODELS", (facts,))
    monkeypatch.setattr(catalog, "vace_preset", lambda: {"generation": {"steps": 2, "shift": 16.0, "guidance_scale": 1.0}})
    edit = render_true_edit(draw_scenes(1, 0, ["recolour"])[0], Size(32, 48), COUNT)
    write_video(tmp_path / "source.mkv", Video(edit.source, Fraction(8), tuple(i / 8 for i in range(COUNT))), "ffv1")
    save_image(tmp_path / "first.png", edit.truth[0])
    save_mask(tmp_path / "mask", edit.mask)
    save_frames(tmp_path / "result", edit.truth)
    prompts: list[str] = []
    encode = VaceFamily.encode_prompt

    def asked(family: VaceFamily, prompt: str) -> torch.Tensor:
        prompts.append(prompt)
        return encode(family, prompt)

    monkeypatch.setattr(VaceFamily, "encode_prompt", asked)
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path, edit, prompts)


def get_error_line(outcome: Outcome) -> str:
    assert outcome.exit_code == 2 and outcome.stdout == "" and outcome.stderr.count("\n") == 1, outcome.stderr
    return outcome.stderr


def test_vace_metrics_are_printed_beside_result(workspace: Workspace) -> None:
    """They are of a separate clip beside the result, which has the pixels of the source outside of the region and others inside."""
    outcome = workspace.run("--prompt", "a red coat")
    assert outcome.exit_code == 0, outcome.stderr
    rows = {line.split()[0]: line.split()[1:] for line in outcome.stdout.splitlines()}
    output = workspace.folder / "result-vace"
    assert rows["result"] == ["VACE"] and rows["output"] == ["result", str(output)] and rows["model"] == ["-", "wan2.1-vace-1.3b"]
    output_frames = load_frames(output)
    hidden = workspace.edit.mask.frames
    assert output_frames.shape == workspace.edit.source.shape
    assert torch.equal(output_frames[~hidden], workspace.edit.source[~hidden]) and rows["background_exact"][1] == "True"
    assert (output_frames[1:].float() - workspace.edit.source[1:].float()).abs()[hidden[1:]].mean() > 10
    assert rows["region_psnr"][0] != rows["region_psnr"][1]
    assert workspace.prompts == ["a red coat"], "the prompt as given, without p*, as VACE was not trained with it"


def test_json_has_vace_object(workspace: Workspace) -> None:
    """It has the same keys as the result, whose keys do not change; only the requested metrics are computed."""
    outcome = workspace.run("--metrics", "region_psnr,leak", "--prompt", "x", json_wanted=True)
    record = json.loads(outcome.stdout)
    vace = record.pop("vace")
    assert list(record) == ["num_frames", "size", "fps", "region_psnr", "leak"] and list(vace) == [*record, "model", "output"]
    assert vace["region_psnr"] != record["region_psnr"]
    again = CliRunner().invoke(app, ["evaluate", vace["output"], "--source", "source.mkv", "--mask", "mask", "--first-frame", "first.png",
                                     "--metrics", "region_psnr,leak", "--json"])  # fmt: skip
    assert json.loads(again.stdout) == {key: vace[key] for key in record}, "equal to the metrics of the written file"


def test_vace_clip_of_video_is_a_video(workspace: Workspace) -> None:
    write_video(Path("out.mp4"), Video(workspace.edit.truth, Fraction(8), tuple(i / 8 for i in range(COUNT))))
    outcome = workspace.run("--prompt", "x", "--metrics", "flicker", result="out.mp4")
    assert outcome.exit_code == 0, outcome.stderr
    assert read_video(Path("out-vace.mp4")).num_frames == COUNT


def test_prompt_defaults_to_caption(workspace: Workspace, captioner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caption is of the edited first frame. Without a captioner, a note names the remedy."""
    save_image(Path("first.png"), plain_frame("red", 32, 48))
    outcome = workspace.run("--metrics", "flicker")
    assert outcome.exit_code == 0 and workspace.prompts == [""], outcome.stderr
    assert "asked without a prompt" in outcome.stderr and "--prompt TEXT" in outcome.stderr
    shutil.rmtree("result-vace")
    settings = vace_baseline._build_settings

    def told(*given: Any) -> Any:
        found = settings(*given)
        return found.model_copy(update={"caption": found.caption.model_copy(update={"model": str(captioner)})})

    monkeypatch.setattr(vace_baseline, "_build_settings", told)
    outcome = workspace.run("--metrics", "flicker")
    assert workspace.prompts[1:] == ["a red coat"] and "is asked for: a red coat" in outcome.stderr, outcome.stderr


def test_existing_vace_clip_is_never_replaced(workspace: Workspace) -> None:
    save_frames(Path("result-vace"), workspace.edit.source)
    line = get_error_line(workspace.run())
    assert "result-vace: exists already" in line and "lora-edit evaluate" in line
    assert torch.equal(load_frames(Path("result-vace")), workspace.edit.source)


def test_errors_precede_loading_weights(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one line, and nothing is written."""
    monkeypatch.setattr(vace_baseline, "load_vace", lambda *_: pytest.fail("VACE was read"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(workspace.folder / "hub"))
    plain = ["evaluate", "result", "--source", "source.mkv"]
    assert "--mask M" in get_error_line(CliRunner().invoke(app, [*plain, "--vace", "vace", "--first-frame", "first.png"]))
    assert "--prompt belongs to --vace" in get_error_line(CliRunner().invoke(app, [*plain, "--prompt", "a coat"]))
    assert "--vace none: no such folder" in get_error_line(workspace.run(vace="none"))
    line = get_error_line(workspace.run(vace="wan2.1-vace-1.3b"))
    assert "is not downloaded (about 20 GB, Apache-2.0)" in line and "lora-edit models --download wan2.1-vace-1.3b" in line
    save_image(Path("first.png"), workspace.edit.truth[0][:, :20])
    assert "the edited first frame is 20x32 but the source is 48x32" in get_error_line(workspace.run())
    save_image(Path("first.png"), workspace.edit.truth[0])
    save_frames(Path("short"), workspace.edit.truth[:2])
    assert "frames" in get_error_line(workspace.run(result="short"))
    weights = Path("vace/transformer/diffusion_pytorch_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "a copy or download that broke off" in get_error_line(workspace.run())
    weights.write_bytes(whole)
    shutil.rmtree("vace/vae")
    assert "lacks vae" in get_error_line(workspace.run())
    config = Path("vace/transformer/config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 7}))
    assert "its transformer is not that of" in get_error_line(workspace.run())
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "WanTransformer3DModel"}))
    assert "its transformer is not that of" in get_error_line(workspace.run())
    assert sorted(path.name for path in Path().glob("*vace*")) == ["vace"]


def test_device_out_of_memory_offloads_and_then_fails(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offloading gives the same metrics. If it does not suffice, no files remain."""
    whole = workspace.run("--prompt", "x", json_wanted=True)
    shutil.rmtree("result-vace")
    draw, failures = session.generate_clip, [torch.OutOfMemoryError()]

    def short(*given: Any, **named: Any) -> torch.Tensor:
        if failures:
            raise failures.pop()
        return draw(*given, **named)

    monkeypatch.setattr(session, "generate_clip", short)
    less = workspace.run("--prompt", "x", json_wanted=True)
    assert less.stdout == whole.stdout and "the device ran out of memory; continuing with less on the device" in less.stderr
    shutil.rmtree("result-vace")
    failures.extend(torch.OutOfMemoryError() for _ in range(20))
    never = workspace.run("--prompt", "x")
    assert never.exit_code == 2 and "wan2.1-vace-1.3b: the memory of the device is too small" in never.stderr
    assert not Path("result-vace").exists()


def test_models_finds_vace_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`models NAME` describes a VACE model, although `models` does not list it and `edit` rejects it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    card = json.loads(CliRunner().invoke(app, ["models", "wan2.1-vace-14b", "--json"]).stdout)["models"]
    assert [(each["name"], each["state"]) for each in card] == [("wan2.1-vace-14b", "missing")]
    assert "wan2.1-vace" not in CliRunner().invoke(app, ["models"]).stdout
    clip, picture = tmp_path / "a.mp4", tmp_path / "f.png"
    for path in (clip, picture):
        path.touch()
    edit = ["edit", str(clip), "--first-frame", str(picture), "--model", "wan2.1-vace-14b", "--output", str(tmp_path / "o.mp4")]
    outcome = CliRunner().invoke(app, edit)
    assert outcome.exit_code == 2 and "is unknown" in outcome.stderr
