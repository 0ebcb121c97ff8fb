"""How much of a table its embeddings take."""

from collections.abc import Sequence

from transforms.index.snapshot import Snapshot
from transforms.table.parts import open_part


def column_bytes(table_path: str, fields: Sequence[str]) -> dict[str, int]:
    """Semantic field -> bytes that its column takes in the newest version's part files, compressed as it is there."""
    sizes = dict.fromkeys(fields, 0)
    for name in Snapshot.of_table(table_path).parts:
        metadata = open_part(table_path, name).metadata
        for group in range(metadata.num_row_groups):
            for at in range(metadata.num_columns):
                leaf = metadata.row_group(group).column(at)
                field = leaf.path_in_schema.partition(".chunks.")[0]
                if field in sizes:
                    sizes[field] += leaf.total_compressed_size
    return sizes
