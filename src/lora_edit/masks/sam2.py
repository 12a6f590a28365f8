"""The segmenters of SAM 2 (Ravi et al., 2024), EdgeTAM and SAM 3's tracker, by the video models of transformers.

A transformers session holds the state of one object. All objects' sessions process the frames in parallel, so that each frame is
encoded once. Frames are preprocessed on demand, and outputs for frames too far back are dropped from a session.
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
from lora_edit.masks.segmenter import FramePrompts, Prompt, check_prompts, describe_lost_frames, group_by_object
from lora_edit.types import EditMask, OnFrame, Size

MODEL_CLASSES = {
    "sam2_video": "Sam2Video",
    "edgetam_video": "EdgeTamVideo",
    "sam3_tracker_video": "Sam3TrackerVideo",
    "sam3_video": "Sam3TrackerVideo",
}
"""Maps a checkpoint's `model_type` to the prefix of transformers' classes. SAM 3's checkpoints contain the tracker among other models."""

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation for normalizing frames of SAM 2 and EdgeTAM where the checkpoint does not define them."""

SAM3_STATISTICS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation for SAM 3."""

OBJECT_ID = 1
"""ID of the only object in a session."""


class Sam2Segmenter:
    """`Segmenter` by a model in a folder, or by a Hub ID that is already in the local cache. Raises `ModelError` otherwise."""

    def __init__(self, model_id_or_path: str, device: str = "auto") -> None:
        folder = find_model_folder(model_id_or_path)
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in MODEL_CLASSES:
            raise ModelError(
                f"{model_id_or_path}: no SAM 2 model but {kind or 'something else'}; give a folder with one of {', '.join(MODEL_CLASSES)}"
            )
        import transformers

        self._session_class = getattr(transformers, f"{MODEL_CLASSES[kind]}InferenceSession")
        model = load_pretrained(getattr(transformers, f"{MODEL_CLASSES[kind]}Model"), folder, model_id_or_path)
        self._device = pick_device(device)
        self._model = model.to(self._device).eval()
        square = model.config.image_size
        self._image_size = int(square if isinstance(square, int) else square[0])
        self._mean, self._std = read_image_statistics(folder, SAM3_STATISTICS if "sam3" in kind else IMAGENET_STATISTICS)

    def segment(self, frames: torch.Tensor, prompts: Sequence[Prompt], on_frame: OnFrame | None = None) -> dict[str, EditMask]:
        """See `Segmenter.segment`."""
        check_prompts(prompts, len(frames), Size(frames.shape[1], frames.shape[2]))
        tracks = {
            name: _ObjectSession(self._create_session(frames), frame_prompts) for name, frame_prompts in group_by_object(prompts).items()
        }
        share_encoder([track.session for track in tracks.values()])
        masks = {name: torch.zeros(frames.shape[:3], dtype=torch.bool) for name in tracks}
        for track in tracks.values():
            self._apply_prompts(track, len(frames))
        num_done = 0
        for direction in (1, -1):
            for track in tracks.values():
                track.clear_tracked_frames()
            for number in range(len(frames))[::direction]:
                for name, track in tracks.items():
                    if (number >= track.first_frame) != (direction == 1):
                        continue
                    masks[name][number] = self._binarize_logits(self._predict_logits(track, number, direction), frames.shape[1:3])
                    num_done += 1
                    if on_frame is not None:
                        on_frame(num_done, len(tracks) * len(frames))
        return {name: EditMask(mask, describe_lost_frames(name, mask)) for name, mask in masks.items()}

    def segment_frame(self, frames: torch.Tensor, prompts: Sequence[Prompt], frame: int) -> torch.Tensor:
        """See `Segmenter.segment_frame`."""
        check_prompts(prompts, len(frames), Size(frames.shape[1], frames.shape[2]))
        (frame_prompts,) = group_by_object(prompts).values()
        track = _ObjectSession(self._create_session(frames), frame_prompts)
        self._apply_prompts(track, len(frames))
        start = min(track.frames, key=lambda each: abs(each - frame))
        direction, logits = (1 if frame >= start else -1), torch.zeros(1, 1, 1, 1)
        for number in range(start, frame + direction, direction):
            logits = self._predict_logits(track, number, direction)
        return self._binarize_logits(logits, frames.shape[1:3])

    def _create_session(self, frames: torch.Tensor) -> Any:
        session = self._session_class(
            video_height=frames.shape[1],
            video_width=frames.shape[2],
            inference_device=self._device,
            inference_state_device="cpu",
            video_storage_device="cpu",
            dtype=torch.float32,
        )
        session.processed_frames = _PreprocessedFrames(frames, self._image_size, self._mean, self._std)
        return session

    def _apply_prompts(self, track: _ObjectSession, num_frames: int) -> None:
        """Apply the prompts in order: the first one alone, and each later one after tracking the object to its frame."""
        first, *later = track.prompts
        self._apply_frame_prompts(track, first)
        for direction in (1, -1):
            prompts_ahead = sorted(
                (prompt for prompt in later if (prompt.frame > first.frame) == (direction == 1)),
                key=lambda prompt: direction * prompt.frame,
            )
            number = first.frame
            for prompt in prompts_ahead:
                for tracked_number in range(number + direction, prompt.frame + direction, direction):
                    self._predict_logits(track, tracked_number, direction)
                self._apply_frame_prompts(track, prompt)
                number = prompt.frame
            track.clear_tracked_frames()

    @torch.inference_mode()
    def _apply_frame_prompts(self, track: _ObjectSession, prompts: FramePrompts) -> None:
        add_prompt(track.session, prompts, self._image_size)
        self._model(track.session, frame_idx=prompts.frame)
        # A prompt on an already tracked frame corrects it. The frame then becomes a conditioning frame like the first one.
        outputs = track.session.output_dict_per_obj[0]
        if prompts.frame in outputs["non_cond_frame_outputs"]:
            outputs["cond_frame_outputs"][prompts.frame] = outputs["non_cond_frame_outputs"].pop(prompts.frame)

    @torch.inference_mode()
    def _predict_logits(self, track: _ObjectSession, frame_index: int, direction: int) -> torch.Tensor:
        """Predict mask logits `[1, 1, h, w]` at a frame, after all frames before it in this direction."""
        output = self._model(track.session, frame_idx=frame_index, reverse=direction < 0)
        track.drop_distant_frames(frame_index, max(self._model.config.num_maskmem, self._model.config.max_object_pointers_in_encoder) + 1)
        return torch.as_tensor(output.pred_masks).reshape(1, 1, *output.pred_masks.shape[-2:]).float().cpu()

    def _binarize_logits(self, logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Convert logits `[1, 1, h, w]` to a mask `[H, W]` bool, resized through the model's square as in transformers."""
        square = F.interpolate(logits, (self._image_size, self._image_size), mode="bilinear", align_corners=False)
        return F.interpolate(square, tuple(size), mode="bilinear", align_corners=False)[0, 0] > 0


class _ObjectSession:
    """One object's session and its prompts."""

    def __init__(self, session: Any, prompts: Sequence[FramePrompts]) -> None:
        self.session, self.prompts = session, prompts
        self.frames = [prompt.frame for prompt in prompts]
        self.first_frame = min(self.frames)

    def clear_tracked_frames(self) -> None:
        """Clear the tracked frames, so that they are tracked again with all prompts applied."""
        self.session.output_dict_per_obj[0]["non_cond_frame_outputs"].clear()

    def drop_distant_frames(self, frame_index: int, max_distance: int) -> None:
        """Drop the outputs of frames that the model no longer attends to."""
        outputs = self.session.output_dict_per_obj[0]["non_cond_frame_outputs"]
        for distant_frame in [each for each in outputs if abs(each - frame_index) > max_distance]:
            del outputs[distant_frame]


def share_encoder(sessions: Iterable[Any]) -> None:
    """Share the cache of encoded frames between sessions of one clip."""
    first, *others = sessions
    for session in others:
        session.cache = first.cache


class _PreprocessedFrames:
    """The clip as a session reads it: frames are preprocessed on access and not cached."""

    def __init__(self, frames: torch.Tensor, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.frames, self.image_size, self.mean, self.std = frames, image_size, mean, std

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, number: int) -> torch.Tensor:
        return preprocess_frame(self.frames[number], self.image_size, self.mean, self.std)


def preprocess_frame(frame: torch.Tensor, image_size: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Preprocess a frame `[H, W, 3]` uint8 for the model: `[3, image_size, image_size]` float32, stretched, rounded to levels,
    normalized."""
    pixels = frame.permute(2, 0, 1)[None].float()
    pixels = (
        F.interpolate(pixels, (image_size, image_size), mode="bilinear", align_corners=False, antialias=True).round().clamp(0, 255)[0] / 255
    )
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def add_prompt(session: Any, prompts: FramePrompts, image_size: int) -> None:
    """Add a frame's prompts to a session: a box as its corners (labels 2 and 3), then points on (1) and off (0) the object."""
    scale = torch.tensor([image_size / session.video_width, image_size / session.video_height])
    box = prompts.box
    corners = [] if box is None else [(box.left, box.top), (box.right, box.bottom)]
    labels = [2, 3][: len(corners)] + [1] * len(prompts.positive_points) + [0] * len(prompts.negative_points)
    inputs = {
        "point_coords": torch.tensor([*corners, *prompts.positive_points, *prompts.negative_points], dtype=torch.float32).reshape(
            1, 1, -1, 2
        )
        * scale,
        "point_labels": torch.tensor(labels, dtype=torch.int32).reshape(1, 1, -1),
    }
    session.add_point_inputs(session.obj_id_to_idx(OBJECT_ID), prompts.frame, inputs)
    session.obj_with_new_inputs = [OBJECT_ID]


def find_model_folder(model_id_or_path: str) -> Path:
    """Return the model's folder on this machine."""
    if Path(model_id_or_path).is_dir():
        return Path(model_id_or_path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id_or_path, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError) as error:
        raise ModelError(
            f"{model_id_or_path} is not on this machine; get it with `hf download {model_id_or_path}`, or give the folder of a "
            f"downloaded SAM 2 model"
        ) from error


def load_pretrained(model_class: Any, folder: Path, model_id_or_path: str) -> Any:
    """Load a model of transformers from a folder. Raises `ModelError`, with the name that the user gave, for damaged files."""
    try:
        return model_class.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{model_id_or_path}: the model cannot be loaded ({reason}); download it again") from error


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object of a model's folder. Raises `ModelError` when it is missing or malformed."""
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read; give the folder of a downloaded SAM 2 model") from error


def read_image_statistics(folder: Path, default: tuple[Sequence[float], Sequence[float]]) -> tuple[Sequence[float], Sequence[float]]:
    """Read mean and standard deviation of the model's training frames, in [0, 1]."""
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            config = read_json(folder / name)
            return config.get("image_mean", default[0]), config.get("image_std", default[1])
    return default
