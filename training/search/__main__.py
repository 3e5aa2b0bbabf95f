"""python -m training.search"""

from training.search.search import main

if __name__ == "__main__":
    main()
