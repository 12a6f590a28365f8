"""The studies by name, as `module:STUDY`, imported on first use."""

_EXPERIMENTS = "lora_edit.studies.experiments"

STUDIES: dict[str, str] = {
    "mask-configurations": f"{_EXPERIMENTS}:MASK_CONFIGURATIONS",
    "methods": f"{_EXPERIMENTS}:METHODS",
    "input-feature": f"{_EXPERIMENTS}:INPUT_FEATURE",
    "mask-shape": f"{_EXPERIMENTS}:MASK_SHAPE",
    "mask-schedule": f"{_EXPERIMENTS}:MASK_SCHEDULE",
    "references": f"{_EXPERIMENTS}:REFERENCES",
    "frames": f"{_EXPERIMENTS}:FRAMES",
    "windows": f"{_EXPERIMENTS}:WINDOWS",
    "lora": f"{_EXPERIMENTS}:LORA",
    "snapping": f"{_EXPERIMENTS}:SNAPPING",
    "debiasing": f"{_EXPERIMENTS}:DEBIASING",
    "detail": f"{_EXPERIMENTS}:DETAIL",
    "baselines": "lora_edit.studies.baselines:BASELINES",
    "hints": "lora_edit.studies.hint_kinds:HINTS",
    "presets": f"{_EXPERIMENTS}:PRESETS",
    "storage": f"{_EXPERIMENTS}:STORAGE",
    "fewer-steps": "lora_edit.studies.fewer_steps:FEWER_STEPS",
}

DESCRIPTIONS: dict[str, str] = {
    "mask-configurations": "what the model does with each kind of mask before and after training (figure 2)",
    "methods": "the method against a plain LoRA, a flow warp and no training (table 1)",
    "input-feature": "the mask as the model's input against blended features (table 3)",
    "mask-shape": "a loose box, a tight outline or a degraded one (appendix B.2)",
    "mask-schedule": "which mask the appearance steps see (appendix B.3)",
    "references": "how much each further edited frame helps (figure 7)",
    "frames": "short and long clips (appendix B.4)",
    "windows": "training on short windows (appendix C)",
    "lora": "which layers the LoRA adapts, and its rank",
    "snapping": "the region grown to the model's grid, or as it is",
    "debiasing": "ways to keep the source's look out of the LoRA",
    "detail": "detail above the model's resolution, from the explained edit",
    "baselines": "the finished edit beside a flow warp, a colour map, a moving layer and the explained edit",
    "hints": "the hint where pixels are withheld: none, the motion of a box, flow, the explained edit",
    "presets": "standard, fast and low-vram",
    "storage": "frozen weights in full, 8 and 4 bits",
    "fewer-steps": "stopping early, and the noise of the appearance steps",
    "users": "a blind comparison by people (appendix G)",
}
"""One line about each study, for `study --list`."""

RUNNER = "lora_edit.studies.study:run_study"
"""Runs a study on scenes with a true edit, drawn or from a folder."""

SCENE_FOLDER = "lora_edit.studies.scene_folder:SceneFolder"
"""Selects the scenes of a folder, in place of a number of scenes: folder, half, and the maximum number."""

CASES_RUNNER = "lora_edit.studies.case_study:run_on_cases"
"""Runs a study on the cases of a manifest, which have no true edit."""

USER_STUDY_TARGETS = ("lora_edit.studies.users.page:build_page", "lora_edit.studies.users.tally:tally_answers")
"""The functions of the user study: one builds its page, the other tallies the answers."""
