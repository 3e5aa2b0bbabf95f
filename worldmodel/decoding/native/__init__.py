"""New positions of a GPT computed by one C function, compiled here by the machine's compiler."""
