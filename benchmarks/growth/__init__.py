"""How the cost of a night grows with its data, its ranks and its workers."""
