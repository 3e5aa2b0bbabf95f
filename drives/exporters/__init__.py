"""Our drives and token stores in the formats of others, one room for each registry entry."""
