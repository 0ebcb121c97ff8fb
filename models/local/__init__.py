"""Models that run on this machine: checkpoints, tokenizers, forward passes."""
