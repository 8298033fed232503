"""ai-infra: a control plane for machine-learning models whose only truth is a signed event log."""
