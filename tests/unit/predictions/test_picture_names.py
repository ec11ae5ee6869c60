# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Names of pictures: familiar where they are unique, and never shared."""

from pathlib import Path

from anomalib_vmpfd.predictions.picture_names import PictureNames


def test_unique_names_are_those_of_anomalib():
    names = PictureNames(
        Path("out"), "MVTec", "nut", ["/data/mvtec/nut/test/good/1.png", "/data/mvtec/nut/test/bad/1.png"]
    )
    assert names("/data/mvtec/nut/test/good/1.png") == Path("out/test/good/1.png")
    assert PictureNames(Path("out"))("/parts/good/1.png") == Path("out/good/1.png")


def test_all_follow_the_common_folder_where_two_would_share_a_name():
    sources = ["/parts/a/x/1.png", "/parts/b/x/1.png", "/parts/b/2.png"]
    names = PictureNames(Path("out"), sources=sources)
    assert [names(source).as_posix() for source in sources] == ["out/a/x/1.png", "out/b/x/1.png", "out/b/2.png"]


def test_images_that_were_not_announced_replace_no_picture():
    sources = ["/p/x/1.png", "/q/x/1.png", "/r/p/x/1.png", "/x/1.png", "1.png"]
    names = PictureNames(Path("out"))
    first = [names(source) for source in sources]
    assert len(set(first)) == len(sources)
    assert [names(source) for source in sources] == first
    assert first[0] == Path("out/x/1.png")
    assert all(name.is_relative_to("out") for name in first)


def test_images_in_several_folders_keep_their_paths_below_the_common_one():
    sources = ["/in/good/1.png", "/in/line 2/bad/7.png"]
    names = PictureNames(Path("out"), sources=sources)
    assert [names(source).as_posix() for source in sources] == ["out/good/1.png", "out/line 2/bad/7.png"]


def test_files_of_another_suffix_are_not_shared_by_images_that_differ_in_theirs():
    sources = ["/in/x/1.png", "/in/x/1.jpg"]
    names = PictureNames(Path("out"), sources=sources, suffix=".tiff")
    assert [names(source).as_posix() for source in sources] == ["out/x/1.tiff", "out/in/x/1.tiff"]
