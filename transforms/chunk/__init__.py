"""From texts to chunks, with the same results as Elasticsearch."""
