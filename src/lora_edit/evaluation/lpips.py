"""LPIPS (Zhang, Isola, Efros, Shechtman and Wang, CVPR 2018): the perceptual distance of two pictures. 0 is equal; lower is better.

Version 0.1 on AlexNet, which the authors recommend for measuring. The features of five layers are scaled to length 1 in every cell of the
feature map; their squared differences are weighted by a learned, non-negative head per layer, averaged over the cells, and added up
(richzhang/PerceptualSimilarity `lpips/lpips.py`, `lpips/pretrained_networks.py` for the layers, `lpips/__init__.py` for the scaling).
For a region, each cell is weighted by the share of it that lies in the region. Its features still depend on the surroundings: the
receptive field is up to 195 pixels wide in the deepest layer.
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
from lora_edit.evaluation.metric_inputs import MetricInputs
from lora_edit.video.ranges import to_signed

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""Mean and standard deviation of ImageNet, for pictures in [-1, 1] (`lpips.py: ScalingLayer`)."""

CHANNELS = (64, 192, 384, 256, 256)
CONVOLUTION_INDICES = (0, 3, 6, 8, 10)
"""Indices of AlexNet's convolutions in its `features`; LPIPS uses the outputs of the ReLU behind each."""

MIN_SIDE = 32
"""Shortest side, in pixels, from which AlexNet's strides leave a feature map that is not empty."""


@dataclass(frozen=True)
class WeightFile:
    """A file of weights: its name, the first digits of its SHA-256, and the command that downloads it into `{folder}`."""

    name: str
    sha256: str
    fetch_command: str


BACKBONE_FILE = WeightFile(
    "alexnet-owt-7be5be79.pth",
    "7be5be79",
    "curl -L --create-dirs -o {folder}/alexnet-owt-7be5be79.pth https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
)
"""torchvision's AlexNet, under the name that torchvision uses for it."""

HEADS_FILE = WeightFile(
    "LPIPS_v0.1_alex-df73285e.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "hf download chaofengc/IQA-PyTorch-Weights LPIPS_v0.1_alex-df73285e.pth --local-dir {folder}",
)
"""`lpips/weights/v0.1/alex.pth` of the authors' repository, byte for byte."""


class Lpips(nn.Module):
    """AlexNet's convolutions and a head per layer; the weights are random until a state dict is loaded, see `load_lpips`."""

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
        """Extract the features of the five layers from pictures `[B, 3, H, W]` in [-1, 1], of length 1 in every cell."""
        features = []
        shift, scale = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        values = (pixels - shift) / scale
        for module in self.features:
            values = module(values)
            if isinstance(module, nn.ReLU):
                features.append(values / (values.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return features

    def forward(self, pixels: torch.Tensor, others: torch.Tensor) -> list[torch.Tensor]:
        """Compute maps of the difference, one per layer: `[B, h, w]`."""
        pairs = zip(self.extract_features(pixels), self.extract_features(others), self.heads, strict=True)
        return [torch.einsum("bchw,c->bhw", (first - second).square(), head) for first, second, head in pairs]


def load_lpips(device: torch.device, folder: Path | None = None) -> Lpips:
    """Load the network with its published weights from `folder` (by default torch's folder for downloads).

    Raises `ModelError` when a file is missing or damaged.
    """
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    backbone, heads = _read_weights(folder, BACKBONE_FILE), _read_weights(folder, HEADS_FILE)
    model = Lpips()
    names = [f"features.{index}.{kind}" for index in CONVOLUTION_INDICES for kind in ("weight", "bias")]
    state = {name: backbone[name] for name in names}
    state |= {f"heads.{layer}": heads[f"lin{layer}.model.1.weight"].flatten() for layer in range(len(CHANNELS))}
    model.load_state_dict(state)
    return model.to(device).eval()


def measure_region_lpips(inputs: MetricInputs, model: Lpips) -> float:
    """LPIPS of the region against the truth, or the source without one."""
    return lpips(model, inputs.result.frames, inputs.reference.frames, inputs.region)


def measure_background_lpips(inputs: MetricInputs, model: Lpips) -> float | None:
    """LPIPS of everything outside the region against the source; None without a background."""
    background = inputs.background
    return None if background is None else lpips(model, inputs.result.frames, inputs.source.frames, background)


def lpips(model: Lpips, result: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """Compute the mean LPIPS of `result` against `truth`, both `[T, H, W, 3]` uint8, inside `where` (bool `[T, H, W]`).

    Frames in which `where` is empty do not count. Without `where` the value is that of the authors' code for whole pictures. Raises
    `VideoError` when the clips differ in size or length or a side is shorter than `MIN_SIDE`, `MaskError` when `where` does not fit or
    is empty.
    """
    require_same_shape(result, truth, "clip to compare with")
    if min(result.shape[1:3]) < MIN_SIDE:
        raise VideoError(
            f"the frames are {result.shape[2]}x{result.shape[1]}; lpips needs {MIN_SIDE} pixels a side; leave it out of --metrics"
        )
    if where is None:
        where = torch.ones(result.shape[:3], dtype=torch.bool)
    require_pixels(where, result)
    measured = [index for index in range(len(result)) if bool(where[index].any())]
    return sum(_measure_frame(model, result[n : n + 1], truth[n : n + 1], where[n]) for n in measured) / len(measured)


@torch.no_grad()
def _measure_frame(model: Lpips, frame: torch.Tensor, other: torch.Tensor, where: torch.Tensor) -> float:
    device = model.heads[0].device
    pixels, others = (to_signed(each).transpose(0, 1).to(device) for each in (frame, other))
    return sum(weighted_mean(layer[0], where.to(device)) for layer in model(pixels, others))


def weighted_mean(layer: torch.Tensor, where: torch.Tensor) -> float:
    """Compute the mean of a map `[h, w]`, each cell weighted by the share of it that the bool mask `[H, W]` covers."""
    share = functional.adaptive_avg_pool2d(where[None, None].float(), (layer.shape[0], layer.shape[1]))[0, 0]
    return float((layer * share).sum() / share.sum())


def _read_weights(folder: Path, file: WeightFile) -> dict[str, torch.Tensor]:
    path = folder / file.name
    command = file.fetch_command.format(folder=folder)
    if not path.is_file():
        raise ModelError(f"{path}: no such file, and lpips needs it; download it with `{command}`, or leave lpips out of --metrics")
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(file.sha256):
        raise ModelError(f"{path}: damaged, or another file; download it again with `{command}`")
    try:
        # The heads were saved from a GPU.
        weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); download it again with `{command}`") from error
    return weights
