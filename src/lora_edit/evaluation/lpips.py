"""LPIPS (Zhang, Isola, Efros, Shechtman and Wang, CVPR 2018): how different do two pictures look to a network? 0 is equal; lower is better.

Version 0.1 on AlexNet, the authors' recommendation for a measure. Five layers' features are scaled to length 1 in every place; their
squared differences are weighed by a learned, non-negative head per layer, averaged over the places, and added up
(richzhang/PerceptualSimilarity `lpips/lpips.py`, `lpips/pretrained_networks.py` for the layers, `lpips/__init__.py` for the scaling).
For a region, a place counts with the share of it that is in the region; the features there still see the surroundings, up to 195 pixels
of them in the deepest layer.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from lora_edit.errors import ModelError, VideoError
from lora_edit.evaluation.checks import require_pixels, require_same_shape
from lora_edit.video.ranges import to_signed

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation, for pictures in [-1, 1] (`lpips.py: ScalingLayer`)."""

CHANNELS = (64, 192, 384, 256, 256)
CONVOLUTION_INDICES = (0, 3, 6, 8, 10)
"""Where AlexNet's convolutions stand among its `features`; the layers that count are these after their ReLU."""

MIN_SIDE = 32
"""Shortest side, in pixels, that AlexNet's strides leave something of."""


@dataclass(frozen=True)
class WeightFile:
    """A file of weights: its name, the first digits of its SHA-256, and the command that fetches it into `{folder}`."""

    name: str
    sha256: str
    fetch_command: str


BACKBONE_FILE = WeightFile(
    "alexnet-owt-7be5be79.pth",
    "7be5be79",
    "curl -L --create-dirs -o {folder}/alexnet-owt-7be5be79.pth https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
)
"""torchvision's AlexNet, in the place where torchvision itself keeps it."""

HEADS_FILE = WeightFile(
    "LPIPS_v0.1_alex-df73285e.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "hf download chaofengc/IQA-PyTorch-Weights LPIPS_v0.1_alex-df73285e.pth --local-dir {folder}",
)
"""`lpips/weights/v0.1/alex.pth` of the authors' repository, byte for byte."""


class Lpips(nn.Module):
    """AlexNet's convolutions and a head per layer, with random weights until `load_lpips` or a test fills them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, CHANNELS[0], 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
            *(nn.Conv2d(CHANNELS[0], CHANNELS[1], 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
            *(nn.Conv2d(CHANNELS[1], CHANNELS[2], 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(CHANNELS[2], CHANNELS[3], 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(CHANNELS[3], CHANNELS[4], 3, padding=1), nn.ReLU()),
        )
        self.heads = nn.ParameterList(nn.Parameter(torch.full((count,), 1 / count)) for count in CHANNELS)

    def extract_features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """The five layers' features of pictures `[B, 3, H, W]` in [-1, 1], each of length 1 in every place."""
        found = []
        shift, scale = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        values = (pixels - shift) / scale
        for module in self.features:
            values = module(values)
            if isinstance(module, nn.ReLU):
                found.append(values / (values.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, pixels: torch.Tensor, others: torch.Tensor) -> list[torch.Tensor]:
        """Maps of the difference, one per layer: `[B, h, w]`."""
        pairs = zip(self.extract_features(pixels), self.extract_features(others), self.heads, strict=True)
        return [torch.einsum("bchw,c->bhw", (ours - theirs).square(), head) for ours, theirs, head in pairs]


def load_lpips(device: torch.device, folder: Path | None = None) -> Lpips:
    """The network with its published weights, from `folder` (where torch keeps downloads, by default).

    Raises `ModelError` when a file is missing or damaged.
    """
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    trunk, heads = _read_weights(folder, BACKBONE_FILE), _read_weights(folder, HEADS_FILE)
    model = Lpips()
    state = {f"features.{place}.{kind}": trunk[f"features.{place}.{kind}"] for place in CONVOLUTION_INDICES for kind in ("weight", "bias")}
    state |= {f"heads.{layer}": heads[f"lin{layer}.model.1.weight"].flatten() for layer in range(len(CHANNELS))}
    model.load_state_dict(state)
    return model.to(device).eval()


def lpips(model: Lpips, result: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """Mean LPIPS of the frames of `result` against those of `truth`, both `[T, H, W, 3]` uint8, inside `where` (bool `[T, H, W]`).

    Frames in which `where` is empty do not count; without `where` it is the authors' figure of whole pictures. Raises `VideoError` when the
    clips differ in size or length or are smaller than `SMALLEST`, `MaskError` when `where` does not fit or is empty.
    """
    require_same_shape(result, truth, "clip to compare with")
    if min(result.shape[1:3]) < MIN_SIDE:
        raise VideoError(f"the frames are {result.shape[2]}x{result.shape[1]}; lpips needs {MIN_SIDE} pixels a side, so leave it out")
    if where is None:
        where = torch.ones(result.shape[:3], dtype=torch.bool)
    require_pixels(where, result)
    shown = [index for index in range(len(result)) if bool(where[index].any())]
    return sum(_measure_frame(model, result[n : n + 1], truth[n : n + 1], where[n]) for n in shown) / len(shown)


@torch.no_grad()
def _measure_frame(model: Lpips, frame: torch.Tensor, other: torch.Tensor, where: torch.Tensor) -> float:
    device = model.heads[0].device
    pixels, others = (to_signed(each).transpose(0, 1).to(device) for each in (frame, other))
    return sum(weighted_mean(layer[0], where.to(device)) for layer in model(pixels, others))


def weighted_mean(layer: torch.Tensor, where: torch.Tensor) -> float:
    """Mean of a map `[h, w]`, each place weighed with the share of the bool mask `[H, W]` in it."""
    share = functional.adaptive_avg_pool2d(where[None, None].float(), (layer.shape[0], layer.shape[1]))[0, 0]
    return float((layer * share).sum() / share.sum())


def _read_weights(folder: Path, file: WeightFile) -> dict[str, torch.Tensor]:
    path = folder / file.name
    fetch = file.fetch_command.format(folder=folder)
    if not path.is_file():
        raise ModelError(f"{path}: no such file, and lpips needs it; fetch it with `{fetch}`, or leave lpips out of --metrics")
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(file.sha256):
        raise ModelError(f"{path}: damaged, or not the file of that name; fetch it again with `{fetch}`")
    try:
        # The heads were saved from a graphics card.
        weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); fetch it again with `{fetch}`") from error
    return weights
