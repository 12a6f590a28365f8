"""The whole job with the embedded model, few steps: what a result must keep of its source."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit import pipeline
from lora_edit.canvas import composite_clip
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.errors import MaskError, ModelError, RunError, SettingsError, VideoError
from lora_edit.inputs import load_inputs
from lora_edit.loras.files import LayerDelta, write_lora
from lora_edit.loras.header import read_header
from lora_edit.loras.match import collect_linear_sizes
from lora_edit.masks.shapes import feather
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.family import load_family
from lora_edit.prepared_clip import predict_preview_frames
from lora_edit.provenance.content_hash import hash_file
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.takes import list_takes
from lora_edit.training.noise import draw_time
from lora_edit.types import Video
from lora_edit.video.png_frames import load_frames
from lora_edit.video.read import read_image, read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

QUICK = (
    "training.motion_steps=3",
    "training.appearance_steps=2",
    "training.batch_size=1",
    "training.recolour_variants=1",
    "generation.steps=2",
)


def make_source(folder: Path, frames: int = 7, height: int = 50, width: int = 70, odd_times: bool = False) -> Path:
    """A noise clip whose size is no multiple of anything and whose frame count is not 4k + 1."""
    generator = torch.Generator().manual_seed(frames)
    coarse = torch.randint(0, 256, (frames, 5, 7, 3), generator=generator, dtype=torch.uint8)
    clip = coarse.repeat_interleave(10, 1).repeat_interleave(10, 2)[:, :height, :width].contiguous()
    times = tuple(i / 10 + (0.02 if odd_times and i % 2 else 0) for i in range(frames))
    write_video(folder / "source.mkv", Video(clip, Fraction(10), times), "ffv1")
    return folder / "source.mkv"


def settings_for(folder: Path, source: Path, *assignments: str, **given: object) -> EditSettings:
    """Settings with a red first frame and a box."""
    frame = read_video(source).frames[0].clone()
    frame[10:30, 20:45] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    save_image(folder / "first.png", frame)
    boxes = [{"x": 18, "y": 8, "width": 30, "height": 24, "frame": 0}, {"x": 24, "y": 12, "width": 30, "height": 24, "frame": 6}]
    return resolve_settings(
        {"input": {"source": str(source), "first_frame": str(folder / "first.png"), "boxes": boxes, **given}}, (*QUICK, *assignments)
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[EditSettings, pipeline.Result, Path]:
    """One finished edit, written without loss."""
    folder = tmp_path_factory.mktemp("edit")
    settings = settings_for(folder, make_source(folder, odd_times=True), "video.codec=ffv1")
    return settings, pipeline.edit(settings, folder / "out.mkv", folder / "run", SilentReporter()), folder


def test_frames_size_rate_and_times_are_the_sources(done: tuple[EditSettings, pipeline.Result, Path]) -> None:
    """Seven frames of 70x50 at uneven times."""
    settings, result, _ = done
    source, edited = read_video(settings.input.source), read_video(result.output)
    assert edited.frames.shape == source.frames.shape and result.num_frames == 7
    assert edited.times == pytest.approx(source.times, abs=2e-3)


def test_pixels_outside_the_region_are_the_sources_bit_for_bit(done: tuple[EditSettings, pipeline.Result, Path]) -> None:
    """And the first frame is the edited one."""
    settings, result, folder = done
    clip = pipeline.check(settings)
    outside = ~clip.edit_mask.frames
    for frames in (read_video(result.output).frames, load_frames(folder / "run" / "result")):
        assert torch.equal(frames[outside], clip.video.frames[outside])
        assert not torch.equal(frames[3][~outside[3]], clip.video.frames[3][~outside[3]])
    inner = feather(clip.edit_mask.frames, 1)[0] == 1
    assert torch.equal(frames[0][inner], clip.first_frame[inner])


def test_the_run_folder_holds_everything(done: tuple[EditSettings, pipeline.Result, Path]) -> None:
    """Settings that resolve to themselves, a manifest, and things to look at."""
    settings, _, folder = done
    run = Run(folder / "run")
    assert run.read_settings() == settings
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert {"versions", "seed", "losses", "metrics", "seconds", "training_key"} <= manifest.keys()
    assert len(manifest["losses"]) == 3 and manifest["metrics"]["background_exact"]
    for name in (
        "edit.toml",
        "report.html",
        "compare.mp4",
        "result.mp4",
        "sheet.png",
        "crops.png",
        "poster.png",
        "loss.png",
        "log.txt",
        "lora/edit.safetensors",
    ):
        assert (folder / "run" / name).stat().st_size > 0


def test_another_seed_and_first_frame_need_no_training(done: tuple[EditSettings, pipeline.Result, Path]) -> None:
    """`generate` leaves the LoRA alone and writes beside the earlier samples."""
    settings, _, folder = done
    before = (folder / "run/lora/edit.safetensors").read_bytes()
    picture = read_video(settings.input.source).frames[0].clone()
    picture[10:30, 20:45] = 20
    save_image(folder / "other.png", picture)
    first = pipeline.generate(folder / "run", SilentReporter(), seed=5)
    second = pipeline.generate(folder / "run", SilentReporter(), first_frame=folder / "other.png")
    assert (first.output.name, second.output.name) == ("seed-5.mkv", "seed-0-first-other.mkv")
    assert first.output.exists() and second.output.exists()
    assert (folder / "run/lora/edit.safetensors").read_bytes() == before


def test_no_result_is_overwritten(tmp_path: Path) -> None:
    """Generated ones stand beside the edit's, under names of their own; another edit moves the earlier one there, frames and all."""
    source, run = make_source(tmp_path), tmp_path / "run"
    pipeline.edit(settings_for(tmp_path, source), tmp_path / "out.mp4", run, SilentReporter())
    kept = {name: (run / name).read_bytes() for name in ("result.mp4", "compare.mp4", "result/00003.png")}
    for _ in range(2):
        pipeline.generate(run, SilentReporter(), seed=7)
    pipeline.generate(run, SilentReporter(), tmp_path / "mine.mp4", seed=7, first_frame=tmp_path / "first.png")
    assert {name: (run / name).read_bytes() for name in kept} == kept
    assert {file.stem for file in (run / "samples").glob("*.mp4")} == {"seed-7", "seed-7-2", "seed-7-first-first"}
    assert (run / "samples/seed-7-first-first.mp4").read_bytes() == (tmp_path / "mine.mp4").read_bytes()
    page, sheet = (run / "report.html").read_text("utf-8"), read_image(run / "sheet.png")
    assert page.count("Another result: ") == 3 and "seed 7, first frame first.png" in page and "Result: seed 0" in page
    assert "Another result: seed 7 (seed-7-2)" in page
    other = settings_for(tmp_path, source, boxes=[{"x": 10, "y": 4, "width": 44, "height": 34}])
    pipeline.edit(other, tmp_path / "other.mp4", run, SilentReporter())
    assert (run / "samples/seed-0.mp4").read_bytes() == kept["result.mp4"] != (run / "result.mp4").read_bytes()
    assert (run / "samples/seed-0/00003.png").read_bytes() == kept["result/00003.png"]
    assert [(take.name, take.file) for take in list_takes(Run(run))] == [
        ("seed-7", "samples/seed-7.mp4"),
        ("seed-7-2", "samples/seed-7-2.mp4"),
        ("seed-7-first-first", "samples/seed-7-first-first.mp4"),
        ("seed-0", "samples/seed-0.mp4"),
        ("seed-0-2", "result.mp4"),
    ]
    assert read_image(run / "sheet.png").shape[0] > sheet.shape[0]
    pipeline.edit(other, tmp_path / "other.mp4", run, SilentReporter(), overwrite=True)
    assert len(list_takes(Run(run))) == 5  # the same again is the same


def test_an_edit_says_which_frame_to_edit_next(tmp_path: Path) -> None:
    """And hands it over as a picture; once that is edited it is another one, or none."""
    source = make_source(tmp_path)
    result = pipeline.edit(settings_for(tmp_path, source), tmp_path / "out.mp4", tmp_path / "run", SilentReporter())
    (note,) = [each for each in result.notes if "drawn without proof" in each]
    number = int(note.split()[1])
    picture = tmp_path / "run" / "edit-next" / f"frame-{number}.png"
    assert str(picture) in note and f"--reference {number}=IMAGE" in note
    assert torch.equal(read_image(picture), read_video(source).frames[number])
    assert len(Run(tmp_path / "run").read_manifest()["unproven"]) == 7
    assert "Drawn without proof" in (tmp_path / "run" / "report.html").read_text("utf-8")


def style_for(model: str, path: Path) -> Path:
    """A LoRA of someone else's making for a model, strong enough to see."""
    sizes = collect_linear_sizes(load_family(model, torch.device("cpu"), torch.float32).transformer)
    draw = torch.Generator().manual_seed(1)
    pairs = {
        name: LayerDelta(torch.randn(2, inputs, generator=draw), torch.randn(outputs, 2, generator=draw))
        for name, (inputs, outputs) in sizes.items()
        if "attn1" in name
    }
    write_lora(path, pairs, "comfyui", {})
    return path


def test_others_loras_act_in_generation_alone(done: tuple[EditSettings, pipeline.Result, Path]) -> None:
    """Training leaves the same bytes with and without them; afterwards they are gone."""
    settings, result, folder = done
    path = style_for("tiny", folder / "style.safetensors")
    chosen = {"loras": [{"file": str(path), "strength": 0.5}]}
    stacked = resolve_settings(
        {**settings.model_dump(mode="json", exclude_none=True), "generation": {**settings.generation.model_dump(), **chosen}}
    )
    other = pipeline.edit(stacked, folder / "stacked.mkv", folder / "stacked", SilentReporter())
    lora = "lora/edit.safetensors"
    assert (folder / "stacked" / lora).read_bytes() == (folder / "run" / lora).read_bytes()
    record = Run(folder / "stacked").read_manifest()["loras"]
    assert [(each["file"], each["strength"], each["sha256"]) for each in record] == [(str(path), 0.5, hash_file(path))]
    frames = read_video(other.output).frames
    assert not torch.equal(frames, read_video(result.output).frames)
    again = pipeline.generate(folder / "run", SilentReporter(), loras=[(path, 0.5)])
    assert torch.equal(read_video(again.output).frames, frames)
    assert again.notes == tuple(note for note in other.notes if "drawn without proof" not in note)
    plain = pipeline.generate(folder / "run", SilentReporter())
    assert torch.equal(read_video(plain.output).frames, read_video(result.output).frames)
    assert torch.equal(load_frames(folder / "run" / "result"), read_video(result.output).frames)
    assert Run(folder / "run").read_manifest()["loras"] == []


def test_generate_refuses_a_lora_before_the_model_loads(
    done: tuple[EditSettings, pipeline.Result, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And names sizes."""
    _, _, folder = done
    pairs = {"blocks.0.attn1.to_q": LayerDelta(torch.ones(2, 5120), torch.ones(5120, 2))}
    write_lora(folder / "large.safetensors", pairs, "comfyui", {})
    monkeypatch.setattr(pipeline, "open_family", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ModelError, match="5120x5120 in the file"):
        pipeline.generate(folder / "run", SilentReporter(), loras=[(folder / "large.safetensors", 1.0)])


def test_the_lora_says_how_it_was_made(done: tuple[EditSettings, pipeline.Result, Path]) -> None:
    """Nothing in it depends on the day or the place."""
    _, _, folder = done
    metadata = read_header(folder / "run" / "lora" / "edit.safetensors").metadata
    assert {"software", "base_model", "settings", "seed", "rank", "alpha", "time_range", "source_hash", "edit_mask_hash"} <= metadata.keys()
    assert (metadata["base_model"], metadata["seed"], metadata["rank"], metadata["time_range"]) == ("tiny", "0", "16", "0-1")
    assert json.loads(metadata["settings"])["training"]["motion_steps"] == 3
    assert str(folder) not in str(metadata)


def test_nothing_is_overwritten(done: tuple[EditSettings, pipeline.Result, Path]) -> None:
    """Neither a file nor another edit's run."""
    settings, result, folder = done
    with pytest.raises(VideoError, match="exists"):
        pipeline.edit(settings, result.output, folder / "run2", SilentReporter())
    assert not (folder / "run2").exists()
    later = settings.model_copy(update={"video": settings.video.model_copy(update={"fps": 5.0})})
    with pytest.raises(RunError, match="another clip, range or model"):
        pipeline.edit(later, folder / "new.mkv", folder / "run", SilentReporter())
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(RunError, match="not a run folder"):
        pipeline.create_run(settings, folder / "mine")


def test_a_run_in_use_is_refused(done: tuple[EditSettings, pipeline.Result, Path]) -> None:
    """Two processes never write one run."""
    _, _, folder = done
    with Run(folder / "run").lock(), pytest.raises(RunError, match=rf"process {os.getpid()} on .* is working on this run"):
        pipeline.generate(folder / "run", SilentReporter())


@pytest.mark.parametrize("frames", [1, 2, 5, 20])
def test_any_frame_count(tmp_path: Path, frames: int) -> None:
    """One frame, less than a group, exactly a group, more than the model takes at once."""
    source = make_source(tmp_path, frames)
    settings = settings_for(tmp_path, source)
    box = settings.input.boxes[0].model_copy(update={"frame": None})
    settings = settings.model_copy(update={"input": settings.input.model_copy(update={"boxes": (box,)})})
    result = pipeline.edit(settings, tmp_path / "out.mp4", tmp_path / "run", SilentReporter())
    assert read_video(result.output).num_frames == frames


def trained_steps(reporter: Remembering) -> list[str]:
    return [stage for stage, *_ in reporter.steps if stage in ("motion", "appearance")]


def test_a_run_goes_on_with_what_another_edit_of_its_clip_shares(tmp_path: Path) -> None:
    """An added reference adds its stage alone, an anchor trains nothing, another box trains anew; each ends as a fresh run does."""
    source, unsigned = make_source(tmp_path), "provenance.sign=false"  # two signatures are never the same bytes
    plain = settings_for(tmp_path, source, unsigned)
    key = [{"frame": 4, "image": str(tmp_path / "first.png")}]
    edits = {
        "reference": (settings_for(tmp_path, source, unsigned, references=key), ["appearance"] * 2),
        "anchor": (settings_for(tmp_path, source, unsigned, references=key, anchors=key), []),
        "box": (
            settings_for(tmp_path, source, unsigned, boxes=[{"x": 10, "y": 4, "width": 44, "height": 34}]),
            ["motion"] * 3,
        ),
    }
    run = tmp_path / "run"
    pipeline.edit(plain, tmp_path / "out.mp4", run, SilentReporter())
    for name, (settings, steps) in edits.items():
        reporter = Remembering()
        pipeline.edit(settings, tmp_path / f"{name}.mp4", run, reporter)
        assert trained_steps(reporter) == steps, name
        pipeline.edit(settings, tmp_path / f"{name}-fresh.mp4", tmp_path / f"{name}.run", SilentReporter())
        assert (run / "lora/edit.safetensors").read_bytes() == (tmp_path / f"{name}.run/lora/edit.safetensors").read_bytes()
        assert (tmp_path / f"{name}.mp4").read_bytes() == (tmp_path / f"{name}-fresh.mp4").read_bytes()
    assert Run(run).read_settings() == edits["box"][0]
    assert {file.name for file in (run / "references").iterdir()} == {"first_frame.png"}
    assert [file.name for file in sorted(run.glob("edit-*.toml"))] == ["edit-1.toml", "edit-2.toml", "edit-3.toml"]


def test_references_and_anchors(tmp_path: Path) -> None:
    """An anchor is shown as it is; a reference trains an appearance stage."""
    source = make_source(tmp_path)
    picture = read_video(source).frames[4].clone()
    picture[14:34, 24:50] = torch.tensor([30, 200, 30], dtype=torch.uint8)
    save_image(tmp_path / "four.png", picture)
    key = [{"frame": 4, "image": str(tmp_path / "four.png")}]
    settings = settings_for(tmp_path, source, "compositing.feather=0", references=key, anchors=key)
    result = pipeline.edit(settings, tmp_path / "frames", tmp_path / "run", SilentReporter())
    region = pipeline.check(settings).edit_mask.frames[4]
    assert torch.equal(load_frames(result.output)[4][region], picture[region])
    assert [name for name, _ in Run(tmp_path / "run").read_manifest()["stages"]] == ["motion", "appearance"]


class Remembering(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int, int, str]] = []

    def note(self, text: str) -> None:
        """Keep the remark."""
        self.notes.append(text)

    def step(self, stage: str, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """Keep the progress."""
        self.steps.append((stage, done, total, detail))


def test_stages_that_end_early_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the progress, a remark, the manifest and the report; a generation from the saved LoRA repeats none of it."""
    monkeypatch.setattr("lora_edit.training.loop.HELD_OUT_INTERVAL", 1)
    monkeypatch.setattr("lora_edit.training.held_out.PATIENCE", 2)
    monkeypatch.setattr("lora_edit.training.loop.compute_held_out_loss", lambda *_: 1.0)
    source, reporter = make_source(tmp_path), Remembering()
    picture = [{"frame": 4, "image": str(tmp_path / "first.png")}]
    early = ("training.early_stop=true", "training.schedule=constant", "training.appearance_steps=9", "generation.steps=1")
    pipeline.edit(settings_for(tmp_path, source, *early, references=picture), tmp_path / "out.mp4", tmp_path / "run", reporter)
    told = [(done, total, detail) for stage, done, total, detail in reporter.steps if stage in ("motion", "appearance")]
    assert [each[:2] for each in told] == [(1, 12), (2, 11), (3, 11), (4, 4)]
    assert all(("may end earlier" in detail) == (done < 4) for done, _, detail in told)
    assert [note for note in reporter.notes if "ended" in note] == [
        "motion: the held-out loss stopped falling; ended after 2 of 3 steps",
        "appearance: the held-out loss stopped falling; ended after 2 of 9 steps",
    ]
    manifest = Run(tmp_path / "run").read_manifest()
    assert manifest["stages"] == [["motion", 2], ["appearance", 2]] and len(manifest["losses"]) == 4
    assert "2 motion, 2 appearance (at most 3 motion, 9 appearance)" in (tmp_path / "run" / "report.html").read_text("utf-8")
    again = Remembering()
    pipeline.generate(tmp_path / "run", again)
    assert not any("ended" in note for note in again.notes)


@pytest.mark.parametrize(("given", "expected"), [((), [8.0, 8.0]), (("training.appearance_shift=0.5",), [8.0, 0.5])])
def test_appearance_has_times_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], expected: list[float]
) -> None:
    """Every step of that stage draws them; as motion does when nothing is said."""
    shifts = []

    def noticed(sampling: str, shift: float, *rest: Any) -> torch.Tensor:
        shifts.append(shift)
        return draw_time(sampling, shift, *rest)

    monkeypatch.setattr("lora_edit.training.loss.draw_time", noticed)
    source = make_source(tmp_path)
    picture = [{"frame": 4, "image": str(tmp_path / "first.png")}]
    pipeline.create_run(settings_for(tmp_path, source, *given, references=picture), tmp_path / "run")
    pipeline.train(tmp_path / "run", SilentReporter())
    assert shifts == [expected[0]] * 3 + [expected[1]] * 2


def test_faults_are_found_before_a_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its remedy."""
    monkeypatch.setattr(pipeline, "open_family", lambda *_: pytest.fail("a model was loaded"))
    source = make_source(tmp_path)
    good = settings_for(tmp_path, source)
    unchanged = tmp_path / "same.png"
    save_image(unchanged, read_video(source).frames[0])
    with pytest.raises(MaskError, match="--box"):
        pipeline.check(good.model_copy(update={"input": good.input.model_copy(update={"boxes": (), "first_frame": unchanged})}))
    late = good.input.boxes[0].model_copy(update={"frame": 40})
    with pytest.raises(MaskError):
        pipeline.check(good.model_copy(update={"input": good.input.model_copy(update={"boxes": (late,)})}))
    with pytest.raises(VideoError):
        pipeline.check(good.model_copy(update={"input": good.input.model_copy(update={"source": tmp_path / "none.mp4"})}))
    with pytest.raises(ModelError, match="no such file"):
        pipeline.check(settings_for(tmp_path, source, "generation.loras=[{file='none.safetensors'}]"))
    with pytest.raises(SettingsError, match=r"training\.rate"):
        resolve_settings(good.model_dump(mode="json"), ["training.rate=1"])
    with pytest.raises(SettingsError, match=r"section\.setting=value"):
        resolve_settings(good.model_dump(mode="json"), ["steps=1"])


def test_preview_needs_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The explained edit, as long as the source."""
    monkeypatch.setattr(pipeline, "open_family", lambda *_: pytest.fail("a model was loaded"))
    reporter = Remembering()
    path = pipeline.preview(settings_for(tmp_path, make_source(tmp_path)), tmp_path / "preview.mp4", reporter)
    assert read_video(path).num_frames == 7
    assert ("predict", 7, 7, "") in reporter.steps
    assert reporter.steps[-1] == ("write", 7, 7, "")


def test_a_preview_is_composited_as_the_edit_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its edge is as soft, so that what the edge will leave of the source is seen before training."""
    settings = settings_for(tmp_path, make_source(tmp_path), "compositing.feather=0.1")
    clip = pipeline.check(settings)
    white = torch.full_like(clip.video.frames, 255)
    monkeypatch.setattr("lora_edit.prepared_clip.paste_prediction", lambda *_: white)
    shown = predict_preview_frames(clip, settings, SilentReporter())
    assert torch.equal(shown, torch.stack(list(composite_clip(clip, white, settings.compositing))))
    inside = clip.edit_mask.frames[1]
    assert torch.equal(shown[1][~inside], clip.video.frames[1][~inside])
    assert (shown[1][inside] == 255).all(-1).any()
    assert (shown[1][inside] < 255).any(), "the edge"


def test_transparency_is_kept(tmp_path: Path) -> None:
    """Through the run folder to a format that can hold it."""
    frames = torch.randint(0, 256, (3, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    alpha = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    write_video(tmp_path / "clear.mkv", Video(frames, Fraction(10), (0.0, 0.1, 0.2), alpha), "ffv1")
    save_image(tmp_path / "first.png", frames[0])
    given = {"source": str(tmp_path / "clear.mkv"), "first_frame": str(tmp_path / "first.png")}
    settings = resolve_settings({"input": {**given, "boxes": [{"x": 8, "y": 8, "width": 12, "height": 12}]}}, QUICK)
    kept = load_inputs(pipeline.create_run(settings, tmp_path / "run")).video.alpha
    assert kept is not None and torch.equal(kept, alpha)


def test_attention_that_fails_gives_way_to_torchs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a remark, and the result of a run that never tried it."""
    answer = WanFamily.predict_velocity

    def broken(self: WanFamily, *args: Any) -> torch.Tensor:
        backend = self.transformer.get_submodule("blocks.0.attn1").processor._attention_backend  # type: ignore[union-attr]
        bad = getattr(backend, "value", None) == "_native_math"
        return answer(self, *args) * (float("nan") if bad else 1.0)

    monkeypatch.setattr(WanFamily, "predict_velocity", broken)
    source, notes = make_source(tmp_path), list[str]()
    monkeypatch.setattr(SilentReporter, "note", lambda self, text: notes.append(text))
    for number, attention in enumerate(("_native_math", "native")):
        settings = settings_for(tmp_path, source, f"generation.attention={attention}")
        pipeline.edit(settings, tmp_path / f"{number}.mkv", tmp_path / str(number), SilentReporter())
    assert [text for text in notes if "attention '_native_math': the model's output at step 1 of 2" in text]
    assert torch.equal(read_video(tmp_path / "0.mkv").frames, read_video(tmp_path / "1.mkv").frames)
