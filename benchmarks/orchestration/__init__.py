"""What orchestration costs: flow, DVC and MLflow over bare stages; nothing to do; a whole sweep."""
