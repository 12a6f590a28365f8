"""A family and a sample on torch's meta device: the real code with shapes instead of values, to count costs without weights."""

from __future__ import annotations

import torch

from lora_edit.models.family import EncodedSample, Expert, Family, LatentShape
from lora_edit.models.record import ModelRecord, import_target


def has_meta_model(record: ModelRecord) -> bool:
    """Check whether a model can be built on the meta device: whether its record names a `meta_sample`."""
    return bool(record.meta_sample)


def build_meta_model(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """Build the first expert of a model and a sample of `latent_shape` on the meta device; further experts have the same costs."""
    family: Family = import_target(record.loader)(record, "", torch.device("meta"), dtype)
    sample: EncodedSample = import_target(record.meta_sample)(record, latent_shape, dtype)
    return family.experts()[0], sample
