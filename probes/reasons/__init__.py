"""What is said of one row: why it was decided as it was, what would change that, and which rows are near; and ALE."""
