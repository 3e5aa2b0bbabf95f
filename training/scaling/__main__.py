"""python -m training.scaling"""

from training.scaling.scaling import main

if __name__ == "__main__":
    main()
