"""Generated protobuf stubs: what expressions may read, and the wire form of a checked expression."""
