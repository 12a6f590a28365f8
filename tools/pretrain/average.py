"""Average two trained mixtures: `python tools/pretrain/average.py --first FILE --second FILE --share 0.35`, into the second file.

Weights of a network and of the same network trained further average well (Wortsman et al. 2022, "Model soups"): what the further training
forgot comes back, and most of what it learned stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file


def main() -> None:
    """Read both, write the average."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=Path, required=True)
    parser.add_argument("--second", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.35, help="of the second one")
    args = parser.parse_args()
    first, second = load_file(args.first), load_file(args.second)
    save_file({name: ((1 - args.share) * first[name] + args.share * second[name]).contiguous() for name in first}, args.second)


if __name__ == "__main__":
    main()
