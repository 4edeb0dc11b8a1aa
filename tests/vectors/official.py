"""Writes official.bin: what the reference rounds in class `official`, and to which codes.

    pip install numpy==2.4.6 && python3 official.py path/to/dsv4_numpy.py

dsv4_numpy.py is the reference implementation that the specification comes with. It runs the prompt of
the fixture pro-mixed in binary64. From all layers and positions rows are taken at even distances:

    to_row      key/value rows and compressed entries, 64 channels as e4m3 and 64 rotary ones as bf16
    to_index    index keys and queries before the Hadamard transform, 128 channels as e2m1
    round_act   groups of 128 inputs of the products with FP8 and FP4 weights, as e4m3

A record is a line `OP WIDTH ROWS BYTES`, then ROWS x WIDTH inputs in binary32, then ROWS rows of BYTES
in the layout of ir/src/formats/scaled.rs. Everything is little-endian.
"""
import importlib.util
import pathlib
import sys

import numpy as np

ROWS = 140
HERE = pathlib.Path(__file__).parent

spec = importlib.util.spec_from_file_location("reference", sys.argv[1])
ref = importlib.util.module_from_spec(spec)
sys.modules["reference"] = ref  # Its dataclasses look themselves up.
spec.loader.exec_module(ref)

seen = {"to_row": [], "to_index": [], "round_act": []}
quant, store_kv, store_index = ref.fake_quant, ref.Model.store_kv, ref.Model.store_index
caught = []  # Codes and scale codes of the last call.


def fake_quant(x, group, kind):
    """The reference's own, with the codes that it does not return."""
    g = x.reshape(-1, group).astype(np.float32)
    amax = np.abs(g).max(-1, keepdims=True)
    top, least, encode, decode = {
        "fp8": (448.0, 1e-4, ref.e4m3_encode, lambda c: ref.E4M3[c]),
        "fp4": (6.0, 6 * 2.0**-126, ref.fp4_encode, lambda c: ref.FP4[c]),
    }[kind]
    scale = ref.pow2_ceil(np.maximum(amax, np.float32(least)) * np.float32(1 / top))
    codes = encode(np.clip(g / scale, -top, top))
    y = quant(x, group, kind)
    assert np.array_equal((decode(codes) * scale).reshape(y.shape).astype(y.dtype), y)
    caught[:] = [codes, (np.log2(scale) + 127).astype(np.uint8)]
    return y


def lin(self, x, name):
    if self.num.act_fp8 and name in self.quantised:
        y = ref.fake_quant(x, 128, "fp8")
        seen["round_act"].extend(zip(x.reshape(-1, 128), *caught))
        x = y
    return x @ self.w[name].T


def kv(self, x):
    y = store_kv(self, x)
    rope = ref.f32_to_bf16_bits(x[..., 64:].astype(np.float32))
    seen["to_row"].extend(zip(x, caught[0], rope, caught[1]))
    return y


def index(self, x):
    y = store_index(self, x)
    rows = x.reshape(-1, x.shape[-1])
    codes = caught[0].reshape(len(rows), -1)
    nibbles = codes[:, 0::2] | codes[:, 1::2] << 4
    seen["to_index"].extend(zip(rows, nibbles, caught[1].reshape(len(rows), -1)))
    return y


ref.fake_quant, ref.Model.lin, ref.Model.store_kv, ref.Model.store_index = fake_quant, lin, kv, index
folder = str(HERE.parent / "fixtures/pro-mixed")
model = ref.Model.load(folder, ref.Numerics.official(np.float64))
ids = ref.read_safetensors(folder + "/expected.safetensors")["input_ids"][1]
model.prefill(ids)

out = b""
for op, multiple in [("to_row", 8), ("to_index", 4), ("round_act", 4)]:
    rows = [seen[op][i * len(seen[op]) // ROWS] for i in range(ROWS)]
    inputs = np.stack([row[0] for row in rows]).astype("<f4")
    packed = [b"".join(np.ascontiguousarray(part).tobytes() for part in row[1:]) for row in rows]
    packed = [row + bytes(-len(row) % multiple) for row in packed]
    out += f"{op} {inputs.shape[1]} {ROWS} {len(packed[0])}\n".encode() + inputs.tobytes() + b"".join(packed)
    print(op, len(seen[op]), "rows seen")
(HERE / "official.bin").write_bytes(out)
