"""Quality and speed, measured beside what a user would pick instead."""
