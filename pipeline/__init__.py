"""The application: command line, run config, Beam graph, search and evaluation."""
