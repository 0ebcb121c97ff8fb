"""Measure retrieval by queries and judgements."""
