"""LTX-2's text encoder: all hidden states of a Gemma, and the connectors that make the transformer's text of them."""

from __future__ import annotations

from typing import Any

import torch

from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.lazy_module import LazyModule


class GemmaPromptEncoder:
    """Prompt -> `[1, max_length, D]` (diffusers `pipeline_ltx2.py: _get_gemma_prompt_embeds`, `connectors.py`).

    Prompts are padded on the left. The connectors move the prompt's tokens to the front and put learned registers behind them, which are
    text as well: nothing is masked. Without registers, only the prompt's own rows are returned.
    """

    def __init__(self, encoder: LazyModule, connectors: LazyModule, tokenizer: Any, max_length: int, device_manager: DeviceManager) -> None:
        self.encoder, self.connectors, self.tokenizer = encoder, connectors, tokenizer
        self.max_length, self.device_manager = max_length, device_manager
        self.cache = device_manager.create_encoding_cache(encoder, connectors)

    def __call__(self, prompt: str) -> torch.Tensor:
        """Return the embeddings on the device manager's device."""
        return self.cache(lambda: self._encode(prompt), prompt, str(self.max_length))

    @torch.no_grad()
    def _encode(self, prompt: str) -> torch.Tensor:
        tokens = self.tokenizer(
            [prompt.strip()],
            padding="max_length",
            padding_side="left",
            max_length=self.max_length,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        device = self.device_manager.device
        ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
        encoder = self.device_manager.load(self.encoder)
        states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, logits_to_keep=1).hidden_states
        packed = torch.stack(states, dim=-1).flatten(2, 3)
        del states
        connectors = self.device_manager.load(self.connectors)
        embeds, _, embeds_mask = connectors(packed.to(connectors.dtype), mask, padding_side="left")
        rows: torch.Tensor = embeds[:, embeds_mask[0] > 0]
        return rows
