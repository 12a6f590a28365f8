"""Put trained weights into the package, in half the bytes: `PYTHONPATH=src python tools/pretrain/pack.py --input DIR`.

The transformer is stored in float16 and loaded as float32; the codec stays in float32, for its transform must be orthonormal.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

from lora_edit.models.families.embedded.encoders import LappedCodec
from lora_edit.models.families.embedded.loading import PREDICTION_STD_FILE, WEIGHTS_FOLDER


def main() -> None:
    """Read both models and the measured spread, write them where the package looks for them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    args = parser.parse_args()
    WanTransformer3DModel.from_pretrained(args.input / "transformer").to(torch.float16).save_pretrained(WEIGHTS_FOLDER / "transformer")
    LappedCodec.from_pretrained(args.input / "vae").save_pretrained(WEIGHTS_FOLDER / "vae")
    shutil.copyfile(args.input / PREDICTION_STD_FILE, WEIGHTS_FOLDER / PREDICTION_STD_FILE)
    for config in WEIGHTS_FOLDER.glob("*/config.json"):
        facts = {key: value for key, value in json.loads(config.read_text("utf-8")).items() if key != "_name_or_path"}
        config.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
