"""From chunks to embeddings; those of unchanged chunks are kept."""
