"""``python -m priorkit``, so that ``torchrun -m priorkit pretrain ...`` works."""

from priorkit.cli.main import main

if __name__ == "__main__":
    main()
