"""What was measured, what was required, and the judgement of the one by the other."""
