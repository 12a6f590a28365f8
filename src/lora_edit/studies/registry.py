"""The studies by name: `module:STUDY`, imported when asked for."""

_HERE = "lora_edit.studies.experiments"

STUDIES: dict[str, str] = {
    "mask-configurations": f"{_HERE}:MASK_CONFIGURATIONS",
    "methods": f"{_HERE}:METHODS",
    "input-feature": f"{_HERE}:INPUT_FEATURE",
    "mask-shape": f"{_HERE}:MASK_SHAPE",
    "mask-schedule": f"{_HERE}:MASK_SCHEDULE",
    "references": f"{_HERE}:REFERENCES",
    "frames": f"{_HERE}:FRAMES",
    "windows": f"{_HERE}:WINDOWS",
    "lora": f"{_HERE}:LORA",
    "snapping": f"{_HERE}:SNAPPING",
    "debiasing": f"{_HERE}:DEBIASING",
    "detail": f"{_HERE}:DETAIL",
    "hints": "lora_edit.studies.hint_kinds:HINTS",
    "presets": f"{_HERE}:PRESETS",
    "storage": f"{_HERE}:STORAGE",
    "fewer-steps": "lora_edit.studies.fewer_steps:FEWER_STEPS",
}

RUNNER = "lora_edit.studies.study:run_study"
"""What runs any of them on scenes with a true edit, drawn or from a folder."""

SCENE_FOLDER = "lora_edit.studies.scene_folder:SceneFolder"
"""What stands in place of the number of scenes for those of a folder: folder, half, and how many at most."""

CASES_RUNNER = "lora_edit.studies.case_study:run_on_cases"
"""What runs any of them on the cases of a manifest, which have no true edit."""

USERS = ("lora_edit.studies.users.page:build_page", "lora_edit.studies.users.tally:tally")
"""The user study asks people instead: what makes its page, and what counts the answers."""
