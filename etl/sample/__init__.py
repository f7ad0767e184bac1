"""A generated shop in Chinese and English: the input tables of a warehouse, and the truth behind them."""
