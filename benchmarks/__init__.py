"""Adapters that turn public data sets into warehouses, and the measurements made on them."""
