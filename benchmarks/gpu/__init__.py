"""One GPU: how much of it a training step, decoding and the tokenizers use.

    python -m benchmarks gpu --out FILE                     every part, the most important first
    python -m benchmarks gpu --rows mfu_124M,decoding       the named ones
    python -m benchmarks gpu --toy                          small sizes on a CPU, to test the code

Every part has a process and a time limit of its own, and the table is written after every row.
"""
