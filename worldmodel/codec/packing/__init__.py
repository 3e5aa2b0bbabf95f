"""World models in few bytes."""
