"""The segmenters of SAM 2 (Ravi et al., 2024), EdgeTAM and SAM 3's tracker, by transformers' models for video.

A session of transformers holds what is known of one object; all objects' sessions go through the frames side by side, so that a frame is
encoded once. Frames are made ready when they are asked for, and what a session remembers of frames that are too far back is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from lora_edit.devices import pick_device
from lora_edit.errors import ModelError
from lora_edit.masks.segment import Marked, OnFrame, Prompt, by_object, check_prompts, lost_note
from lora_edit.types import EditMask, Size

MODELS = {
    "sam2_video": "Sam2Video",
    "edgetam_video": "EdgeTamVideo",
    "sam3_tracker_video": "Sam3TrackerVideo",
    "sam3_video": "Sam3TrackerVideo",
}
"""A checkpoint's `model_type` to what transformers' classes are called; SAM 3's checkpoints hold the tracker among others."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that SAM 2 and EdgeTAM take frames by, where the checkpoint does not say."""

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""SAM 3's."""

OBJECT = 1
"""Number of the only object in a session."""


class Sam2Segmenter:
    """`Segmenter` by a model in a folder, or of a Hub id that is on this machine already. Raises `ModelError` where it is neither."""

    def __init__(self, place: str, device: str = "auto") -> None:
        folder = _folder(place)
        kind = _read(folder / "config.json").get("model_type")
        if kind not in MODELS:
            raise ModelError(f"{place}: holds no SAM 2 model but {kind or 'something else'}; give a folder with one of {', '.join(MODELS)}")
        import transformers

        self._session_class = getattr(transformers, f"{MODELS[kind]}InferenceSession")
        try:
            model = getattr(transformers, f"{MODELS[kind]}Model").from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{place}: the model cannot be loaded ({reason}); download it again") from error
        self._device = pick_device(device)
        self._model = model.to(self._device).eval()
        square = model.config.image_size
        self._square = int(square if isinstance(square, int) else square[0])
        self._mean, self._deviation = _statistics(folder, HALF if "sam3" in kind else IMAGENET)

    def segment(self, frames: torch.Tensor, prompts: Sequence[Prompt], on_frame: OnFrame | None = None) -> dict[str, EditMask]:
        """See `Segmenter.segment`."""
        check_prompts(prompts, len(frames), Size(frames.shape[1], frames.shape[2]))
        tracks = {name: _Track(self._session(frames), marked) for name, marked in by_object(prompts).items()}
        share_encoder([track.session for track in tracks.values()])
        masks = {name: torch.zeros(frames.shape[:3], dtype=torch.bool) for name in tracks}
        for track in tracks.values():
            self._answer(track, len(frames))
        done = 0
        for way in (1, -1):
            for track in tracks.values():
                track.forget()
            for number in range(len(frames))[::way]:
                for name, track in tracks.items():
                    if (number >= track.first) != (way == 1):
                        continue
                    masks[name][number] = self._enlarged(self._step(track, number, way), frames.shape[1:3])
                    done += 1
                    if on_frame is not None:
                        on_frame(done, len(tracks) * len(frames))
        return {name: EditMask(mask, lost_note(name, mask)) for name, mask in masks.items()}

    def outline(self, frames: torch.Tensor, prompts: Sequence[Prompt], frame: int) -> torch.Tensor:
        """See `Segmenter.outline`."""
        check_prompts(prompts, len(frames), Size(frames.shape[1], frames.shape[2]))
        (marked,) = by_object(prompts).values()
        track = _Track(self._session(frames), marked)
        self._answer(track, len(frames))
        start = min(track.frames, key=lambda each: abs(each - frame))
        way, mask = (1 if frame >= start else -1), torch.zeros(1, 1, 1, 1)
        for number in range(start, frame + way, way):
            mask = self._step(track, number, way)
        return self._enlarged(mask, frames.shape[1:3])

    def _session(self, frames: torch.Tensor) -> Any:
        session = self._session_class(
            video_height=frames.shape[1],
            video_width=frames.shape[2],
            inference_device=self._device,
            inference_state_device="cpu",
            video_storage_device="cpu",
            dtype=torch.float32,
        )
        session.processed_frames = _Frames(frames, self._square, self._mean, self._deviation)
        return session

    def _answer(self, track: _Track, num_frames: int) -> None:
        """Every prompt in turn, the first on its own and each later one in the light of what was followed to its frame."""
        first, *later = track.marked
        self._prompt(track, first)
        for way in (1, -1):
            ahead = sorted((here for here in later if (here.frame > first.frame) == (way == 1)), key=lambda here: way * here.frame)
            number = first.frame
            for here in ahead:
                for between in range(number + way, here.frame + way, way):
                    self._step(track, between, way)
                self._prompt(track, here)
                number = here.frame
            track.forget()

    @torch.inference_mode()
    def _prompt(self, track: _Track, here: Marked) -> None:
        add_prompt(track.session, here, self._square)
        self._model(track.session, frame_idx=here.frame)
        # A prompt on a frame that was followed already corrects it: from now on it counts like the first one.
        outputs = track.session.output_dict_per_obj[0]
        if here.frame in outputs["non_cond_frame_outputs"]:
            outputs["cond_frame_outputs"][here.frame] = outputs["non_cond_frame_outputs"].pop(here.frame)

    @torch.inference_mode()
    def _step(self, track: _Track, number: int, way: int) -> torch.Tensor:
        """Mask logits `[1, 1, h, w]` at a frame, the frames before it in this direction being known."""
        found = self._model(track.session, frame_idx=number, reverse=way < 0)
        track.keep_near(number, max(self._model.config.num_maskmem, self._model.config.max_object_pointers_in_encoder) + 1)
        return torch.as_tensor(found.pred_masks).reshape(1, 1, *found.pred_masks.shape[-2:]).float().cpu()

    def _enlarged(self, logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """The mask `[H, W]` bool of logits `[1, 1, h, w]`, by way of the model's square as transformers does it."""
        square = F.interpolate(logits, (self._square, self._square), mode="bilinear", align_corners=False)
        return F.interpolate(square, tuple(size), mode="bilinear", align_corners=False)[0, 0] > 0


class _Track:
    """One object's session and its prompts."""

    def __init__(self, session: Any, marked: Sequence[Marked]) -> None:
        self.session, self.marked = session, marked
        self.frames = [here.frame for here in marked]
        self.first = min(self.frames)

    def forget(self) -> None:
        """What was followed, so that it is followed anew with all prompts known."""
        self.session.output_dict_per_obj[0]["non_cond_frame_outputs"].clear()

    def keep_near(self, number: int, reach: int) -> None:
        """Forget frames that the model does not look back to."""
        outputs = self.session.output_dict_per_obj[0]["non_cond_frame_outputs"]
        for far in [each for each in outputs if abs(each - number) > reach]:
            del outputs[far]


def share_encoder(sessions: Iterable[Any]) -> None:
    """Let sessions of one clip use the same encoded frame."""
    first, *others = sessions
    for session in others:
        session.cache = first.cache


class _Frames:
    """The clip as a session reads it: frame by frame, ready for the model when asked for; none is kept."""

    def __init__(self, frames: torch.Tensor, square: int, mean: Sequence[float], deviation: Sequence[float]) -> None:
        self.frames, self.square, self.mean, self.deviation = frames, square, mean, deviation

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, number: int) -> torch.Tensor:
        return prepared(self.frames[number], self.square, self.mean, self.deviation)


def prepared(frame: torch.Tensor, square: int, mean: Sequence[float], deviation: Sequence[float]) -> torch.Tensor:
    """A frame `[H, W, 3]` uint8 as the model takes it: `[3, square, square]` float32, stretched, rounded to levels, normalised."""
    pixels = frame.permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, (square, square), mode="bilinear", align_corners=False, antialias=True).round().clamp(0, 255)[0] / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]


def add_prompt(session: Any, here: Marked, square: int) -> None:
    """Give a session what is marked on a frame: a box as its corners (labels 2 and 3), then points on (1) and off (0) the object."""
    scale = torch.tensor([square / session.video_width, square / session.video_height])
    corners = [] if here.box is None else [here.box[:2], here.box[2:]]
    labels = [2, 3][: len(corners)] + [1] * len(here.on) + [0] * len(here.off)
    inputs = {
        "point_coords": torch.tensor([*corners, *here.on, *here.off], dtype=torch.float32).reshape(1, 1, -1, 2) * scale,
        "point_labels": torch.tensor(labels, dtype=torch.int32).reshape(1, 1, -1),
    }
    session.add_point_inputs(session.obj_id_to_idx(OBJECT), here.frame, inputs)
    session.obj_with_new_inputs = [OBJECT]


def _folder(place: str) -> Path:
    """The model's folder on this machine."""
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(place, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError) as error:
        raise ModelError(
            f"{place} is not on this machine; get it with `hf download {place}`, or give the folder of a downloaded SAM 2 model"
        ) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read; give the folder of a downloaded SAM 2 model") from error


def _statistics(folder: Path, usual: tuple[Sequence[float], Sequence[float]]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of the frames that the model was trained on, in [0, 1]."""
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            told = _read(folder / name)
            return told.get("image_mean", usual[0]), told.get("image_std", usual[1])
    return usual
