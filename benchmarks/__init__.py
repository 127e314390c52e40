"""What the core costs and saves, each figure beside something else's that was measured in the same run."""
