"""The commands smartbert-infer and smartbert-inspect, and what the commands of all packages share."""
