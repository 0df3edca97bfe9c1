"""Write scikit-learn's handwritten digits as one folder per digit: real scans for `priorkit rank-e`."""

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def main(folder: Path) -> None:
    """Write the 1,797 scans, 8 x 8 pixels with 17 levels of grey, as PNG files."""
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        target = folder / NAMES[digit] / f"{number:04d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 - pixels * (255 / 16)).astype("uint8")).save(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
