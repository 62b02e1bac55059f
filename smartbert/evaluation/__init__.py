"""What a model does: one recorded pass, the decisions it would take, their cost and their quality."""
