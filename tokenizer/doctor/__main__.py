"""python -m tokenizer.doctor"""

from tokenizer.doctor.callback import main

if __name__ == "__main__":
    main()
