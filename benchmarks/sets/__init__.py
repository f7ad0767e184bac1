"""Public data sets as warehouses, and what is measured on them by itself."""
