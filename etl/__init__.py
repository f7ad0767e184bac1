"""Warehouse tables -> cleaned query-title pairs (Delta) -> tokenised Petastorm dataset."""
