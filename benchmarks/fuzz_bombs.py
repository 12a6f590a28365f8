"""Inputs for `fuzz.py` that are small on disk and large, endless or absurd once opened; each function writes one into a folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from fuzz_mutations import DEEP, build_png_chunk
from PIL import Image

Builder = Callable[[Path, random.Random], Path]


def png(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Build a PNG from its header's content and further chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(build_png_chunk(*chunk) for chunk in ((b"IHDR", header), *chunks, (b"IEND", b"")))


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """Build the content of a PNG's header chunk."""
    return struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)


def large_png(folder: Path, rng: random.Random) -> Path:
    """Write a PNG of up to 2^31 pixels a side."""
    width, height = rng.choice(
        ((60000, 60000), (2**31 - 1, 1), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (32000, 32000), (20000, 8900), (10**9, 1))
    )
    path = folder / "large.png"
    path.write_bytes(png(png_header(width, height, rng.choice((1, 8, 16)), rng.choice((0, 2, 6))), (b"IDAT", zlib.compress(b"\0" * 1000))))
    return path


def filled_png(folder: Path, rng: random.Random) -> Path:
    """Write a PNG of 400 megapixels of one colour, complete, in 400 kB."""
    side = rng.choice((14000, 20000))
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + side)
    data = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    path = folder / "filled.png"
    path.write_bytes(png(png_header(side, side, 8, 0), (b"IDAT", data)))
    return path


def png_text_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a PNG with a text, profile or many texts that inflate to gigabytes."""
    packer = zlib.compressobj(9)
    blob = b"".join(packer.compress(b"\0" * 2**20) for _ in range(rng.choice((80, 1000)))) + packer.flush()
    kind = rng.choice((b"zTXt", b"iCCP", b"iTXt"))
    content = b"a\0\0" + blob if kind != b"iTXt" else b"a\0\1\0\0\0" + blob
    idat = zlib.compress((b"\0" + b"\x80" * 64 * 3) * 48)
    path = folder / "text.png"
    path.write_bytes(png(png_header(64, 48), *[(kind, content)] * rng.choice((1, 20)), (b"IDAT", idat)))
    return path


def apng_count_bomb(folder: Path, rng: random.Random) -> Path:
    """Write an APNG that states up to 2^32 frames, or has 100,000 tiny ones."""
    idat = zlib.compress((b"\0" + b"\x80" * 64 * 3) * 48)
    control = struct.pack(">IIIIIHHBB", 0, 64, 48, 0, 0, 1, 25, 0, 0)
    path = folder / "count.png"
    real = rng.choice((1, 100_000))
    frames = b"".join(
        build_png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * i + 1, 64, 48, 0, 0, 1, 25, 0, 0))
        + build_png_chunk(b"fdAT", struct.pack(">I", 2 * i + 2) + idat)
        for i in range(real)
    )
    count = rng.choice((1_000_000, 2**31 - 1, 2**32 - 1)) if real == 1 else real + 1
    data = png(png_header(64, 48), (b"acTL", struct.pack(">II", count, 0)), (b"fcTL", control), (b"IDAT", idat))
    path.write_bytes(data[:-12] + frames + data[-12:])
    return path


def gif_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a GIF of 65535x65535, or of 1,000,000 frames."""
    what = rng.randrange(3)
    width, height, count = ((65535, 65535, 2), (64, 48, 1_000_000), (8000, 8000, 20_000))[what]
    frame = b"\x21\xf9\x04\0\x04\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    path = folder / "bomb.gif"
    path.write_bytes(b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0" * 3 + b"\xff" * 3 + frame * count + b";")
    return path


def tiff_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a TIFF of absurd size, with absurd samples per pixel, or with a directory that points to itself."""
    width, height = rng.choice(((60000, 60000), (2**32 - 1, 2**32 - 1), (1, 10**9), (64, 48)))
    samples, loop = rng.choice((1, 3, 65535)), rng.random() < 0.4
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, rng.choice((1, 5, 8))),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, samples),
        (278, 4, 1, height),
        (279, 4, 1, 100),
    ]
    data = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path = folder / "bomb.tiff"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + data + struct.pack("<I", 8 if loop else 0) + b"\0" * 4000)
    return path


def webp_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a WebP of 2^24 pixels a side, or with 200,000 frames."""
    size = rng.choice((2**24 - 1, 16383, 64))
    vp8x = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + (size - 1).to_bytes(3, "little") + (size - 1).to_bytes(3, "little")
    anim = b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    lossless = b"VP8L" + struct.pack("<I", 8) + bytes.fromhex("2f00000000888808")
    frame = b"ANMF" + struct.pack("<I", 16 + len(lossless)) + b"\0" * 12 + b"\1\0\0\0" + lossless
    body = b"WEBP" + vp8x + anim + frame * rng.choice((1, 200_000))
    path = folder / "bomb.webp"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def bmp_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a BMP or PPM of absurd size."""
    width, height = rng.choice(((60000, 60000), (2**31 - 1, 2**31 - 1), (-1, 5), (10**9, 1)))
    if rng.random() < 0.5:
        path = folder / "bomb.ppm"
        path.write_bytes(f"P6 {width} {height} 255\n".encode() + b"\0" * 1000)
        return path
    path = folder / "bomb.bmp"
    path.write_bytes(b"BM" + struct.pack("<IHHIIiiHHIIiiII", 1054, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 1000)
    return path


def patch(source: Path, target: Path, token: bytes, offset: int, value: bytes) -> Path:
    """Copy a file and overwrite bytes `offset` behind the start of `token`, where it occurs."""
    data = bytearray(source.read_bytes())
    position = data.find(token)
    while position >= 0:
        data[position + offset : position + offset + len(value)] = value
        position = data.find(token, position + len(token) + offset)
    target.write_bytes(data)
    return target


def mp4_bomb(folder: Path, rng: random.Random) -> Path:
    """Write an MP4 with an absurd frame count, time scale, duration, rate or size."""
    huge = rng.choice((0, 1, 2**31 - 1, 2**32 - 1)).to_bytes(4, "big")
    token, offset = rng.choice(
        (
            (b"stts", 8),
            (b"stts", 12),
            (b"stsz", 8),
            (b"stsz", 12),
            (b"mdhd", 16),
            (b"mdhd", 20),
            (b"mvhd", 16),
            (b"mvhd", 20),
            (b"tkhd", 80),
            (b"avc1", 28),
            (b"elst", 12),
            (b"elst", 16),
            (b"ctts", 8),
            (b"stsc", 8),
            (b"stco", 8),
            (b"chpl", 8),
        )
    )
    return patch(folder / "../clips/h264.mp4", folder / "bomb.mp4", token, offset, huge)


def mp4_sample_bomb(folder: Path, rng: random.Random) -> Path:
    """Write an MP4 whose tables state a billion samples of one size."""
    data = bytearray((folder / "../clips/plain.mp4").read_bytes())
    count = rng.choice((10**6, 10**8, 2**31 - 1))
    position = data.index(b"stts") + 8
    data[position : position + 12] = struct.pack(">III", 1, count, rng.choice((0, 1, 512)))
    position = data.index(b"stsz") + 8
    data[position : position + 8] = struct.pack(">II", 20, count)
    path = folder / "samples.mp4"
    path.write_bytes(data)
    return path


def mp4_rate_bomb(folder: Path, rng: random.Random) -> Path:
    """Write an MP4 of 10^9 frames per second, or of one frame per century."""
    data = bytearray((folder / "../clips/plain.mp4").read_bytes())
    position = data.index(b"mdhd") + 16
    data[position : position + 4] = rng.choice((1, 10**9, 2**31 - 1)).to_bytes(4, "big")
    position = data.index(b"stts") + 16
    data[position : position + 4] = rng.choice((1, 2**31 - 1, 2**32 - 1)).to_bytes(4, "big")
    path = folder / "rate.mp4"
    path.write_bytes(data)
    return path


def mkv_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a Matroska file with an absurd width, height, duration or time scale."""
    token, value = rng.choice(
        (
            (b"\xb0\x81\x40", b"\xff"),
            (b"\xba\x81\x30", b"\xff"),
            (b"\x2a\xd7\xb1\x83", b"\xff\xff\xff"),
            (b"\x2a\xd7\xb1\x83", b"\0\0\0"),
            (b"\x44\x89\x88", b"\x7f\xef" + b"\xff" * 6),
            (b"\x44\x89\x88", b"\x7f\xf8" + b"\0" * 6),
            (b"\x23\xe3\x83\x84", b"\0\0\0\1"),
        )
    )
    return patch(folder / "../clips/ffv1.mkv", folder / "bomb.mkv", token, len(token) - (token[-1] in (0x40, 0x30)), value)


def y4m_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a Y4M file with an absurd size or rate."""
    head = rng.choice(
        (b"W60000 H60000 F25:1", b"W64 H48 F1000000000:1", b"W64 H48 F0:0", b"W2147483647 H2147483647 F25:1", b"W-1 H-1 F1:1")
    )
    path = folder / "bomb.y4m"
    path.write_bytes(b"YUV4MPEG2 " + head + b" C420\n" + (b"FRAME\n" + b"\x80" * (64 * 48 * 3 // 2)) * 3)
    return path


def ebml(name: str, content: bytes) -> bytes:
    """Build an EBML element, `name` in hexadecimal digits."""
    return bytes.fromhex(name) + (2**56 + len(content)).to_bytes(8, "big") + content


def chapter_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a Matroska file with 100,000 chapters, or with 5,000 tracks."""
    tracks, chapters = rng.choice(((1, 100_000), (5_000, 0), (990, 10)))
    video = ebml("e0", ebml("b0", b"\x40") + ebml("ba", b"\x30"))
    track = b"".join(
        ebml(
            "ae",
            ebml("d7", number.to_bytes(4, "big"))
            + ebml("73c5", number.to_bytes(4, "big"))
            + ebml("83", b"\1")
            + ebml("86", b"V_MJPEG")
            + video,
        )
        for number in range(1, tracks + 1)
    )
    atoms = b"".join(
        ebml(
            "b6",
            ebml("73c4", number.to_bytes(4, "big"))
            + ebml("91", number.to_bytes(8, "big"))
            + ebml("92", (number + 1).to_bytes(8, "big"))
            + ebml("80", ebml("85", b"t")),
        )
        for number in range(1, chapters + 1)
    )
    picture = io.BytesIO()
    Image.new("RGB", (64, 48)).save(picture, "JPEG")
    blocks = b"".join(ebml("a3", b"\x81" + (40 * index).to_bytes(2, "big") + b"\x80" + picture.getvalue()) for index in range(5))
    body = ebml("1549a966", ebml("2ad7b1", (10**6).to_bytes(4, "big"))) + ebml("1654ae6b", track)
    body += (ebml("1043a770", ebml("45b9", atoms)) if chapters else b"") + ebml("1f43b675", ebml("e7", b"\0") + blocks)
    path = folder / "chapters.mkv"
    path.write_bytes(ebml("1a45dfa3", ebml("4282", b"matroska")) + ebml("18538067", body))
    return path


def special_file(folder: Path, rng: random.Random) -> Path:
    """Create a pipe, a socket, a loop of links, or link a device."""
    path = folder / rng.choice(("special.mp4", "special.png", "special"))
    what = rng.randrange(5)
    if what == 0:
        os.mkfifo(path)
    elif what == 1:
        with socket.socket(socket.AF_UNIX) as server:
            here = os.getcwd()
            os.chdir(folder)  # the name of a socket is limited to 108 bytes
            server.bind(path.name)
            os.chdir(here)
    elif what == 2:
        path.symlink_to(path.name)
    else:
        path.symlink_to("/dev/zero" if what == 3 else "/dev/full")
    return path


def crowded_folder(folder: Path, rng: random.Random) -> Path:
    """Fill a folder with 30,000 names, or with names that are hard to sort."""
    path = folder / "crowd"
    path.mkdir()
    if rng.random() < 0.4:
        for index in range(30_000):
            os.close(os.open(path / f"{index}.png", os.O_CREAT))
    else:
        digits = ("9" * 200, "\u0661\u0662.png", "\u00b2.png", "-1", "0" * 200, "1e5")
        for name in digits:
            (path / f"{name.removesuffix('.png')}.png").write_bytes((folder / "../images/rgb.png").read_bytes())
        (path / "loop.png").symlink_to("loop.png")
    return path


def folder_of_links(folder: Path, rng: random.Random) -> Path:
    """Fill a folder of pictures with a pipe, a device or a folder under a picture's name."""
    path = folder / "links"
    path.mkdir()
    for index in range(2):
        (path / f"{index}.png").write_bytes((folder / "../images/rgb.png").read_bytes())
    what = rng.randrange(3)
    if what == 0:
        os.mkfifo(path / "2.png")
    elif what == 1:
        (path / "2.png").symlink_to("/dev/zero")
    else:
        (path / "2.png").mkdir()
    return path


def safetensors_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a safetensors file with a header of 4 GB, nested deeply, of absurd shapes, or of a million tensors."""
    what = rng.randrange(6)
    header = b"{}"
    length = None
    if what == 0:
        length = rng.choice((4 * 2**30, 2**63, 2**64 - 1, 10**8))
    elif what == 1:
        header = b"[" * DEEP + b"]" * DEEP
    elif what == 2:
        shape = rng.choice(([2**62, 2**62], [-1, 4], [0], [1] * 10_000, [1e3], ["4"], 4, [10**30]))
        entry = {"dtype": "F32", "shape": shape, "data_offsets": rng.choice(([0, 4], [0, 2**64], [-4, 0], [4, 0], [0.5, 1], [], "ab"))}
        header = json.dumps({"a.lora_A.weight": entry, "a.lora_B.weight": entry}).encode()
    elif what == 3:
        header = json.dumps(
            {f"b.{i}.lora_A.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(200_000)}
        ).encode()
    elif what == 4:
        header = json.dumps(
            {"__metadata__": rng.choice(({"a": "x" * 5_000_000}, {"a": 1}, {"a": None}, [], "x", {"": "\x1b]0;x\x07"}))}
        ).encode()
    else:
        header = b'{"a": {"dtype": "F32", "shape": [' + b"9" * 10_000 + b'], "data_offsets": [0, 4]}}'
    path = folder / "bomb.safetensors"
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + b"\0" * 64)
    return path


def gguf_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a GGUF file with 2^60 tensors, strings, dimensions or nested arrays."""
    what = rng.randrange(5)
    many = rng.choice((2**60, 2**31, 999_999))
    if what == 0:
        data = struct.pack("<IQQ", 3, many, many)
    elif what == 1:
        data = struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", many)
    elif what == 2:  # arrays of arrays
        data = struct.pack("<IQQQ", 3, 1, 1, 1) + b"a" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * DEEP
    elif what == 3:  # an array of empty arrays, as long as a number can be
        data = struct.pack("<IQQQ", 3, 1, 1, 1) + b"a" + struct.pack("<IIQ", 9, 9, many) + struct.pack("<IQ", 0, 0) * 1000
    else:  # a tensor of 2^31 dimensions
        data = struct.pack("<IQQQ", 3, 1, 0, 1) + b"a" + struct.pack("<I", 2**31 - 1) + struct.pack("<Q", 2) * 1000
    path = folder / "bomb.gguf"
    path.write_bytes(b"GGUF" + data + b"\0" * 64)
    return path


def text_bomb(folder: Path, rng: random.Random) -> Path:
    """Write a settings file, a manifest or a configuration with deep, huge or binary content."""
    path = folder / "bomb.txt"
    huge = (
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b"x = " + b"[" * DEEP,
        b"seed = " + b"9" * 100_000,
        b'"' + b"x" * 20_000_000 + b'"',
        b"\0" * 1000,
        gzip.compress(b"x"),
        b"\xff\xfe" + "seed = 1".encode("utf-16le"),
        b"a.b = 1\na.b.c = 2\n",
        b"{}\n" * 50_000,
        b"1\n",
        b"[]\n",
        b"null\n",
    )
    path.write_bytes(rng.choice(huge))
    return path


VIDEO_BOMBS: tuple[Builder, ...] = (
    mp4_bomb,
    mp4_bomb,
    mp4_bomb,
    mp4_sample_bomb,
    mp4_rate_bomb,
    mkv_bomb,
    y4m_bomb,
    chapter_bomb,
    gif_bomb,
    apng_count_bomb,
    webp_bomb,
    tiff_bomb,
)
IMAGE_BOMBS: tuple[Builder, ...] = (large_png, filled_png, png_text_bomb, gif_bomb, tiff_bomb, webp_bomb, bmp_bomb, apng_count_bomb)
FOLDER_BOMBS: tuple[Builder, ...] = (crowded_folder, folder_of_links)
