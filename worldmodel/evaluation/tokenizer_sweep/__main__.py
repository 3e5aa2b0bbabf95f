"""python -m worldmodel.evaluation.tokenizer_sweep"""

from worldmodel.evaluation.tokenizer_sweep.sweep import main

if __name__ == "__main__":
    main()
