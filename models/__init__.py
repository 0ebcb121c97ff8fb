"""Inference endpoints: texts in, embeddings out. Never imports Beam."""
