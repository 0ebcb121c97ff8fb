"""What a search shows of a document that it found: its best chunks, their neighbours, and its place after reranking."""
