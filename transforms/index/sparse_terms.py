"""Sparse weights as terms: bit slices, and the vocabulary on disk."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.index.state import Ints
from transforms.index.tantivy_schema import escape_token


def bit_terms(vocabulary: Sequence[str], levels: Ints, tokens: Ints) -> tuple[pa.Array, Ints]:
    """The terms of quantized weights: ``token#bit`` for each bit that is set.

    A query adds ``its weight * 2^bit`` for each term that it meets, which sums up to the product of the weights.

    Args:
        vocabulary: the tokens.
        levels: quantized weights.
        tokens: position of each weight's token in the vocabulary.

    Returns:
        The terms in the order of the weights, and how many terms each weight has.
    """
    bits = max(int(levels.max(initial=0)).bit_length(), 1)
    # A column for each bit; row by row this gives the set bits in the order of the weights.
    weight, bit = np.nonzero(levels[:, None] >> np.arange(bits) & 1)
    # Every possible term is made once, as text is the costly part: term t * bits + b is bit b of token t.
    safe = pa.array([escape_token(token) for token in vocabulary], pa.string())
    repeated = safe.take(pa.array(np.repeat(np.arange(len(safe)), bits)))
    numbers = pa.array([str(number) for number in range(bits)], pa.string())
    repeated_numbers = numbers.take(pa.array(np.tile(np.arange(bits), len(safe))))
    every_term = pc.binary_join_element_wise(repeated, repeated_numbers, "#")
    # What is wanted of them is then a matter of numbers.
    terms = every_term.take(pa.array(tokens[weight] * bits + bit))
    return terms, np.bitwise_count(levels).astype(np.int64)


def write_tokens(path: Path, counts: Counter[str]) -> None:
    """Write how many chunks hold each token."""
    table = pa.table(
        {"token": pa.array(counts.keys(), pa.string()), "chunks": pa.array(counts.values(), pa.int64())}
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)


def read_tokens(path: Path) -> Counter[str]:
    """Read what `write_tokens` wrote."""
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    return Counter(dict(zip(table["token"].to_pylist(), table["chunks"].to_pylist(), strict=True)))
