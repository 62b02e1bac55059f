"""Evaluation of a model on labeled texts: a recorded pass, decisions under any policy, their quality and their cost."""
