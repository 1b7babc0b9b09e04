"""Measure how fast the payload of a record is read and written: positional arguments as an array, or as a map by name.

    python benchmarks/record_codec.py [--rounds 200000]

The payload is a number and a text of 200 bytes, decoded into annotated types; no server.
"""

from __future__ import annotations

import argparse
import statistics
import timeit

import msgspec
from kit import TEXT


class ByName(msgspec.Struct):
    """The arguments as a map."""

    number: int
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200_000)
    rounds = parser.parse_args().rounds
    encode = msgspec.msgpack.Encoder().encode
    array, by_name = encode((12_345, TEXT)), encode(ByName(12_345, TEXT))
    decode_array = msgspec.msgpack.Decoder(tuple[int, str]).decode
    decode_map = msgspec.msgpack.Decoder(ByName).decode
    calls = {
        "array": (lambda: decode_array(array), lambda: encode((12_345, TEXT)), len(array)),
        "map": (lambda: decode_map(by_name), lambda: encode(ByName(12_345, TEXT)), len(by_name)),
    }
    for name, (read, write, size) in calls.items():
        costs = [
            statistics.median(timeit.repeat(call, number=rounds, repeat=5)) / rounds * 1e9 for call in (read, write)
        ]
        print(f"{name:<6} {size} bytes   read {costs[0]:.0f} ns   write {costs[1]:.0f} ns")


if __name__ == "__main__":
    main()
