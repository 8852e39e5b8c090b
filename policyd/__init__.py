"""policyd: the circuit breaker for LLM traffic."""
