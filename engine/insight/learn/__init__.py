"""Learning from what nobody named: responses put together by what they say, and match lines proposed for them."""
