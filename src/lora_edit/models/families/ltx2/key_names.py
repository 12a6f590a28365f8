"""Names of LTX-Video's and LTX-2's layers: in the original checkpoints and ComfyUI, and in diffusers' modules.

Blocks have the same names in both; a few layers outside of them differ (diffusers `scripts/convert_ltx2_to_diffusers.py`).
"""

from __future__ import annotations

BLOCK_LAYERS = (
    *(f"attn{number}.{layer}" for number in (1, 2) for layer in ("to_q", "to_k", "to_v", "to_out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
"""Linear layers within `transformer_blocks.N.` that belong to the picture."""

_TIME_LAYERS = ("linear", "emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2")
OUTER_LAYERS = {
    "proj_in": "patchify_proj",
    **{f"time_embed.{layer}": f"adaln_single.{layer}" for layer in _TIME_LAYERS},
    **{f"prompt_adaln.{layer}": f"prompt_adaln_single.{layer}" for layer in _TIME_LAYERS},
}
"""Outside the blocks: diffusers' name and the original."""
