"""For people who write signatures: lint, explain, propose, and what a pattern costs."""
