"""The readers of the index: retrievers, fusion, filters, explanations."""
