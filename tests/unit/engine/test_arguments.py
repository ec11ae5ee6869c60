# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Parts by name: what is unknown is named with what there is."""

import pytest

from anomalib_vmpfd.engine.arguments import build_part, check_choice


class Circle:
    def __init__(self, centre: tuple[int, int], radius: float = 1.0, colour: str = "red") -> None:
        self.centre, self.radius, self.colour = centre, radius, colour


class Square:
    def __init__(self, centre: tuple[int, int], side: float = 2.0) -> None:
        self.centre, self.side = centre, side


SHAPES = {"circle": Circle, "square": Square}


def test_what_is_not_given_keeps_its_default():
    circle = build_part("shape", "circle", SHAPES, {"radius": 3.0}, (1, 2))
    assert (circle.centre, circle.radius, circle.colour) == ((1, 2), 3.0, "red")
    assert build_part("shape", "square", SHAPES, None, (0, 0)).side == 2.0


def test_an_unknown_part_is_named_with_the_choices():
    with pytest.raises(ValueError, match="Unknown shape='cube'; choose one of 'circle', 'square'"):
        build_part("shape", "cube", SHAPES, None, (0, 0))
    with pytest.raises(ValueError, match="Unknown shape='cube'; choose one of 'circle', 'square'"):
        check_choice("shape", "cube", SHAPES)


def test_unknown_arguments_are_named_with_those_that_the_part_takes():
    message = "shape_args has no 'side', 'depth' where shape='circle'; it takes radius, colour"
    with pytest.raises(ValueError, match=message):
        build_part("shape", "circle", SHAPES, {"side": 1.0, "radius": 2.0, "depth": 3}, (0, 0))


def test_what_the_model_gives_itself_is_no_argument_of_the_user():
    with pytest.raises(ValueError, match="shape_args has no 'centre' where shape='circle'"):
        build_part("shape", "circle", SHAPES, {"centre": (5, 5)}, (0, 0))
