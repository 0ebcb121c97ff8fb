"""Chunks into other engines: one small file each."""
