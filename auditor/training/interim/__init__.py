"""Interim looks during training: their content, error budget, cost, figures and checkpoints."""
