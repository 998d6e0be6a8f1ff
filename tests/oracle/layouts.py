# SPDX-License-Identifier: Apache-2.0
"""Ternary matrices as the bytes of files, each layout written down on its own from its description.
Standard library only.

A matrix here is `codes`, one byte a weight (ternary value plus 1), row by row; m rows of k columns.
"""
import itertools
import struct


def quads(codes, group, first_low=False):
    """Two bits each: bytes that hold elements p, p + group, p + 2 group, p + 3 group of each block of four
    groups, the first in the highest bits (or in the lowest)."""
    out = bytearray()
    for at in range(0, len(codes), 4 * group):
        parts = [codes[at + g * group:at + (g + 1) * group] for g in range(4)]
        if first_low:
            parts.reverse()
        out += bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in zip(*parts))
    return bytes(out)


def i2s(codes, m, k, scale, layout="a"):
    assert len(codes) == m * k and len(codes) % 128 == 0
    if layout == "c":  # four rows side by side
        assert m % 4 == 0
        packed = b"".join(quads(codes[r * k:(r + 4) * k], k) for r in range(0, m, 4))
    else:
        packed = quads(codes, {"a": 32, "b": 16}[layout])
    return packed + struct.pack("<f", scale) + bytes(28)


def tq2_0(codes, m, k, scale):
    assert k % 256 == 0
    d = struct.pack("<e", scale)
    packed = quads(codes, 32, first_low=True)
    return b"".join(packed[i:i + 64] + d for i in range(0, len(packed), 64))


def tq1_0(codes, m, k, scale):
    assert k % 256 == 0
    d = struct.pack("<e", scale)
    byte = [(v * 256 + 242) // 243 for v in range(243)]
    out = []
    for at in range(0, len(codes), 256):
        b = codes[at:at + 256]
        out.append(bytes(byte[81 * a + 27 * c + 9 * e + 3 * f + g] for a, c, e, f, g in
                         zip(b[0:32], b[32:64], b[64:96], b[96:128], b[128:160])))
        out.append(bytes(byte[81 * a + 27 * c + 9 * e + 3 * f + g] for a, c, e, f, g in
                         zip(b[160:176], b[176:192], b[192:208], b[208:224], b[224:240])))
        out.append(bytes(byte[81 * a + 27 * c + 9 * e + 3 * f] for a, c, e, f in
                         zip(b[240:244], b[244:248], b[248:252], b[252:256])))
        out.append(d)
    return b"".join(out)


def tl1_tiles(m, k):
    """BM, BY and bm for a shape, as the programs that write TL1 could have been given them."""
    strip = next(b for b in (32, 64, 16) if m % b == 0)
    by = 256 // strip
    bm = max(c for c in range(strip, 257, strip) if m % c == 0)
    block = max(c for c in range(by, 129, by) if k % c == 0)
    return bm, block, strip


def tl1(codes, m, k, scale, tiles):
    bm, by_block, strip = tiles
    by = 256 // strip
    pair = [[3 * a + b for b in range(3)] for a in range(3)]
    out = bytearray()
    for mb, kb, rb, q, rr, s in itertools.product(range(0, m, bm), range(0, k, by_block),
                                                  range(0, bm, strip), range(0, by_block, by),
                                                  range(0, strip, 16), range(0, by, 4)):
        at = (mb + rb + rr) * k + kb + q + s
        for e in range(at, at + 16 * k, k):
            out.append(pair[codes[e]][codes[e + 1]] << 4 | pair[codes[e + 2]][codes[e + 3]])
    assert len(out) == m * k // 4
    return bytes(out) + struct.pack("<f", scale) + bytes(28)


def tl2_tiles(m, k):
    assert m % 32 == 0 and k >= 256
    bm = max(c for c in range(32, 257, 32) if m % c == 0)
    block = next(b for b in (96, 192, 24) if k % b % 32 == 0)
    return bm, block, 32


def tl2(codes, m, k, scale, tiles):
    bm, by, strip = tiles
    assert strip == 32 and by % 24 == 0
    k3 = k - k % by
    rows = [g * 8 + i for g in (0, 2, 1, 3) for i in range(8)]
    value = lambda e: 9 * codes[e] + 3 * codes[e + 1] + codes[e + 2] - 13
    out = bytearray()
    for mb, kb, rb, q in itertools.product(range(0, m, bm), range(0, k3, by), range(0, bm, 32),
                                           range(0, by, 6)):
        for row in rows:
            e = (mb + rb + row) * k + kb + q
            out.append(abs(value(e)) << 4 | abs(value(e + 3)))
    for mb, kb, rb, q in itertools.product(range(0, m, bm), range(0, k3, by), range(0, bm, 32),
                                           range(0, by, 24)):
        for c in range(16):
            word = 0
            for i in range(16):
                e = (mb + rb + i % 2 * 16 + c) * k + kb + q + i // 2 * 3
                word |= (value(e) < 0) << 15 - i
            out += struct.pack("<H", word)
    for mb, kb, rb, q in itertools.product(range(0, m, bm), range(k3, k, 32), range(0, bm, 32),
                                           range(0, 32, 4)):
        for row in rows:
            e = (mb + rb + row) * k + kb + q
            out.append(3 * codes[e] + codes[e + 1] << 4 | 3 * codes[e + 2] + codes[e + 3])
    reserved = (k - 256) * m // 3 * 5 // 8 + 256 * m // 2 * 4 // 8
    reserved = (reserved + 31) // 32 * 32
    assert len(out) <= reserved
    return bytes(out) + bytes(reserved - len(out)) + struct.pack("<f", scale) + bytes(28)


def hf_packed(codes, m, k):
    """uint8 [m / 4][k]: a quarter of the rows in each two bits, the first in the lowest."""
    assert m % 4 == 0
    n = m // 4 * k
    return bytes(d << 6 | c << 4 | b << 2 | a for a, b, c, d in
                 zip(codes[:n], codes[n:2 * n], codes[2 * n:3 * n], codes[3 * n:]))


def self_test():
    """The vectors of the layouts' descriptions."""
    x, codes = 1, bytearray()
    for _ in range(512):
        x = (x * 1103515245 + 12345) % 2**31
        codes.append((x >> 16) % 3)
    assert sum(codes) - 512 == 14
    assert i2s(codes, 4, 128, 1.0, "a")[:16].hex() == "a650226958940404282246821625" + "85a0"
    assert i2s(codes, 4, 128, 1.0, "b")[124:128].hex() == "60945258"
    assert i2s(codes, 4, 128, 1.0, "c")[:16].hex() == "86591a6a55a00a24291844a41015a080"
    one = tq1_0(codes[:256], 1, 256, 1.0)
    assert len(one) == 54 and one[:8].hex() == "f47341a786d30a0c" and one[-4:].hex() == "1a17003c"
    two = tq2_0(codes[:256], 1, 256, 1.0)
    assert two[:16].hex() == "9a05886925161010288891829458520a" and two[-4:].hex() == "9255003c"
    rows = bytes((2 * r + c) % 3 for r in range(8) for c in range(4))
    assert hf_packed(rows, 8, 4).hex() == "24499224" + "92244992"


if __name__ == "__main__":
    self_test()
