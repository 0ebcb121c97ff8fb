"""One run, step by step: source, plan, graph, guards, gates, publish."""
