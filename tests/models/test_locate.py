"""Models by name, folder, file and repository; their records; errors for other checkpoints."""

from __future__ import annotations

import inspect
import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from lora_edit.config import resolve_settings
from lora_edit.errors import InputError, ModelError
from lora_edit.models.checkpoints import locate as catalog
from lora_edit.models.checkpoints.locate import get_preset, list_models, locate_model
from lora_edit.models.families.embedded.record import TINY
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.family import load_family
from lora_edit.models.record import ModelRecord, find_differences
from tiny_replace import REPLACERS
from tiny_wan import WANS, save_tiny

CPU = torch.device("cpu")
I2V = WANS["wan2.1-i2v-480p"]


def checkpoint(folder: Path, config: dict[str, Any], *parts: str) -> Path:
    """Write a folder with configurations and no weights."""
    for part in parts or ("transformer",):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def refused(model: str) -> str:
    """Return the message of loading a model."""
    with pytest.raises(ModelError) as error:
        load_family(model, CPU, torch.float32)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_are_the_documented_ones() -> None:
    """Scripts rely on them."""
    assert [record.name for record in KNOWN_MODELS] == [
        "tiny", "wan2.1-i2v-480p", "wan2.1-i2v-720p", "wan2.1-flf2v", "wan2.1-fun-1.3b", "wan2.1-fun-14b", "skyreels-v2-i2v",
        "wan2.2-i2v-a14b", "wan2.2-fun-a14b", "wan2.2-ti2v-5b", "wan2.2-fun-5b", "ltx-video", "ltx-2.3", "ltx-2.5",
        "hunyuan-i2v", "hunyuan-i2v-16", "hunyuan-1.5-i2v",
    ]  # fmt: skip


@pytest.mark.parametrize("record", WANS.values(), ids=list(WANS))
def test_records_agree_with_the_configuration(record: ModelRecord) -> None:
    """Noise, mask and latents make the input; the image encoder, both ends and the experts show in it; the class takes every key."""
    config = record.read_transformer_config()
    assert config["in_channels"] == 2 * config["out_channels"] + record.geometry.temporal_compression == 36
    assert record.geometry.token_size == record.geometry.spatial_compression * config["patch_size"][1] == 16
    assert (
        record.geometry.max_frames - 1
    ) % record.geometry.temporal_compression == 0 and record.geometry.native_area % record.geometry.token_size**2 == 0
    assert record.image_encoder == (config["image_dim"] == 1280) == (config["added_kv_proj_dim"] is not None)
    assert config["pos_embed_seq_len"] == (2 * 257 if record.last_frame else None)
    assert (len(record.transformer_parts) == 2) == (record.boundary_ratio is not None)
    assert record.text_length == 512, "the cross-attention counts 512 text tokens from the end"
    kind = getattr(diffusers, config.pop("_class_name"))
    assert set(config) <= set(inspect.signature(kind.__init__).parameters)


@pytest.mark.parametrize("record", REPLACERS.values(), ids=list(REPLACERS))
def test_models_without_a_mask_channel_take_latents_alone(record: ModelRecord) -> None:
    """Tokens are the transformer's patches of latent cells; whole ones fill the frame; one transformer, no image encoder."""
    config, grid = record.read_transformer_config(), record.geometry
    patch = config["patch_size"]
    assert config["in_channels"] == config["out_channels"]
    assert grid.token_size == grid.spatial_compression * (patch if isinstance(patch, int) else patch[1]) == 32
    assert (grid.max_frames - 1) % grid.temporal_compression == 0 and grid.native_area % grid.token_size**2 == 0
    assert record.transformer_parts == ("transformer",) and not record.image_encoder
    kind = getattr(diffusers, config.pop("_class_name"))
    assert set(config) <= set(inspect.signature(kind.__init__).parameters)


@pytest.mark.parametrize(
    ("name", "shift", "guidance", "steps"),
    [
        ("wan2.1-i2v-480p", 3, 5, 40), ("wan2.1-i2v-720p", 5, 5, 40), ("wan2.1-flf2v", 16, 5, 50), ("wan2.2-i2v-a14b", 5, 3.5, 40),
        ("wan2.2-ti2v-5b", 5, 5, 50), ("wan2.2-fun-a14b", 5, 6, 50), ("wan2.2-fun-5b", 5, 6, 50), ("ltx-video", 13, 3, 40),
        ("ltx-2.3", 7.77, 3, 30), ("ltx-2.5", 7.77, 3, 30),
    ],
)  # fmt: skip
def test_presets_are_the_publishers(name: str, shift: float, guidance: float, steps: int) -> None:
    """They precede the user's settings."""
    tables = {"input": {"source": "a", "first_frame": "b"}, "model": name}
    generation = resolve_settings(tables).generation
    assert (generation.shift, generation.guidance_scale, generation.steps) == (shift, guidance, steps)
    assert resolve_settings(tables, ["generation.shift=7"]).generation.shift == 7


def test_every_preset_is_a_valid_setting() -> None:
    """And no two models share a name or, unless they have none, a repository."""
    for record in KNOWN_MODELS:
        resolve_settings({"input": {"source": "a", "first_frame": "b"}, "model": record.name})
    names, repos = [f.name for f in KNOWN_MODELS], [f.repo for f in KNOWN_MODELS if f.repo]
    assert len(set(names)) == len(names) and len(set(repos)) == len(repos)
    assert get_preset("nothing/known") == {}


def test_an_absent_key_is_the_classs_default() -> None:
    """None for image parts, so a checkpoint that has no image encoder is no image model."""
    wanted = I2V.read_transformer_config()
    without = {k: v for k, v in wanted.items() if k not in ("image_dim", "added_kv_proj_dim", "eps", "patch_size")}
    assert find_differences(without, wanted) == ["added_kv_proj_dim None instead of 5120", "image_dim None instead of 1280"]
    assert find_differences({**wanted, "patch_size": (1, 2, 2), "_diffusers_version": "0.42"}, wanted) == []


def test_a_model_is_located_by_name_or_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repositories whatever their case; folders become absolute."""
    assert locate_model("tiny") == (TINY, "")
    assert locate_model(I2V.name) == (I2V, I2V.repo)
    assert locate_model(I2V.repo.upper()) == (I2V, I2V.repo)
    assert locate_model(f"{I2V.name}@someone/a-copy") == (I2V, "someone/a-copy")
    (tmp_path / "wan").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate_model(f"{I2V.name}@wan") == (I2V, str(tmp_path / "wan"))


@pytest.mark.parametrize("name", ["wan2.1-flf2v", "wan2.1-fun-1.3b", "skyreels-v2-i2v", *REPLACERS])
def test_a_folder_is_identified_by_its_configuration(tmp_path: Path, name: str) -> None:
    """No model is confused with another, as by single-file loaders that compare widths only."""
    record = (WANS | REPLACERS)[name]
    folder = checkpoint(tmp_path / "x", record.read_transformer_config(), *record.transformer_parts)
    assert locate_model(str(folder)) == (record, str(folder))


def test_an_ambiguous_folder_needs_a_choice(tmp_path: Path) -> None:
    """480P, 720P and Fun 14B have one shape, as A14B and its Fun have; a repository's name in the folder's path decides."""
    assert "wan2.1-i2v-480p, wan2.1-i2v-720p, wan2.1-fun-14b; say which as NAME@" in refused(
        str(checkpoint(tmp_path / "x", I2V.read_transformer_config()))
    )
    named = checkpoint(tmp_path / "Wan2.1-I2V-14B-720P-Diffusers", I2V.read_transformer_config())
    assert locate_model(str(named))[0].name == "wan2.1-i2v-720p"
    two = WANS["wan2.2-i2v-a14b"]
    both = checkpoint(tmp_path / "y", two.read_transformer_config(), *two.transformer_parts)
    assert "fits wan2.2-i2v-a14b, wan2.2-fun-a14b; say which as NAME@" in refused(str(both))
    snapshot = checkpoint(tmp_path / "Wan2.2-I2V-A14B-Diffusers", two.read_transformer_config(), *two.transformer_parts)
    assert locate_model(str(snapshot)) == (two, str(snapshot))


OTHERS = {
    "Wan2.1-T2V": {"in_channels": 16, "image_dim": None, "added_kv_proj_dim": None},
    "LTX-Video": {"_class_name": "LTXVideoTransformer3DModel"},
    "VACE": {"_class_name": "WanVACETransformer3DModel", "in_channels": 16, "image_dim": None, "added_kv_proj_dim": None},
    "HunyuanVideo": {"_class_name": "HunyuanVideoTransformer3DModel", "in_channels": 33},
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_checkpoints_are_refused_with_what_was_found_and_expected(tmp_path: Path, other: str) -> None:
    """By their configuration: there are no weights."""
    folder = checkpoint(tmp_path / "x", I2V.read_transformer_config() | OTHERS[other])
    key, value = next(iter(OTHERS[other].items()))
    for model in (str(folder), f"{I2V.name}@{folder}"):
        line = refused(model)
        assert str(folder) in line and "; choose " in line
        assert f"{key} {value} instead of {I2V.read_transformer_config()[key]}" in line or "holds no known model; nearest is" in line
    assert f"{key} {value} instead of" in refused(f"{I2V.name}@{folder}")


def test_one_wan_is_not_taken_for_another(tmp_path: Path) -> None:
    """Wan2.2 has no image encoder; FLF2V has places for two pictures; half of a pair is none."""
    two = WANS["wan2.2-i2v-a14b"]
    folder = checkpoint(tmp_path / "x", two.read_transformer_config(), *two.transformer_parts)
    assert "transformer is not that of wan2.1-i2v-480p (added_kv_proj_dim None instead of 5120" in refused(f"wan2.1-i2v-480p@{folder}")
    small = checkpoint(tmp_path / "z", REPLACERS["wan2.2-ti2v-5b"].read_transformer_config())
    assert "in_channels 48 instead of 36" in refused(f"{two.name}@{small}")
    ends = checkpoint(tmp_path / "y", WANS["wan2.1-flf2v"].read_transformer_config())
    assert "pos_embed_seq_len 514 instead of None" in refused(f"wan2.1-i2v-480p@{ends}")
    shutil.rmtree(folder / "transformer_2")
    assert "nearest is wan2.2-i2v-a14b (no transformer and transformer_2)" in refused(str(folder))
    assert "lacks transformer (no *.safetensors beside its config.json), transformer_2 (not found)" in refused(f"{two.name}@{folder}")


@pytest.mark.parametrize(("part", "key"), [("vae", "z_dim"), ("text_encoder", "d_model"), ("image_encoder", "hidden_size")])
def test_parts_of_another_width_are_refused(tmp_path: Path, part: str, key: str) -> None:
    """Before any weights are read: there are none."""
    checkpoint(tmp_path, I2V.read_transformer_config())
    for name, own, wide in (("vae", "z_dim", 16), ("text_encoder", "d_model", 4096), ("image_encoder", "hidden_size", 1280)):
        checkpoint(tmp_path, {own: wide + 8 * (name == part)}, name)
    assert f"{part} is not that of {I2V.name} ({key} " in refused(f"{I2V.name}@{tmp_path}")


def test_missing_or_damaged_files_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown names, empty folders, missing repositories, single files, and truncated weights."""
    assert "model 'wan9' is unknown; this version has tiny, wan2.1-i2v-480p" in refused("wan9")
    assert "no transformer/config.json" in refused(str(tmp_path))
    assert "config.json: not a JSON file" in refused(f"{I2V.name}@{_broken(tmp_path)}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    assert "not downloaded (about 90 GB, Apache-2.0); get it with `lora-edit models --download wan2.1-i2v-480p`" in refused(I2V.name)
    record = save_tiny(I2V, tmp_path / "tiny")
    monkeypatch.setattr(catalog, "KNOWN_MODELS", (record,))
    weights = next((tmp_path / "tiny" / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:200])
    assert f"{weights}: ends after 200 of " in refused(f"{I2V.name}@{tmp_path / 'tiny'}")


def _broken(folder: Path) -> Path:
    (folder / "broken" / "transformer").mkdir(parents=True)
    (folder / "broken" / "transformer" / "config.json").write_text("{", "utf-8")
    return folder / "broken"


def test_a_downloaded_repository_is_found_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its id, from the Hub library's folder, offline; a copy is identified by its configuration."""
    record = save_tiny(WANS["wan2.1-fun-1.3b"], tmp_path / "saved")
    home, commit = tmp_path / "hub" / "models--someone--a-copy", "0123abcd" * 5
    shutil.copytree(tmp_path / "saved", home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit, "utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(catalog, "KNOWN_MODELS", (TINY, record))
    assert locate_model("someone/a-copy") == (record, "someone/a-copy")
    assert catalog.find_weights(record, "someone/a-copy") == home / "snapshots" / commit
    assert catalog.find_weights(record, str(tmp_path / "nowhere")) is None
    assert load_family("someone/a-copy", CPU, torch.float32).name == "wan2.1-fun-1.3b"


def test_packages_add_models_and_a_broken_one_affects_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """By entry points; a known name cannot be redefined."""
    points = [
        EntryPoint("theirs", "lora_edit.models.families.embedded.record:TINY", catalog.ENTRY_POINT_GROUP),
        EntryPoint("tiny", "lora_edit.models.families.wan.record:WAN21_FLF2V", catalog.ENTRY_POINT_GROUP),
        EntryPoint("broken", "no_such_module:FACTS", catalog.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(catalog, "entry_points", lambda group, name=None: [p for p in points if name in (None, p.name)])
    assert locate_model("theirs")[0] is TINY and locate_model("tiny")[0] is TINY
    with pytest.raises(ModelError, match=r"no_such_module.*install the package"):
        locate_model("broken")
    with pytest.raises(ModelError, match="no_such_module"):
        list_models()
    with pytest.raises(ModelError, match="is a Geometry; name a ModelRecord"):
        locate_model("lora_edit.models.families.embedded.loading:GEOMETRY")


@pytest.mark.parametrize(("frames", "anchor", "fault"), [(7, None, "--anchor 6=IMAGE"), (90, 89, "2 to 81 frames"), (7, 6, None)])
def test_a_model_of_both_ends_needs_the_last_frame(tmp_path: Path, frames: int, anchor: int | None, fault: str | None) -> None:
    """Before anything is loaded or written."""
    from lora_edit import pipeline
    from lora_edit.video.png_frames import save_frames
    from lora_edit.video.sheet import save_image

    clip = torch.zeros(frames, 16, 24, 3, dtype=torch.uint8)
    save_frames(tmp_path / "clip", clip)
    save_image(tmp_path / "edited.png", clip[0])
    given: dict[str, Any] = {"source": str(tmp_path / "clip"), "first_frame": str(tmp_path / "edited.png")}
    given["boxes"] = [{"x": 4, "y": 4, "width": 8, "height": 8}]
    if anchor:
        given["anchors"] = [{"frame": anchor, "image": str(tmp_path / "edited.png")}]
    settings = resolve_settings({"input": given, "model": "wan2.1-flf2v"})
    if fault is None:
        assert pipeline.check(settings).anchors
    else:
        with pytest.raises(InputError, match=fault):
            pipeline.check(settings)
