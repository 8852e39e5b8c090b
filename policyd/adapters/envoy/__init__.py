"""The Envoy side: ext_proc messages to events, steps to ext_proc messages."""
