"""One module for each protocol of a remote service: requests and answers."""
