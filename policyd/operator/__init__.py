"""The operator: compiles what is applied, and says in each policy's status what became of it. It enforces nothing."""
