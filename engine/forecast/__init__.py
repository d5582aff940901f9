"""What a scan will take, told before it is begun: counts and a policy in, figures and their derivation out. Pure."""
