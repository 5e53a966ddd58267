"""Explanations of single rows: reasons, counterfactual changes and neighbours; and accumulated local effects."""
