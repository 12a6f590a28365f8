"""Tokenizers from sentencepiece models, so that the one inside ComfyUI's text encoders needs no other package or download.

The file is one protobuf message (sentencepiece `src/sentencepiece_model.proto`); only the fields of a unigram model are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from lora_edit.errors import ModelError

PIECES_FIELD, TRAINER_FIELD, NORMALIZER_FIELD = 1, 2, 3
PIECE_TEXT_FIELD, PIECE_SCORE_FIELD, PIECE_TYPE_FIELD = 1, 2, 3
MODEL_TYPE_FIELD, BYTE_FALLBACK_FIELD, CHARSMAP_FIELD = 3, 35, 2
UNKNOWN_PIECE_TYPE = 2
UNIGRAM_MODEL_TYPE = 1
TOKENIZER_ADVICE = "put the text encoder's own tokenizer.json (the Hub's google/umt5-xxl for Wan) into a folder tokenizer/ beside it"


def parse_fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protobuf message: integers, 32-bit floats, and bytes as they are."""
    offset = 0
    while offset < len(message):
        tag, offset = _read_varint(message, offset)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value: Any
            value, offset = _read_varint(message, offset)
        elif wire == 1:
            value, offset = message[offset : offset + 8], offset + 8
        elif wire == 2:
            length, offset = _read_varint(message, offset)
            value, offset = message[offset : offset + length], offset + length
        elif wire == 5:
            value, offset = struct.unpack("<f", message[offset : offset + 4])[0], offset + 4
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def _read_varint(message: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[offset]
        value |= (byte & 127) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 128:
            return value, offset


def build_tokenizer(model: bytes, source: str) -> Any:
    """Build a fast tokenizer that ends every text with `</s>`, as T5's do. Raises `ModelError` when the bytes are no unigram model."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    try:
        fields = list(parse_fields(model))
        pieces = [dict(parse_fields(value)) for number, value in fields if number == PIECES_FIELD]
        trainer = dict(parse_fields(next(value for number, value in fields if number == TRAINER_FIELD)))
        charsmap = dict(parse_fields(next((value for number, value in fields if number == NORMALIZER_FIELD), b""))).get(CHARSMAP_FIELD, b"")
        vocabulary = [(piece[PIECE_TEXT_FIELD].decode("utf-8"), float(piece.get(PIECE_SCORE_FIELD, 0.0))) for piece in pieces]
        names = [name for name, _ in vocabulary]
        unknown = next(index for index, piece in enumerate(pieces) if piece.get(PIECE_TYPE_FIELD) == UNKNOWN_PIECE_TYPE)
        end = names.index("</s>")
    except (ValueError, IndexError, KeyError, StopIteration, struct.error) as error:
        raise ModelError(f"{source}: its tokenizer cannot be read ({error}); {TOKENIZER_ADVICE}") from error
    if trainer.get(MODEL_TYPE_FIELD, UNIGRAM_MODEL_TYPE) != UNIGRAM_MODEL_TYPE:
        raise ModelError(f"{source}: its tokenizer is not a unigram model; {TOKENIZER_ADVICE}")
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=bool(trainer.get(BYTE_FALLBACK_FIELD))))
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    pad = "<pad>" if "<pad>" in names else "</s>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token=names[unknown], pad_token=pad)  # noqa: S106
