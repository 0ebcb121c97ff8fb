"""Real search servers on loopback, for tests: `make servers` fetches them below build/servers."""
