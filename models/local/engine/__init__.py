"""Texts through a model: batches of like length, and the threads that compute them."""
