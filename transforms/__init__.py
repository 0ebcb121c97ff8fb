"""The stages of the pipeline: for each, a pure function and the PTransform that wraps it."""
