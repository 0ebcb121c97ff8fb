"""The HTTP server: Elasticsearch's inference API, OpenAI's embeddings, a page. Needs the extra `serve`."""
