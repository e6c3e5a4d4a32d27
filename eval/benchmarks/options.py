"""What the options of several benchmarks take: numbers from text; argparse tells what is wrong with others."""

import argparse


def count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number above 0 and below a billion")
    return int(text)


def sizes(text: str) -> tuple[int, int]:
    """Two numbers of photographs, the smaller first."""
    numbers = sorted({int(word) for word in text.split(",") if word.strip().isdecimal()})
    if len(numbers) != 2 or numbers[0] < 2 or text.count(",") != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not two different numbers of photographs above 1, such as 64,256")
    return numbers[0], numbers[1]


def shape(text: str) -> tuple[int, ...]:
    """Numbers of queries and of images, and an even width."""
    numbers = [int(word) for word in text.split(",") if word.strip().isdecimal()]
    if len(numbers) != 3 or text.count(",") != 2 or min(numbers) < 2 or numbers[2] % 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers above 1, the last of them even, such as 4419,3400,8544")
    return tuple(numbers)
