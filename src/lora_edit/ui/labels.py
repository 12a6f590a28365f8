"""What the page calls the settings, in its fields and in its messages."""

from __future__ import annotations

import re

from pydantic import ValidationError

from lora_edit.errors import SettingsError

SETTING_FIELDS = {
    "training.motion_steps": ("Training steps", "More learn the motion better, and take longer", 0, 100_000),
    "training.appearance_steps": ("Steps on edited later frames", "Only where there are some", 0, 100_000),
    "training.learning_rate": ("Learning rate", "How large a step is", 1e-7, 1.0),
    "lora.rank": ("LoRA rank", "Room for what is learned", 1, 1024),
    "generation.steps": ("Sampling steps", "Of drawing the result", 1, 1000),
    "generation.guidance_scale": ("Guidance", "1 is off", 0.0, 100.0),
}
"""Settings with a field of their own: what they are called, what they do, and the range that makes sense, whole numbers or not."""

OTHER_SETTING_LABELS = {
    "masks.shape": "Shape of the region",
    "masks.expand": "Room around it",
    "masks.smooth": "Steady over",
    "compositing.feather": "Soft edge",
    "video.start": "First frame",
    "video.frames": "Frames",
}
"""What the page's fields call other settings."""


def replace_setting_names(text: str) -> str:
    """A message in the words of the page's fields."""
    for name, label in {**{knob: words[0] for knob, words in SETTING_FIELDS.items()}, **OTHER_SETTING_LABELS}.items():
        text = re.sub(rf"\b{re.escape(name)}\b", label, text)
    return text


def explain_settings_error(error: SettingsError, assignments: tuple[str, ...]) -> SettingsError:
    """The same fault in one plain sentence, for a person who typed `assignments`."""
    for text in assignments:
        if not re.fullmatch(r"[\w-]+(\.[\w-]+)?\s*=.*", text):
            return SettingsError(f'"{text[:80]}" is no setting; write one to a line, such as training.window=9')
    cause = error.__cause__
    if not isinstance(cause, ValidationError) or cause.errors()[0]["type"] == "extra_forbidden":
        words = str(error).partition(": write section")[0].removeprefix("--set ")
        return SettingsError(words if words == str(error) else f'"{words[:80]}" is no setting; docs/settings.md lists them all')
    first = cause.errors()[0]
    place = first["loc"][:2]
    # A setting that takes several kinds of values has a fault for each.
    rules = [re.split(", (?:unable|got)", each["msg"])[0] for each in cause.errors() if each["loc"][:2] == place]
    rule = " or ".join(dict.fromkeys(each.removeprefix("Input should be ").removeprefix("Value error, ") for each in rules))
    return SettingsError(f"{'.'.join(map(str, place))} cannot be {str(first['input'])[:80]!r}; it takes {rule}")
