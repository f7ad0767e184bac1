"""Petastorm dataset -> DeepSpeed training -> bundle (weights, tokenizer, calibration, manifest)."""
