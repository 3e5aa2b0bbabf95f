"""python -m tokenizer.compare"""

from tokenizer.compare.command import main

if __name__ == "__main__":
    main()
