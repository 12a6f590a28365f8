"""A sentencepiece model as a tokenizer, so that the one inside ComfyUI's text encoders serves without another package or download.

The file is one protobuf message (sentencepiece `src/sentencepiece_model.proto`); only the fields that a unigram model is made of are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from lora_edit.errors import ModelError

PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE, SCORE, KIND = 1, 2, 3
MODEL_TYPE, BYTE_FALLBACK, CHARSMAP = 3, 35, 2
UNKNOWN = 2
UNIGRAM = 1
OTHERWISE = "put the text encoder's own tokenizer.json (the Hub's google/umt5-xxl for Wan) into a folder tokenizer/ beside it"


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: integers, 32-bit floats, and bytes as they are."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value: Any
            value, at = _varint(message, at)
        elif wire == 1:
            value, at = message[at : at + 8], at + 8
        elif wire == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire == 5:
            value, at = struct.unpack("<f", message[at : at + 4])[0], at + 4
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def tokenizer_from(model: bytes, place: str) -> Any:
    """A fast tokenizer that ends every text with `</s>`, as T5's do. Raises `ModelError` when the bytes are no unigram model."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    try:
        top = list(fields(model))
        pieces = [dict(fields(value)) for number, value in top if number == PIECES]
        trainer = dict(fields(next(value for number, value in top if number == TRAINER)))
        charsmap = dict(fields(next((value for number, value in top if number == NORMALIZER), b""))).get(CHARSMAP, b"")
        vocabulary = [(piece[PIECE].decode("utf-8"), float(piece.get(SCORE, 0.0))) for piece in pieces]
        names = [name for name, _ in vocabulary]
        unknown = next(place for place, piece in enumerate(pieces) if piece.get(KIND) == UNKNOWN)
        end = names.index("</s>")
    except (ValueError, IndexError, KeyError, StopIteration, struct.error) as error:
        raise ModelError(f"{place}: its tokenizer cannot be read ({error}); {OTHERWISE}") from error
    if trainer.get(MODEL_TYPE, UNIGRAM) != UNIGRAM:
        raise ModelError(f"{place}: its tokenizer is not a unigram model; {OTHERWISE}")
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=bool(trainer.get(BYTE_FALLBACK))))
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    pad = "<pad>" if "<pad>" in names else "</s>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token=names[unknown], pad_token=pad)
