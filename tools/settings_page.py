"""Write `docs/settings.md` from the settings: `PYTHONPATH=src python tools/settings_page.py`."""

from __future__ import annotations

from pathlib import Path

from lora_edit.config import SECTIONS, EditSettings
from lora_edit.models.families.embedded.record import tiny_preset

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """# Settings

Give settings as `--set section.setting=value`, or in a TOML file with one table per section (`--config`). Flags override the file, `--set`
overrides both. The embedded model's preset changes the settings marked *. `tools/settings_page.py` writes this page.

Above its tables a file may also set `model`, `preset` and `seed`; `prompt`, which replaces all captions; and `trigger`: p*, the word before
the caption or the prompt (`p3rs0n`).
"""


def page() -> str:
    """Build the page's text."""
    preset, parts = tiny_preset(), [HEAD]
    for section in SECTIONS:
        model = EditSettings.model_fields[section].annotation
        assert model is not None and model.__doc__ is not None
        parts.append(f"## {section}\n\n{model.__doc__.splitlines()[0]}\n\n| setting | default | meaning |\n|---|---|---|")
        for name, info in model.model_fields.items():
            changed = preset.get(section, {}).get(name)
            note = "" if changed is None else f", embedded model `{changed}`*"
            parts.append(f"| `{name}` | `{info.default}`{note} | {info.description or ''} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
