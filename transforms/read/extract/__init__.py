"""Text out of documents: what a file is, its Markdown, and the child processes that bound what a bad one may cost."""
