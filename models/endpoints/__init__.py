"""Endpoint definitions as in Elasticsearch: parsed, checked, kept in a folder."""
