"""Cross-encoders that run on this machine: query and text go through the model together, and one score comes out."""
