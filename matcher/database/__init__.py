"""The text of a probe database -> ProbeDatabase, several as one, and the samples that stand beside our own."""
