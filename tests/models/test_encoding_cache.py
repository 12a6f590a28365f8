"""The encoding cache: the next run on a clip uses no encoder and gives the same bytes; damaged files, limits and other processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import platformdirs.macos
import platformdirs.windows
import pytest
import torch
import transformers

import tiny_hunyuan
import tiny_replace
import tiny_wan
from lora_edit import estimate, pipeline
from lora_edit.atomic_files import build_partial_path
from lora_edit.config import EditSettings
from lora_edit.models.checkpoints import locate
from lora_edit.models.checkpoints.headers import read_header
from lora_edit.models.runtime import encoding_cache
from lora_edit.models.runtime.encoding_cache import DiskCache, EncodingCache, get_encoding_cache_folder
from lora_edit.models.runtime.lazy_module import LazyModule
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from tiny_hunyuan import edit_settings

MODELS: dict[str, ModuleType] = {
    "wan2.1-i2v-480p": tiny_wan,
    "wan2.2-i2v-a14b": tiny_wan,
    "wan2.2-ti2v-5b": tiny_replace,
    "ltx-video": tiny_replace,
    "hunyuan-i2v": tiny_hunyuan,
    "hunyuan-1.5-i2v": tiny_hunyuan,
}
ENCODERS = {
    transformers.UMT5EncoderModel: "text", transformers.T5EncoderModel: "text", transformers.CLIPTextModel: "text",
    transformers.Qwen2_5_VLTextModel: "text", transformers.LlavaForConditionalGeneration: "text",
    transformers.CLIPVisionModel: "picture", transformers.SiglipVisionModel: "picture",
}  # fmt: skip
CODECS = (
    diffusers.AutoencoderKLWan,
    diffusers.AutoencoderKLLTXVideo,
    diffusers.AutoencoderKLHunyuanVideo,
    diffusers.AutoencoderKLHunyuanVideo15,
)


@dataclass
class Bench:
    """A model's folder, an empty cache, and the number of calls of each kind of encoder."""

    folder: Path
    model: str
    cache: Path
    asked: Counter[str] = field(default_factory=Counter)

    def run(self, name: str, *changes: str) -> EditSettings:
        """Run an edit in its own folder; `asked` counts the calls of this edit only."""
        self.asked.clear()
        (self.folder / name).mkdir()
        settings = edit_settings(self.folder, self.model, *changes)
        pipeline.edit(settings, self.folder / f"{name}.mkv", self.folder / name / "run", SilentReporter())
        return settings

    def made(self, name: str) -> tuple[list[bytes], torch.Tensor]:
        """Return the LoRA files and the clip."""
        loras = [file.read_bytes() for file in Run(self.folder / name / "run").list_lora_files()]
        return loras, read_video(self.folder / f"{name}.mkv").frames

    def log(self, name: str) -> str:
        """Return the run's log."""
        return Run(self.folder / name / "run").log_file.read_text()


def counted(patch: pytest.MonkeyPatch, kind: Any, method: str, name: str, asked: Counter[str]) -> None:
    """Count the calls of a method."""
    original = getattr(kind, method)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked[name] += 1
        return original(self, *args, **kwargs)

    patch.setattr(kind, method, call)


def make_bench(name: str, folder: Path, patch: pytest.MonkeyPatch) -> Bench:
    module = MODELS[name]
    known: dict[str, Any] = {**tiny_wan.WANS, **tiny_replace.REPLACERS, **tiny_hunyuan.HUNYUANS}
    record = module.save_tiny(known[name], folder / "model")
    patch.setattr(locate, "KNOWN_MODELS", (record,))
    patch.setattr(estimate, "estimate_large_model", lambda *_: None)
    patch.setenv("LORA_EDIT_CACHE", str(folder / "cache"))
    bench = Bench(folder, f"{record.name}@{folder / 'model'}", folder / "cache" / "encodings")
    for kind, what in ENCODERS.items():
        counted(patch, kind, "forward", what, bench.asked)
    for codec in CODECS:
        counted(patch, codec, "encode", "codec", bench.asked)
    return bench


@pytest.fixture(params=sorted(MODELS))
def any_bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Of every kind of model."""
    return make_bench(request.param, tmp_path, monkeypatch)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Of a Wan with all three encoders."""
    return make_bench("wan2.1-i2v-480p", tmp_path, monkeypatch)


def test_a_second_run_uses_no_encoder_and_gives_the_same_bytes(any_bench: Bench, single_thread: None) -> None:
    """LoRA and clip of every family equal those without a cache; the cache holds safetensors files only."""
    any_bench.run("off", "encodings.kept_gb=0")
    assert not any_bench.cache.exists() and any_bench.asked["text"] and any_bench.asked["codec"]
    any_bench.run("cold")
    assert any_bench.asked["text"] and any_bench.asked["codec"]
    any_bench.run("warm")
    assert not any_bench.asked
    for name in ("cold", "warm"):
        loras, frames = any_bench.made(name)
        assert loras == any_bench.made("off")[0] and torch.equal(frames, any_bench.made("off")[1])
    assert {file.suffix for file in any_bench.cache.iterdir()} == {".safetensors"}


def test_other_training_settings_use_no_encoder(bench: Bench) -> None:
    """Settings of training and generation do not affect encodings."""
    bench.run("first")
    for number, change in enumerate(("seed=5", "lora.rank=3", "training.motion_steps=4", "generation.steps=3")):
        bench.run(str(number), change)
        assert not bench.asked, change


def test_a_resumed_run_uses_no_encoder(bench: Bench) -> None:
    """Its checkpoint was saved, its LoRA was not."""
    bench.run("first")
    loras, run = bench.made("first")[0], Run(bench.folder / "first" / "run")
    for file in run.list_lora_files():
        file.unlink()
    bench.asked.clear()
    pipeline.train(run.folder, SilentReporter())
    assert not bench.asked and [file.read_bytes() for file in run.list_lora_files()] == loras


def test_a_new_first_frame_encodes_only_new_inputs(bench: Bench) -> None:
    """The prompt is known, so its encoder is not read; nothing is trained."""
    settings = bench.run("first")
    picture = read_video(bench.folder / "source.mkv").frames[0].clone()
    picture[24:36, 40:56] = torch.tensor([30, 200, 30], dtype=torch.uint8)
    save_image(bench.folder / "green.png", picture)
    bench.asked.clear()
    pipeline.generate(bench.folder / "first" / "run", SilentReporter(), first_frame=bench.folder / "green.png")
    assert bench.asked == {"picture": 1, "codec": 1}
    assert settings.training.motion_steps == len(Run(bench.folder / "first" / "run").read_manifest()["losses"]) - 1


@pytest.mark.parametrize("seen", ["weights", "time"])
def test_a_changed_encoder_encodes_again(bench: Bench, seen: str) -> None:
    """Weights changed in place are detected by a tensor's bytes or by the time of the change; other encoders are not used."""
    bench.run("first")
    file = next((bench.folder / "model" / "text_encoder").glob("*.safetensors"))
    status, content = file.stat(), bytearray(file.read_bytes())
    start, end = max(read_header(file).byte_ranges.values())
    content[(start + end) // 2 if seen == "weights" else -1] ^= 1
    file.write_bytes(content)
    if seen == "weights":
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    bench.run("second")
    assert set(bench.asked) == {"text"}


def test_damaged_files_are_reported_and_replaced(bench: Bench, single_thread: None) -> None:
    """Truncated, one bit flipped, empty, or another format; the next run finds whole files."""
    bench.run("cold")
    files = sorted(bench.cache.iterdir())
    for number, file in enumerate(files):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes((content[: len(content) // 2], content, b"", b"not a tensor")[number % 4])
    bench.run("again")
    assert bench.log("again").count("the cached encoding is damaged and is computed again") == len(files) and bench.asked["text"]
    assert bench.made("again")[0] == bench.made("cold")[0]
    bench.run("warm")
    assert not bench.asked and "is damaged" not in bench.log("warm")


def test_the_embedded_model_caches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its encoders are as fast as reading a file."""
    monkeypatch.setenv("LORA_EDIT_CACHE", str(tmp_path / "cache"))
    settings = edit_settings(tmp_path, "tiny")
    pipeline.edit(settings, tmp_path / "out.mkv", tmp_path / "run", SilentReporter())
    assert not (tmp_path / "cache").exists()


class Told(list[str]):
    """Messages of a disk cache."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskCache]:
    """A disk cache for four encodings of a thousand numbers."""
    told = Told()
    yield DiskCache(tmp_path / "kept", 4 * 4400, told.append)
    assert not told


def value(number: int) -> torch.Tensor:
    """A thousand numbers."""
    return torch.full((10, 100), float(number))


def test_recently_used_files_stay(store: DiskCache) -> None:
    """Reading counts as use; the least recently used file is removed at the limit."""
    for number in range(4):
        store.put(str(number), value(number))
        os.utime(store.folder / f"{number}.safetensors", (number, number))
    assert store.get("0") is not None
    store.put("4", value(4))
    assert {file.stem for file in store.folder.iterdir()} == {"0", "2", "3", "4"}
    assert sum(file.stat().st_size for file in store.folder.iterdir()) <= store.max_bytes


def test_large_or_non_finite_encodings_are_not_cached(store: DiskCache) -> None:
    """A large one would remove all others; a faulty one would stay."""
    store.put("large", torch.zeros(10000))
    store.put("nan", torch.full((3,), float("nan")))
    assert not store.folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="other rights there")
def test_files_are_readable_by_the_user_only(store: DiskCache) -> None:
    """Because an autoencoder decodes latents to the clip."""
    store.put("a", value(1))
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in store.folder.iterdir()] == [0o600]


def test_unfinished_files_of_ended_processes_are_removed(store: DiskCache, ended_process: int) -> None:
    """Those of running processes stay."""
    store.put("a", value(1))
    running = build_partial_path(store.folder / "b.safetensors")
    abandoned = running.with_name(running.name.replace(f"-{os.getpid()}-", f"-{ended_process}-"))
    for file in (running, abandoned):
        file.write_bytes(b"half")
    store.put("c", value(2))
    assert {file.name for file in store.folder.iterdir()} == {"a.safetensors", "c.safetensors", running.name}


def test_a_full_disk_is_reported_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoding is used, and no partial file stays."""
    told = Told()

    def replace(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encoding_cache.os, "replace", replace)
    known = EncodingCache(torch.device("cpu"), LazyModule(torch.nn.Identity, None, lambda: "encoder"), in_memory=False)
    known.disk_cache = DiskCache(tmp_path / "kept", 1e6, told.append)
    assert torch.equal(known(lambda: value(1), "asked"), value(1))
    assert told == [f"{tmp_path / 'kept'}: an encoding cannot be kept (No space left on device); going on without"]
    assert not list((tmp_path / "kept").iterdir())


def test_an_encoder_without_identity_is_not_cached(store: DiskCache) -> None:
    """A module built in memory has none: another one would get its outputs."""
    known = EncodingCache(torch.device("cpu"), LazyModule(torch.nn.Identity, None, str))
    known.disk_cache = store
    calls: list[int] = []
    for _ in range(2):
        known(lambda: calls.append(1) or value(1), "asked")  # type: ignore[func-returns-value]
    assert not store.folder.exists() and len(calls) == 1


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    """Both write, read and remove files at once: cached tensors are right, and neither process fails."""
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        import torch
        from lora_edit.models.runtime.encoding_cache import DiskCache
        Path(sys.argv[2], sys.argv[3]).touch()
        while len(list(Path(sys.argv[2]).iterdir())) < 2:
            time.sleep(0.001)
        told = []
        store = DiskCache(Path(sys.argv[1]), 3 * 4400, told.append)
        found = 0
        for turn in range(300):
            number = turn * turn % 7  # in turn, each would be gone just before it is asked for
            kept = store.get(str(number))
            assert kept is None or torch.equal(kept, torch.full((1000,), float(number)))
            found += kept is not None
            store.put(str(number), torch.full((1000,), float(number)))
        assert not told, told
        print(found)
    """)
    (tmp_path / "ready").mkdir()
    places = [str(tmp_path / "kept"), str(tmp_path / "ready")]
    both = [
        subprocess.Popen([sys.executable, "-c", code, *places, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for process in both:
        out, fault = process.communicate(timeout=300)
        assert process.returncode == 0, fault
        assert int(out) > 0
    assert sum(file.stat().st_size for file in (tmp_path / "kept").iterdir()) <= 3 * 4400


def test_the_cache_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`LORA_EDIT_CACHE` precedes the platform's folder."""
    monkeypatch.setenv("LORA_EDIT_CACHE", str(tmp_path))
    assert get_encoding_cache_folder() == tmp_path / "encodings"
    monkeypatch.delenv("LORA_EDIT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform.startswith("linux"):
        assert get_encoding_cache_folder() == tmp_path / "xdg" / "lora-edit" / "encodings"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert get_encoding_cache_folder() == tmp_path / ".cache" / "lora-edit" / "encodings"
    for system, folder in ((platformdirs.macos.MacOS, "Library/Caches"), (platformdirs.windows.Windows, "local")):
        monkeypatch.setattr(
            encoding_cache, "user_cache_dir", lambda *names, system=system, **options: system(*names, **options).user_cache_dir
        )
        monkeypatch.setattr(platformdirs.windows, "get_win_folder", lambda name: str(tmp_path / "local"))
        assert get_encoding_cache_folder() == tmp_path / folder / "lora-edit" / "encodings"
