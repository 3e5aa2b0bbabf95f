"""Values: discounted sums of rewards, estimated from samples of the discounted future."""
