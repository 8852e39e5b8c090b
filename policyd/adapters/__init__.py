"""Everything that touches the world: Envoy, counters, files, records. Adapters share contracts, not code."""
