"""An edit with everything that its settings name looked up once: the model's record, its weights, the size that it works at."""

from __future__ import annotations

from dataclasses import dataclass

from lora_edit.canvas import plan_canvas
from lora_edit.config import EditSettings
from lora_edit.inputs import Clip
from lora_edit.models.checkpoints.locate import locate_model
from lora_edit.models.record import Geometry, ModelRecord
from lora_edit.types import Size


@dataclass(frozen=True)
class ResolvedEdit:
    """What preparing, training and generating read; nothing after it looks up a model's name or a preset.

    `record` describes the trained model. The weights are loaded as `loaded_record` from `checkpoint` (a folder, file or Hub repository),
    which differ from it where another checkpoint replaces the trained one. `canvas_size` is the frame size that the model works at.
    """

    settings: EditSettings
    record: ModelRecord
    loaded_record: ModelRecord
    checkpoint: str
    canvas_size: Size
    num_frames: int
    has_references: bool

    @property
    def geometry(self) -> Geometry:
        """The model's grid."""
        return self.record.geometry


def resolve_edit(settings: EditSettings, clip: Clip, substitute: str | None = None) -> ResolvedEdit:
    """Look up the model of an edit and plan its canvas. `substitute` names another checkpoint of the same model for generation.

    Reads no weights. Raises `ModelError` for a model that is not found.
    """
    record, checkpoint = locate_model(settings.model)
    loaded_record, checkpoint = (record, checkpoint) if substitute is None else locate_model(substitute)
    _, size = plan_canvas(clip, record.geometry, settings.compositing)
    return ResolvedEdit(settings, record, loaded_record, checkpoint, size, clip.video.num_frames, bool(clip.references))
