"""The nightly report: gathered from the tables, shown on a terminal, in Markdown and as one static page."""
