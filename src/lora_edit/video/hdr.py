"""Tone mapping from HDR to BT.709: PQ or HLG levels to linear light, BT.2020 to BT.709 primaries, roll-off of highlights.

The curves are SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG) as in ITU-R BT.2100. The roll-off follows BT.2390, section 5.4, from a display of
1000 cd/m2 to diffuse white at 203 cd/m2 (BT.2408); levels darker than half of that white keep their brightness.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

PQ, HLG = 16, 18
HDR_TRANSFERS = (PQ, HLG)
"""H.273 codes of the HDR transfer functions."""

BT2020_PRIMARIES = 9
_PEAK, _WHITE = 1000.0, 203.0
_PQ_M1, _PQ_M2, _PQ_C1, _PQ_C2, _PQ_C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073
_OOTF_GAMMA = 1.2  # of HLG on a display of 1000 cd/m2
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)  # BT.2087
_BT2020_LUMA = np.array([0.2627, 0.678, 0.0593], np.float32)
_TABLE_STEPS = 65535  # of the tables from black to white

Luminance = npt.NDArray[np.float32]  # [H, W, 3], cd/m2


def to_sdr(levels: npt.NDArray[np.uint16], transfer: int, primaries: int) -> npt.NDArray[np.uint8]:
    """Convert RGB levels `[H, W, 3]` of PQ (16) or HLG (18) to BT.709 `[H, W, 3]` uint8."""
    light = np.take(_build_light_table(transfer), levels)
    if transfer == HLG:
        luma = (light @ _BT2020_LUMA)[..., None]
        light = _PEAK * light * np.power(np.maximum(luma, 1e-6), _OOTF_GAMMA - 1)
    if primaries in (BT2020_PRIMARIES, 2):
        light = np.maximum(cv2.transform(np.ascontiguousarray(light, np.float32), _TO_BT709), 0)
    brightest = light.max(-1, keepdims=True)
    scale = np.interp(brightest, *_build_roll_off_table()) / np.maximum(brightest, 1e-6) / _WHITE
    displayed = np.clip(light * scale * _TABLE_STEPS, 0, _TABLE_STEPS)
    return np.take(_build_code_table(), np.rint(displayed).astype(np.uint16))


def _decode_pq(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    root = np.power(code, 1 / _PQ_M2)
    return 10000 * np.power(np.maximum(root - _PQ_C1, 0) / (_PQ_C2 - _PQ_C3 * root), 1 / _PQ_M1)


def _encode_pq(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    root = np.power(light / 10000, _PQ_M1)
    return np.power((_PQ_C1 + _PQ_C2 * root) / (1 + _PQ_C3 * root), _PQ_M2)


@lru_cache(maxsize=2)
def _build_light_table(transfer: int) -> npt.NDArray[np.float32]:
    """Build the table from 16-bit level to light: in cd/m2 for PQ, scene light in [0, 1] for HLG."""
    code = np.arange(65536) / 65535
    if transfer == PQ:
        return _decode_pq(code).astype(np.float32)
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - _HLG_C) / _HLG_A) + _HLG_B) / 12).astype(np.float32)


@lru_cache(maxsize=1)
def _build_roll_off_table() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Build the table from source light to displayed light, both in cd/m2."""
    peak = _encode_pq(np.array([_PEAK]))[0]
    code = np.linspace(0, 1, 2048)
    code, highest = np.minimum(code / peak, 1), _encode_pq(np.array([_WHITE]))[0] / peak
    knee = 1.5 * highest - 0.5
    t = np.clip((code - knee) / (1 - knee), 0, 1)
    rolled = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * highest
    return _decode_pq(np.linspace(0, 1, 2048)), _decode_pq(np.where(code < knee, code, rolled) * peak)


@lru_cache(maxsize=1)
def _build_code_table() -> npt.NDArray[np.uint8]:
    """Build the table from light, as a share of white, to levels of 255: the inverse of a display's gamma of 2.4 (BT.1886)."""
    return np.rint(255 * (np.arange(_TABLE_STEPS + 1) / _TABLE_STEPS) ** (1 / 2.4)).astype(np.uint8)
