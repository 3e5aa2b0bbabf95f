"""python -m training.sweeps"""

from training.sweeps.table import main

if __name__ == "__main__":
    main()
