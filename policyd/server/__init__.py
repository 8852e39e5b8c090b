"""The data plane as processes: one that serves, or a supervisor and its workers."""
