"""The run config: what it says, how it is read, what its names stand for."""
