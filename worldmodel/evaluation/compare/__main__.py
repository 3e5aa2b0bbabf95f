"""python -m worldmodel.evaluation.compare"""

from worldmodel.evaluation.compare.command import main

if __name__ == "__main__":
    main()
