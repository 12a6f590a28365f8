"""Labels of the settings on the page, for its fields and its messages."""

from __future__ import annotations

import re

from pydantic import ValidationError

from lora_edit.config import list_marked_settings
from lora_edit.errors import SettingsError
from lora_edit.setting_fields import PageField

OTHER_SETTING_LABELS = {
    "masks.shape": "Shape of the region",
    "masks.expand": "Room around it",
    "masks.smooth": "Steady over",
    "compositing.feather": "Soft edge",
    "video.start": "First frame",
    "video.frames": "Frames",
}
"""Labels of the other settings that the page's fields change."""


def replace_setting_names(text: str) -> str:
    """Replace the names of settings in a message by the labels of their fields."""
    for name, label in {
        **{name: field.label for name, (field, _) in list_marked_settings(PageField).items()},
        **OTHER_SETTING_LABELS,
    }.items():
        text = re.sub(rf"\b{re.escape(name)}\b", label, text)
    return text


def explain_settings_error(error: SettingsError, assignments: tuple[str, ...]) -> SettingsError:
    """Restate a settings error in one sentence, for the typed `assignments`."""
    for text in assignments:
        if not re.fullmatch(r"[\w-]+(\.[\w-]+)?\s*=.*", text):
            return SettingsError(f'"{text[:80]}" is not a setting; write one per line, such as training.window=9')
    cause = error.__cause__
    if not isinstance(cause, ValidationError) or cause.errors()[0]["type"] == "extra_forbidden":
        text = str(error).partition(": write ")[0].removeprefix("--set ")
        return SettingsError(text if text == str(error) else f'"{text[:80]}" is not a setting; docs/settings.md lists all of them')
    first = cause.errors()[0]
    location = first["loc"][:2]
    # Pydantic reports one error for each type that a setting accepts.
    requirements = [re.split(", (?:unable|got)", each["msg"])[0] for each in cause.errors() if each["loc"][:2] == location]
    requirement = " or ".join(dict.fromkeys(each.removeprefix("Input should be ").removeprefix("Value error, ") for each in requirements))
    return SettingsError(f"{'.'.join(map(str, location))} cannot be {str(first['input'])[:80]!r}; it takes {requirement}")
