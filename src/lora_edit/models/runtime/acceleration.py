"""diffusers' accelerations of sampling, enabled for one generation and disabled after it. Training never uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lora_edit.errors import ModelError
from lora_edit.models.family import Family

NATIVE_ATTENTION = "native"
"""torch's own attention, which works on every device."""


@contextmanager
def accelerate_sampling(family: Family, *, attention_backend: str, cache_threshold: float, compile_blocks: bool) -> Iterator[None]:
    """Accelerate sampling with all transformers of a family within the context.

    `attention_backend` is diffusers' name, `cache_threshold` FirstBlockCache's threshold (0 disables it), `compile_blocks` compiles the
    repeated blocks, except of a transformer with swapped blocks: a compiled block would keep the weights it was compiled with. Raises
    `ModelError` for what this machine or the model does not support.
    """
    with ExitStack() as undo:
        for expert in family.experts():
            transformer: Any = expert.transformer
            with _convert_errors(family.name):
                if attention_backend != NATIVE_ATTENTION:
                    undo.callback(transformer.set_attention_backend, NATIVE_ATTENTION)
                    transformer.set_attention_backend(attention_backend)
                if cache_threshold:
                    _enable_first_block_cache(transformer, cache_threshold)
                    undo.callback(transformer.disable_cache)
                if compile_blocks and family.device_manager.get_block_swapper(transformer) is None:
                    transformer.compile_repeated_blocks()
                    undo.callback(_uncompile, transformer)
        yield


def _enable_first_block_cache(transformer: Any, threshold: float) -> None:
    from diffusers import FirstBlockCacheConfig

    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))


def _uncompile(transformer: Any) -> None:
    for module in transformer.modules():
        module._compiled_call_impl = None


@contextmanager
def _convert_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, ImportError, NotImplementedError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{name} cannot sample so here ({reason}); leave generation.attention, .cache and .compile as they are") from error
