"""One file per remote embedding service."""
