from __future__ import annotations

import numpy as np
import pytest

from lbkit.video.orientation import Orientation

ONE = 1 << 16
# Letters of a picture whose corners are A B / C D, as a player shows them under each matrix (a b c d).
SHOWN = {
    (1, 0, 0, 1): "AB/CD",
    (0, 1, -1, 0): "CA/DB",  # a quarter clockwise, as phones held upright write it
    (-1, 0, 0, -1): "DC/BA",
    (0, -1, 1, 0): "BD/AC",
    (-1, 0, 0, 1): "BA/DC",
    (1, 0, 0, -1): "CD/AB",
    (0, 1, 1, 0): "AC/BD",
}


def matrix(a: int, b: int, c: int, d: int) -> bytes:
    return np.array([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30], np.int32).tobytes()


def corners(image: np.ndarray) -> str:
    rows = [[image[y, x, 0] for x in (0, -1)] for y in (0, -1)]
    return "/".join("".join(chr(value) for value in row) for row in rows)


@pytest.mark.parametrize(("entries", "shown"), list(SHOWN.items()))
def test_a_picture_is_turned_as_a_player_shows_it(entries: tuple[int, int, int, int], shown: str) -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0], image[0, 2], image[1, 0], image[1, 2] = (ord(letter) for letter in "ABCD")
    turned = Orientation.of_matrix(matrix(*entries)).apply(image)
    assert corners(turned) == shown
    assert turned.shape == ((3, 2, 3) if entries[0] == 0 else (2, 3, 3))
    assert turned.flags.c_contiguous


def test_a_crooked_matrix_counts_as_the_nearest_quarter() -> None:
    crooked = np.array([0.2 * ONE, 0.98 * ONE, 0, -0.98 * ONE, 0.2 * ONE, 0, 0, 0, 1 << 30]).astype(np.int32).tobytes()
    assert Orientation.of_matrix(crooked) == Orientation.of_matrix(matrix(0, 1, -1, 0))
