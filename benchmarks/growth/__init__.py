"""How time and memory grow with context, vocabulary, drives and futures: one table, one picture."""
