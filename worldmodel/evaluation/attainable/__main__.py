"""python -m worldmodel.evaluation.attainable"""

from worldmodel.evaluation.attainable.command import main

if __name__ == "__main__":
    main()
