"""The studies by name; each is a function of (output folder, scenes, seeds, reporter) that returns its table's path."""

STUDIES: dict[str, str] = {"methods": "lora_edit.studies.methods:methods"}
"""Name -> `module:function`, imported when asked for."""
