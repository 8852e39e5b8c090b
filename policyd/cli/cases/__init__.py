"""Cases of policies: calls in a row on a fake clock, through the engine that serves, and what is expected of them."""
