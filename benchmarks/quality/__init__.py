"""Quality on public sets, beside tuned baselines."""
