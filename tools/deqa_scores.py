"""DeQA scores of the pictures in a folder, in a separate environment: the checkpoint's code needs transformers 4.36.1.

    python3.11 -m venv deqa && deqa/bin/pip install transformers==4.36.1 torch accelerate sentencepiece icecream protobuf pillow 'numpy<2'
    deqa/bin/python tools/deqa_scores.py RUN/result > scores.csv

The script runs code that comes with the checkpoint, zhiyuanyou/DeQA-Score-Mix3 (its README has the call), needs a GPU with about 20 GB, and
imports nothing of this package. stdout has a row per picture and the mean, which is the value of `lora_edit.evaluation.deqa`.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Score every PNG and JPEG of a folder."""
    parser = argparse.ArgumentParser(description="DeQA scores of the pictures in a folder")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", default="zhiyuanyou/DeQA-Score-Mix3")
    arguments = parser.parse_args()
    pictures = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    if not pictures:
        parser.error(f"{arguments.folder}: holds no PNG or JPEG pictures")

    import torch
    from PIL import Image
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        arguments.checkpoint, trust_remote_code=True, attn_implementation="eager", torch_dtype=torch.float16, device_map="auto"
    )
    scores = [float(model.score([Image.open(path).convert("RGB")])[0]) for path in pictures]
    print("picture,deqa")
    for path, score in zip(pictures, scores, strict=True):
        print(f"{path.name},{score:.4f}")
    print(f"mean,{sum(scores) / len(scores):.4f}")


if __name__ == "__main__":
    main()
