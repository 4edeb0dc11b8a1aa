"""Writes formats.bin, the bytes and numbers that tests/formats/vectors.rs compares bit for bit.

    pip install gguf==0.19.0 numpy==2.4.6 && python3 formats.py

Rows of weights are random bytes; their numbers come from the `gguf` package, which is the judge for
the GGUF formats, and from the formulas of spec 4.1 and 4.4 for the others. Rows of states and
activations come from the formulas of spec 4.4 and 6.2, written here as plainly as possible: the
nearest code is found by trying all of them. Same seed and versions, same file.

A record is a line of text and then its parts, all little-endian:
    decode TYPE WIDTH BYTES        the row, then its WIDTH numbers
    encode TYPE WIDTH BYTES        WIDTH inputs, the row, then the WIDTH numbers of the row
    matrix-row TYPE WIDTH BYTES    codes and scales of a row, then its WIDTH numbers
    hadamard f32 WIDTH 0           WIDTH inputs, then WIDTH outputs
Numbers are binary32.
"""
import pathlib

import gguf
import numpy as np

rng = np.random.default_rng(4)
f32 = np.float32
records = []
np.seterr(over="ignore", divide="ignore")  # Infinities are meant.


def record(head, *parts):
    records.append(head.encode() + b"\n" + b"".join(np.ascontiguousarray(p).tobytes() for p in parts))


# ---- the small formats ---------------------------------------------------------------

E4M3 = np.array([m * 2.0**-9 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)][:127])
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def signed(grid, sign_bit, codes):
    magnitude = grid[codes & (sign_bit - 1)].astype(f32)
    return np.where(codes & sign_bit, -magnitude, magnitude)


def nearest(x, grid, sign_bit):
    distance = np.abs(np.abs(x.astype(np.float64))[..., None] - grid)
    tied = distance == distance.min(-1, keepdims=True)
    # Of two tied neighbours, one has an even code.
    codes = np.where(tied.sum(-1) == 2, tied[..., ::2].argmax(-1) * 2, tied.argmax(-1))
    return (codes + np.where(np.signbit(x), sign_bit, 0)).astype(np.uint8)


def pow2(exponent):
    return np.ldexp(f32(1), exponent).astype(f32)


def group_round(x, group, grid, sign_bit, amax_min):
    """Codes, scale exponents + 127 and values of one row (spec 6.2)."""
    codes, scales, values = [], [], []
    for g in (x[i : i + group] for i in range(0, len(x), group)):
        bound = np.maximum(np.abs(g).max(), f32(amax_min)) * f32(1 / grid[-1])
        fraction, exponent = np.frexp(bound)
        exponent -= int(fraction == 0.5)
        c = nearest(np.clip(g / pow2(exponent), -f32(grid[-1]), f32(grid[-1])), grid, sign_bit)
        codes.append(c)
        scales.append(exponent + 127)
        values.append(signed(grid, sign_bit, c) * pow2(exponent))
    return np.concatenate(codes), np.array(scales, np.uint8), np.concatenate(values)


def padded(row, unit):
    return np.concatenate([row, np.zeros(-len(row) % unit, np.uint8)])


def pairs(codes):
    codes = padded(codes, 2)
    return codes[::2] | codes[1::2] << 4


def bf16(x):
    """Upper halves of the nearest numbers, ties to even; finite inputs."""
    low, bits = x.view(np.uint32) & 0xFFFF, x.view(np.uint32) >> 16
    return (bits + ((low > 0x8000) | ((low == 0x8000) & (bits & 1 == 1)))).astype(np.uint16)


# ---- weights -------------------------------------------------------------------------


def half_scales(n):
    """Scales as f16 bytes: usual sizes, either sign, zeros and subnormals."""
    d = rng.normal(0, 1, n) * 10.0 ** rng.integers(-6, 2, n)
    d[::7] = 0
    d[3::7] = 3e-7
    return d.astype(np.float16)[:, None].view(np.uint8)


def gguf_rows():
    for name, n_blocks, halves in [("q8_0", 20, [0]), ("q4_k", 4, [0, 2]), ("q2_k", 4, [80, 82]), ("iq2_xxs", 8, [0])]:
        kind = gguf.GGMLQuantizationType[name.upper()]
        width, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (n_blocks, size), dtype=np.uint8)
        for at in halves:
            blocks[:, at : at + 2] = half_scales(n_blocks)
        record(f"decode {name} {width * n_blocks} {blocks.size}", blocks, gguf.dequantize(blocks, kind))
    # The package reads scale byte 255 as 2^128; spec 4.4 says NaN, so it is left out.
    blocks = rng.integers(0, 256, (16, 17), dtype=np.uint8)
    blocks[:, 0] = [0, 1, 2, 3, 100, 110, 120, 121, 122, 123, 124, 125, 127, 250, 253, 254]
    record(f"decode mxfp4 512 {blocks.size}", blocks, gguf.dequantize(blocks, gguf.GGMLQuantizationType.MXFP4))


def float_rows():
    for name, kind, top in [("f16", "F16", 0x7C00), ("bf16", "BF16", 0x7F80)]:
        codes = rng.integers(0, top, 256).astype(np.uint16) | (rng.integers(0, 2, 256) << 15).astype(np.uint16)
        codes[:6] = [0, 0x8000, top, 0x8000 | top, 1, 0x8001]
        values = gguf.dequantize(codes.view(np.uint8), gguf.GGMLQuantizationType[kind])
        record(f"decode {name} 256 512", codes, values)


def matrix_rows():
    codes = rng.integers(0, 256, 300).astype(np.uint8)
    codes[codes & 0x7F == 0x7F] = 0
    scales = np.array([0, 118, 130], np.uint8)
    values = signed(E4M3, 0x80, codes) * np.repeat(pow2(scales.astype(int) - 127), 128)[:300]
    record("matrix-row fp8 300 303", codes, scales, values)
    codes = rng.integers(0, 16, 112).astype(np.uint8)
    scales = np.array([0, 119, 127, 140], np.uint8)
    values = signed(E2M1, 8, codes) * np.repeat(pow2(scales.astype(int) - 127), 32)[:112]
    record("matrix-row fp4 112 60", pairs(codes), scales, values)


# ---- states and activations ----------------------------------------------------------


def inputs(width, grid):
    """Rows that reach every corner of the rounding."""
    big = np.finfo(f32).max
    noise = lambda: rng.normal(0, 1, width)
    sign = lambda: rng.choice([-1.0, 1.0], width)
    middles = (grid[1:] + grid[:-1]) / 2
    # The largest code in front makes the scale 1, so the middles are ties.
    ties = rng.choice(middles, width) * sign()
    ties[::32] = grid[-1]
    near = rng.choice(middles, width) * sign() * rng.choice([1 - 2**-23, 1, 1 + 2**-23], width)
    near[::32] = -grid[-1]
    edges = np.where(np.arange(width) % 32 == 0, grid[-1] * 2.0 ** (np.arange(width) // 32 - 3), 0) * (1 + 2**-23)
    zeros = np.zeros(width)
    zeros[1::2] = -0.0
    rows = [noise(), noise() * 10.0 ** rng.integers(-4, 4, width), ties, near, edges, zeros, noise() * 1e-40, noise() * 1e-36]
    rows += [np.clip(noise() * big / 2, -big, big), np.where(np.arange(width) == 5, 1e-4, noise() * 1e-9)]
    return [row.astype(f32) for row in rows]


def scaled_rows():
    for x in inputs(160, E4M3):
        codes, scales, values = group_round(x[:96], 64, E4M3, 0x80, 1e-4)
        tail = bf16(x[96:])
        row = padded(np.concatenate([codes, tail.view(np.uint8), scales]), 8)
        record(f"encode kv8r64 160 {len(row)}", x, row, values, (tail.astype(np.uint32) << 16).view(f32))
    for x in inputs(200, E4M3):
        codes, scales, values = group_round(x, 128, E4M3, 0x80, 1e-4)
        row = padded(np.concatenate([codes, scales]), 4)
        record(f"encode e4m3x128 200 {len(row)}", x, row, values)
    for x in inputs(128, E2M1) + inputs(75, E2M1)[:3]:
        codes, scales, values = group_round(x, 32, E2M1, 8, 6 * 2.0**-126)
        row = padded(np.concatenate([pairs(codes), scales]), 4)
        record(f"encode idx4 {len(x)} {len(row)}", x, row, values)


def int8_rows():
    grid = np.arange(128.0)
    # Middles of codes under scales whose inverses round badly: multiplying by them breaks ties.
    d = np.float16([0.2490234375, 1.978515625, 15.9375]).astype(f32).repeat(32)[:80]
    middles = d * (rng.integers(-127, 127, 80) + f32(0.5))
    middles[::32] = d[::32] * 127
    for x in inputs(80, grid) + [middles.astype(f32)]:
        x = np.clip(x, -8e6, 8e6)
        row, values = [], []
        for g in (x[i : i + 32] for i in range(0, 80, 32)):
            d = np.float16(np.abs(g).max() / f32(127))
            q = np.clip(np.rint(g / f32(d)), -127, 127) if d else np.zeros(len(g))
            q += 0.0  # An integer has no negative zero.
            row += [np.array([d]).view(np.uint8), np.pad(q, (0, 32 - len(q))).astype(np.int8).view(np.uint8)]
            values.append(q.astype(f32) * f32(d))
        record(f"encode q8_0 80 {3 * 34}", x, np.concatenate(row), *values)
    for x in inputs(300, grid)[1::2]:
        row, values = [], []
        for g in (x[:256], x[256:]):
            inverse = f32(-127) / g[np.abs(g).argmax()]
            live = np.isfinite(inverse)
            d = f32(1) / inverse if live else f32(0)
            q = np.clip(np.rint(inverse * g), -128, 127) if live else np.zeros(len(g))
            q += 0.0
            whole = np.pad(q, (0, 256 - len(q)))
            sums = whole.reshape(16, 16).sum(-1).astype(np.int16)
            row += [np.array([d], f32).view(np.uint8), whole.astype(np.int8).view(np.uint8), sums.view(np.uint8)]
            values.append(q.astype(f32) * d)
        record(f"encode q8_k 300 {2 * 292}", x, np.concatenate(row), *values)


def hadamard_row():
    x = rng.normal(0, 1, 128).astype(f32)
    y = x.copy()
    for half in 2 ** np.arange(7):
        a, b = y.reshape(-1, 2, half).transpose(1, 0, 2)
        y = np.stack([a + b, a - b], 1).reshape(-1)
    record("hadamard f32 128 0", x, y * f32(128**-0.5))


gguf_rows()
float_rows()
matrix_rows()
scaled_rows()
int8_rows()
hadamard_row()
pathlib.Path(__file__).with_name("formats.bin").write_bytes(b"".join(records))
