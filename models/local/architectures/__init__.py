"""Forward passes, one file per family of models: packed token ids in, hidden states out."""
